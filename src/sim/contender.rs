// SPDX-License-Identifier: GPL-2.0-only
//! What is compared under the regimes: fixed balancers, what was learned, and what learns.

use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use clap::ValueEnum;

use super::wreck::Wreck;
use super::{Balancer, Rival};
use crate::agent::{Agent, Checkpoint, Hyper};
use crate::kernel::slots::Publication;
use crate::policy::rule::Rule;
use crate::policy::{RL_MODE_DRAW, RL_MODE_GREEDY};

/// The rules that people have tried, over the range of their numbers. What counts an idle CPU as more than a difference
/// of queues is what every scheduler does; the others keep hot tasks even then.
const RULES: [(&str, &str); 17] = [
    ("queue-0", "margin=0,numa=0"),
    ("queue-1/4", "margin=0.25,numa=0.25"),
    ("queue-1/2", "margin=0.5,numa=0.5"),
    ("queue-2", "margin=2,numa=2"),
    ("queue-3", "margin=3,numa=3"),
    ("queue-4", "margin=4,numa=4"),
    ("age-100us", "margin=0,age-us=100"),
    ("age-500us", "margin=0,age-us=500"),
    ("age-2ms", "margin=0,age-us=2000"),
    ("hot-0.5ms", "margin=0,hot-ms=0.5,hot-margin=2"),
    ("hot-5ms", "margin=0,hot-ms=5,hot-margin=2"),
    ("hot-20ms", "margin=0,hot-ms=20,hot-margin=2"),
    ("hold-0.5ms", "margin=0,hot-ms=0.5,hot-margin=2,idle=0"),
    ("hold-5ms", "margin=0,hot-ms=5,hot-margin=2,idle=0"),
    ("hold-20ms", "margin=0,hot-ms=20,hot-margin=2,idle=0"),
    ("hold1-5ms", "margin=1,hot-ms=5,hot-margin=3,idle=1"),
    ("hold1-20ms", "margin=1,hot-ms=20,hot-margin=3,idle=1"),
];

/// How a contender decides.
#[derive(Debug, Clone)]
pub enum Kind {
    /// It does not change: a policy, or who is in its place.
    Fixed(Box<Publication>, Rival),
    /// It learns on the way.
    Learn(Start),
    /// It begins with the fixed rule, tries to learn, and is broken.
    Wreck(Wreck),
}

/// Where learning begins.
#[derive(Debug, Clone)]
pub enum Start {
    /// A network of random numbers: nearly a fair coin.
    Random,
    /// A network that imitates the fixed rule.
    Rule,
    /// What was learned before.
    Checkpoint(Box<Checkpoint>),
}

impl Start {
    /// The agent that begins there.
    ///
    /// # Errors
    /// A hyper-parameter is out of range.
    pub fn agent(&self, hyper: &Hyper, seed: u64) -> Result<Agent> {
        match self {
            Start::Random => Agent::new(hyper.clone(), seed),
            Start::Rule => Agent::imitating(hyper.clone(), seed),
            Start::Checkpoint(checkpoint) => Agent::resume(checkpoint),
        }
    }
}

/// The fixed rule with these parts.
fn publication_of(parts: &str) -> Result<Box<Publication>> {
    let rule = parts.parse::<Rule>()?.numbers();
    Ok(Box::new(Publication { rule, ..Publication::default() }))
}

/// One of those that are compared.
#[derive(Debug, Clone)]
pub struct Contender {
    /// In tables.
    pub name: String,
    /// How it decides.
    pub kind: Kind,
}

impl Contender {
    fn fixed(name: &str, publication: Publication) -> Self {
        Self { name: name.into(), kind: Kind::Fixed(Box::new(publication), Rival::None) }
    }

