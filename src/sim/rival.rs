// SPDX-License-Identifier: GPL-2.0-only
//! How other schedulers choose between domains, in the place of the policy (`shim/rivals.h`), and one who knows more than
//! any scheduler can.

use crate::policy::rl_rule;

/// Who chooses between domains.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Rival {
    /// The published policy.
    #[default]
    None,
    /// Of two domains at random the less loaded, as the power of two choices.
    TwoChoices,
    /// After scx_rusty: each task has a domain, to which it comes back; idle CPUs help out; every 2 s loads are balanced.
    Rusty,
    /// An oracle: the published rule for tasks that have no working set, and this one for those that do. How much could be
    /// gained by knowing what a move costs a task?
    Split(rl_rule),
}

impl Rival {
    /// `enum sim_rival`.
    pub(super) fn number(self) -> u32 {
        match self {
            Rival::None => 0,
            Rival::TwoChoices => 1,
            Rival::Rusty => 2,
            Rival::Split(_) => 3,
        }
    }

    /// The rule for tasks with a working set; of zeros where there is none.
    pub(super) fn dear_rule(self) -> rl_rule {
        match self {
            Rival::Split(rule) => rule,
            _ => rl_rule::default(),
        }
    }
}
