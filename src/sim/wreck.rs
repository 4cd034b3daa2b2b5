// SPDX-License-Identifier: GPL-2.0-only
//! Learners that are broken on purpose: what they cost is what the guard is worth.

use anyhow::Result;
use clap::ValueEnum;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::agent::reward::CAP_NS;
use crate::agent::{Agent, Hyper, Origin};
use crate::policy::{RL_EV_WHOLE, RL_POINT_TURN, rl_event};

/// How a learner is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Wreck {
    /// The reward has the wrong sign: long waits are good.
    Sign,
    /// The learning rate explodes.
    Rate,
    /// A number of the network is not one.
    Nan,
    /// The network is from somewhere else: large random numbers.
    Foreign,
}

impl Wreck {
    /// The hyper-parameters that a wreck learns with.
    pub fn hyper(self, hyper: &Hyper) -> Hyper {
        match self {
            Wreck::Rate => Hyper { actor_learning_rate: 1.0, critic_learning_rate: 1.0, ..hyper.clone() },
            _ => hyper.clone(),
        }
    }

    /// What it takes for the outcome of a decision.
    pub fn distort(self, events: &mut [rl_event]) {
        if self == Wreck::Sign {
            for event in events {
                event.wait_ns = CAP_NS - event.wait_ns.min(CAP_NS);
                event.service_ns = event.usual_service_ns;
                if u32::from(event.point) == RL_POINT_TURN {
                    // Who slept did not, and the other way round.
                    event.flags ^= RL_EV_WHOLE;
                }
            }
        }
    }

    /// Break the network of an agent that runs, once; `seed` draws the numbers.
    ///
    /// # Errors
    /// The agent's state cannot be taken.
    pub fn strike(self, agent: &mut Agent, seed: u64) -> Result<()> {
        let mut checkpoint = agent.checkpoint(Origin::default())?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        match self {
            Wreck::Nan => checkpoint.parameters.actor.w1.iter_mut().for_each(|w| *w = f32::NAN),
            Wreck::Foreign => {
                for array in checkpoint.parameters.arrays_mut().into_iter().take(4) {
                    array.iter_mut().for_each(|w| *w = rng.random_range(-3.0..3.0));
                }
            }
            Wreck::Sign | Wreck::Rate => return Ok(()),
        }
        *agent = Agent::resume(&checkpoint)?;
        Ok(())
    }
}