    /// The fixed ones: stay, greedy, a fair coin, the rule without options, the rule with many others, and rivals.
    ///
    /// # Errors
    /// None, as long as the table of rules is right.
    pub fn all_fixed() -> Result<Vec<Self>> {
        let mut all: Vec<Self> = Balancer::value_variants()
            .iter()
            .map(|b| Self::fixed(&format!("{b:?}").to_lowercase(), b.publication()))
            .collect();
        for (name, rule) in RULES {
            all.push(format!("{name}=rule:{rule}").parse()?);
        }
        for how in ["two-choices", "rusty"] {
            all.push(format!("{how}={how}").parse()?);
        }
        Ok(all)
    }
}

impl FromStr for Contender {
    type Err = Error;

    /// NAME=HOW; HOW is `rule:PARTS`, `split:PARTS/PARTS`, `two-choices`, `rusty`, `frozen:FILE`,
    /// `greedy:FILE` (frozen, always the better action), `learn`, `learn:rule`, `learn:FILE` or `wreck:HOW`.
    fn from_str(text: &str) -> Result<Self> {
        let (name, how) = text.split_once('=').with_context(|| format!("{text:?} is not NAME=HOW"))?;
        ensure!(!name.is_empty(), "{text:?} has no name before the =");
        let (how, detail) = how.split_once(':').unwrap_or((how, ""));
        let load = || crate::run::load(Path::new(detail));
        let kind = match how {
            "rule" => Kind::Fixed(publication_of(detail)?, Rival::None),
            "split" => {
                let (cheap, dear) = detail
                    .split_once('/')
                    .with_context(|| format!("{detail:?} is not two rules, such as margin=0/margin=4"))?;
                Kind::Fixed(publication_of(cheap)?, Rival::Split(dear.parse::<Rule>()?.numbers()))
            }
            "two-choices" => Kind::Fixed(Box::default(), Rival::TwoChoices),
            "rusty" => Kind::Fixed(Box::default(), Rival::Rusty),
            "frozen" | "greedy" => {
                let weights = load()?.publishable().with_context(|| format!("cannot use {detail}"))?;
                let mode = if how == "frozen" { RL_MODE_DRAW } else { RL_MODE_GREEDY };
                let learned = Publication { mode, weights, ..Publication::default() };
                Kind::Fixed(Box::new(learned), Rival::None)
            }
            "learn" => Kind::Learn(match detail {
                "" => Start::Random,
                "rule" => Start::Rule,
                _ => Start::Checkpoint(Box::new(load()?)),
            }),
            "wreck" => Kind::Wreck(Wreck::from_str(detail, true).map_err(|_| {
                Error::msg(format!("{detail:?} is not a way to break a learner: sign, rate, nan and foreign are"))
            })?),
            _ => bail!(
                "{how:?} is not a way to decide: rule:PARTS, split:PARTS/PARTS, two-choices, rusty, frozen:FILE, greedy:FILE, \
                 learn, learn:rule, learn:FILE and wreck:HOW are"
            ),
        };
        Ok(Self { name: name.into(), kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_are_made_from_text() {
        let fixed = Contender::all_fixed().unwrap();
        assert_eq!(fixed.len(), 4 + RULES.len() + 2);
        let heuristic: Contender = "a=rule:margin=1".parse().unwrap();
        let Kind::Fixed(publication, Rival::None) = heuristic.kind else { panic!("{heuristic:?}") };
        assert_eq!(*publication, Balancer::Heuristic.publication(), "margin=1 is the default");
        assert!(matches!("b=learn".parse::<Contender>().unwrap().kind, Kind::Learn(Start::Random)));
        for (text, why) in [
            ("learn", "NAME=HOW"),
            ("=learn", "no name"),
            ("a=guess", "way to decide"),
            ("a=rule:x=1", "no \"x\""),
            ("a=split:margin=0", "two rules"),
            ("a=split:margin=0/margin=9", "0 to 7.5"),
            ("a=frozen:/nowhere", "/nowhere"),
            ("a=wreck:fast", "break a learner"),
        ] {
            let error = format!("{:#}", text.parse::<Contender>().unwrap_err());
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
