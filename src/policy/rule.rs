// SPDX-License-Identifier: GPL-2.0-only
//! The numbers of the fixed rule, as people write them: `margin=0.5,hot-ms=5,hot-margin=2`.

use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};

use super::{RL_F_home_head_age, RL_F_since_ran, host, rl_inputs, rl_rule};

/// What counts more than any difference of queues.
const ALWAYS: u8 = 255;
/// Queues are compared in parts of a task per CPU.
const PER_TASK: f64 = 16.0;

/// The fixed rule: `rl_heuristic()` in policy.h.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule(rl_rule);

impl Default for Rule {
    /// Without options.
    fn default() -> Self {
        Self(host::default_rule())
    }
}

impl Rule {
    /// As it is published.
    pub fn numbers(self) -> rl_rule {
        self.0
    }
}

impl FromStr for Rule {
    type Err = Error;

    /// Parts that are not named keep their defaults.
    fn from_str(text: &str) -> Result<Self> {
        let mut rule = host::default_rule();
        for part in text.split(',') {
            let (name, value) = part.split_once('=').with_context(|| format!("{part:?} is not NAME=NUMBER"))?;
            match name {
                "margin" => rule.margin = tasks(part, value)?,
                "numa" => rule.numa_margin = tasks(part, value)?,
                "hot-margin" => rule.hot_margin = tasks(part, value)?,
                "idle" if value == "always" => rule.idle_gain = ALWAYS,
                "idle" => rule.idle_gain = tasks(part, value)?,
                "hot-ms" => {
                    let since_ran_ns = time_ns(part, value, 1e6)?;
                    rule.hot_since =
                        host::features(&rl_inputs { since_ran_ns, ..Default::default() })[RL_F_since_ran as usize];
                }
                "age-us" => {
                    let home_head_age_ns = time_ns(part, value, 1e3)?;
                    let inputs = rl_inputs { home_head_age_ns, ..Default::default() };
                    rule.head_age = host::features(&inputs)[RL_F_home_head_age as usize];
                }
                _ => bail!("the rule has no {name:?}; it has margin, numa, hot-ms, hot-margin, idle and age-us"),
            }
        }
        // One without the other would let hot tasks move more easily than others, or do nothing.
        let has = |name: &str| text.split(',').any(|part| part.split('=').next() == Some(name));
        ensure!(
            has("hot-ms") == has("hot-margin"),
            "hot-ms and hot-margin belong together, such as hot-ms=5,hot-margin=2"
        );
        Ok(Self(rule))
    }
}

/// Tasks per CPU, in the feature's 16ths.
fn tasks(part: &str, value: &str) -> Result<u8> {
    let number: f64 = value.parse().with_context(|| format!("{part:?} needs a number of tasks per CPU"))?;
    ensure!((0.0..=7.5).contains(&number), "{part:?}: from 0 to 7.5 tasks per CPU can be compared");
    Ok((number * PER_TASK).round() as u8)
}

fn time_ns(part: &str, value: &str, unit_ns: f64) -> Result<u64> {
    let number: f64 = value.parse().with_context(|| format!("{part:?} needs a time"))?;
    ensure!((0.0..=1e9).contains(&(number * unit_ns)), "{part:?}: from 0 to 1 s is possible");
    Ok((number * unit_ns) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{RL_MIGRATE, RL_MODE_HEURISTIC, rl_slot};

    /// Does the rule move a task, given tasks queued at home and there (4 CPUs each), idle CPUs there, and how long ago it
    /// ran and how old the head of home's queue is, us?
    fn moves(rule: &str, home: u32, other: u32, idle: u32, ran_us: u64, age_us: u64) -> bool {
        let inputs = rl_inputs {
            home_queued: home,
            other_queued: other,
            home_cpus: 4,
            other_cpus: 4,
            other_idle: idle,
            since_ran_ns: ran_us * 1000,
            home_head_age_ns: age_us * 1000,
            distance: 2,
            ..Default::default()
        };
        let rule = if rule.is_empty() { Rule::default() } else { rule.parse().unwrap() };
        let slot = rl_slot { mode: RL_MODE_HEURISTIC, rule: rule.numbers(), ..Default::default() };
        host::act(&slot, &host::features(&inputs), 0).action == RL_MIGRATE
    }

    #[test]
    fn the_default_moves_for_a_task_per_cpu_or_an_idle_one() {
        assert!(!moves("", 3, 0, 0, 100, 0) && moves("", 4, 0, 0, 100, 0));
        assert!(moves("", 0, 0, 1, 100, 0) && moves("", 0, 9, 1, 100, 0), "whatever waits there");
    }

    #[test]
    fn each_part_does_what_it_says() {
        assert!(moves("margin=0.25", 1, 0, 0, 100, 0) && !moves("margin=0.25", 1, 1, 0, 100, 0));
        let hot = "margin=0,hot-ms=5,hot-margin=2,idle=0";
        assert!(moves(hot, 0, 0, 0, 6000, 0) && !moves(hot, 7, 0, 1, 4000, 0) && moves(hot, 8, 0, 0, 4000, 0));
        assert!(!moves("idle=0.5", 1, 0, 1, 100, 0) && moves("idle=0.5", 2, 0, 1, 100, 0));
        assert!(!moves("age-us=500", 9, 0, 0, 100, 400) && moves("age-us=500", 9, 0, 0, 100, 600));
        assert!(moves("age-us=500", 0, 0, 1, 100, 0), "an idle CPU is not kept waiting");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, why) in [
            ("margin", "NAME=NUMBER"),
            ("speed=1", "no \"speed\""),
            ("margin=8", "0 to 7.5"),
            ("margin=x", "number of tasks"),
            ("hot-ms=NaN", "0 to 1 s"),
            ("hot-ms=5", "belong together"),
            ("hot-margin=2", "belong together"),
            ("age-us=-1", "0 to 1 s"),
        ] {
            let error = format!("{:#}", text.parse::<Rule>().unwrap_err());
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
