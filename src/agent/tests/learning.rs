// SPDX-License-Identifier: GPL-2.0-only
//! Does it learn, in the right direction, from logged propensities, and only as a function of the stream?

use super::*;
use crate::agent::network::Form;

/// Events from the agent's own quantised policy, republished after every `lag` updates.
fn live(agent: &mut Agent, world: &mut World, events: usize, lag: u64) {
    let mut published = None;
    for _ in 0..events {
        let updates = agent.metrics().updates / lag;
        if published != Some(updates) {
            world.slot.weights = agent.weights().unwrap();
            world.slot.generation += 1;
            published = Some(updates);
        }
        agent.observe(&[world.event()]).unwrap();
    }
}

#[test]
fn learns_where_to_migrate() {
    for seed in 0..3 {
        let mut agent = Agent::new(Hyper::default(), seed).unwrap();
        let mut world = World::new(seed, RL_MODE_DRAW);
        let before = world.right_share(&agent);
        live(&mut agent, &mut world, 80_000, 1);
        let (share, m) = (world.right_share(&agent), agent.metrics());
        let (first, last) = agent.reward_quarters().unwrap();
        println!("seed {seed}: right {before:.3} -> {share:.3}, reward {first:.3} -> {last:.3} ms, {m:?}");
        assert!(share > 0.95, "seed {seed}: greedy policy right in {share}");
        assert!(last > first + 0.5, "seed {seed}: mean raw reward {first} -> {last} ms");
        assert_eq!((m.counters.accepted, m.counters.invalid, m.counters.skipped_updates), (80_000, 0, 0));
        assert!(m.entropy < 0.4 && m.kl >= 0.0 && m.value_loss.is_finite());
    }
}

#[test]
fn a_linear_actor_stays_linear_while_it_learns() {
    let mut agent = Agent::new(Hyper { network: Form::Linear, ..Hyper::default() }, 4).unwrap();
    let mut world = World::new(4, RL_MODE_DRAW);
    let before = agent.weights().unwrap().w2;
    live(&mut agent, &mut world, 20_000, 1);
    let w2 = agent.weights().unwrap().w2;
    assert!(w2 != before && w2[0] == -w2[1] && w2[2..].iter().all(|&w| w == 0), "{before:?} -> {w2:?}");
}

#[test]
fn learns_the_opposite_from_the_opposite_reward() {
    let mut agent = Agent::new(Hyper::default(), 5).unwrap();
    let mut world = World { inverted: true, ..World::new(5, RL_MODE_DRAW) };
    live(&mut agent, &mut world, 80_000, 1);
    world.inverted = false;
    let share = world.right_share(&agent);
    assert!(share < 0.05, "{share}");
}

#[test]
fn learns_from_a_fair_coin_and_from_old_weights() {
    // A fair coin's propensities are far from the policy's: the importance weights must carry that.
    let mut agent = Agent::new(Hyper::default(), 6).unwrap();
    let mut world = World::new(6, RL_MODE_RANDOM);
    agent.observe(&world.events(80_000)).unwrap();
    let share = world.right_share(&agent);
    assert!(share > 0.95, "from a fair coin: {share}");
    // Weights that are up to eight updates old.
    let mut agent = Agent::new(Hyper::default(), 7).unwrap();
    let mut world = World::new(7, RL_MODE_DRAW);
    live(&mut agent, &mut world, 80_000, 8);
    let share = world.right_share(&agent);
    assert!(share > 0.95, "from old weights: {share}");
}

#[test]
fn survives_restarts_at_every_few_batches() {
    let mut agent = Agent::new(Hyper::default(), 8).unwrap();
    let mut world = World::new(8, RL_MODE_DRAW);
    for _ in 0..40 {
        live(&mut agent, &mut world, 2500, 1);
        agent.restart_optimiser().unwrap();
    }
    let share = world.right_share(&agent);
    assert!(share > 0.95, "{share}");
    let c = agent.metrics().counters;
    assert_eq!((c.restarts, c.discarded), (40, 40 * (2500 % 512)));
}

#[test]
fn is_a_function_of_seed_and_stream() {
    let events = World::new(9, RL_MODE_RANDOM).events(3000);
    let run = |seed: u64, cut: usize| {
        let mut agent = Agent::new(small(), seed).unwrap();
        events.chunks(cut).for_each(|part| agent.observe(part).unwrap());
        (bits(&agent), agent.metrics())
    };
    assert_eq!(run(1, 3000), run(1, 7), "how the stream is cut into calls makes no difference");
    assert_ne!(run(1, 3000).0, run(2, 3000).0, "the seed does");
}

#[test]
fn a_batch_with_numbers_that_are_not_finite_is_undone() {
    let mut agent = Agent::new(small(), 1).unwrap();
    agent.observe(&World::new(1, RL_MODE_RANDOM).events(640)).unwrap();
    let before = bits(&agent);
    let mut batch: Vec<_> = World::new(2, RL_MODE_RANDOM).events(64).iter().map(|e| Sample::new(e, -1.0)).collect();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        batch[40].reward = bad;
        assert_eq!(agent.learner.update(&batch).unwrap(), None, "{bad}");
        assert_eq!(bits(&agent), before, "{bad}");
    }
    // A finite number whose square is not spoils only its own minibatch, mostly after others have taken their steps.
    for _ in 0..20 {
        batch[40].reward = f32::MAX;
        assert_eq!(agent.learner.update(&batch).unwrap(), None);
        assert_eq!(bits(&agent), before);
    }
    assert_eq!(agent.learner.updates(), 10, "skipped updates do not count");
    batch[40].reward = -2.0;
    assert!(agent.learner.update(&batch).unwrap().is_some(), "and learning goes on");
    assert_ne!(bits(&agent), before);
}

#[test]
fn diverged_parameters_are_neither_trained_nor_published() {
    let mut agent = Agent::new(small(), 1).unwrap();
    let mut parameters = agent.parameters().unwrap();
    parameters.actor.w1[5] = f32::NAN;
    agent.learner.actor.set(&parameters.actor).unwrap();
    assert!(format!("{:#}", agent.weights().unwrap_err()).contains("not finite"));
    agent.observe(&World::new(1, RL_MODE_RANDOM).events(64)).unwrap();
    assert_eq!(agent.metrics().counters.skipped_updates, 1);
    let error = agent.checkpoint(Origin::default()).unwrap().to_bytes().unwrap_err();
    assert!(matches!(error, CheckpointError::NotFinite("actor.w1")), "{error}");
}

#[test]
fn reckless_learning_stays_within_the_published_range() {
    let hyper = Hyper { actor_learning_rate: 1.0, gradient_norm_max: 1e6, ..small() };
    let mut agent = Agent::new(hyper, 1).unwrap();
    agent.observe(&World::new(1, RL_MODE_RANDOM).events(6400)).unwrap();
    let actor = agent.parameters().unwrap().actor;
    assert!(actor.w1.iter().chain(&actor.w2).all(|w| w.abs() <= 127.0 / 32.0));
    assert!(actor.w1.iter().any(|w| w.abs() > 3.9), "the test must reach the limit");
    if let Err(error) = agent.weights() {
        assert!(error.to_string().contains("not fit to be published"), "{error}");
    }
}
