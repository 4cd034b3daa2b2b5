// SPDX-License-Identifier: GPL-2.0-only
//! Regimes: workloads that differ in what decides whether a move is worth its cost. A closed system, in which a task
//! sleeps after each burst: so a machine that does more than it can is slow, and not ever slower.

use anyhow::{Result, ensure};
use clap::ValueEnum;

use super::workload::{Role, TaskSpec, Workload};

/// Tasks for each CPU.
const TASKS_PER_CPU: usize = 4;
/// Data of a task whose move costs about 0.2 ms, KiB (machine.rs: 150 ns to bring each into a cache, and 25 ns for the
/// core's own).
const MIDDLE_KIB: u64 = 1_200;
/// About 2 ms.
const HIGH_KIB: u64 = 12_000;
/// Short bursts, ns.
const SHORT_NS: u64 = 200_000;
/// Long ones, ns.
const LONG_NS: u64 = 5_000_000;

/// What a move to another last-level cache costs a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MoveCost {
    /// Nothing.
    None,
    /// About 0.2 ms.
    Middle,
    /// About 2 ms.
    High,
    /// Half of the tasks nothing, half 2 ms.
    Mixed,
}

/// How long tasks run before they sleep; exponentially distributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Burst {
    /// 0.2 ms.
    Short,
    /// 5 ms.
    Long,
    /// Half of the tasks short, half long; both do half of the work.
    Mixed,
}

/// A regime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Regime {
    /// What a move costs.
    pub cost: MoveCost,
    /// How long tasks run.
    pub burst: Burst,
    /// How busy the CPUs are if nothing waits and no move costs anything, percent.
    pub load_percent: u32,
}

impl Regime {
    /// All: 4 costs, 3 bursts, loads of 80 and 95 %, and 50 % as a control, where little waits.
    pub fn all() -> Vec<Regime> {
        let mut all = Vec::new();
        for load_percent in [50, 80, 95] {
            for &cost in MoveCost::value_variants() {
                for &burst in Burst::value_variants() {
                    all.push(Regime { cost, burst, load_percent });
                }
            }
        }
        all
    }

    /// Is it a control?
    pub fn is_control(&self) -> bool {
        self.load_percent < 80
    }

    /// Its name: cost, burst and load, as in `mixed-short-95`.
    pub fn name(&self) -> String {
        format!("{:?}-{:?}-{}", self.cost, self.burst, self.load_percent).to_lowercase()
    }

    /// The one of that name.
    pub fn of_name(name: &str) -> Option<Regime> {
        Regime::all().into_iter().find(|regime| regime.name() == name)
    }

    /// What is said of a name that there is not.
    pub fn unknown(name: &str) -> String {
        format!(
            "there is no regime {name:?}: they are named COST-BURST-LOAD with none, middle, high or mixed; short, long or \
             mixed; 50, 80 or 95"
        )
    }

    /// Those whose name contains one of the texts; without texts, all.
    ///
    /// # Errors
    /// A text is in no name.
    pub fn named(texts: &[String]) -> Result<Vec<Regime>> {
        for text in texts {
            ensure!(Regime::all().iter().any(|r| r.name().contains(text.as_str())), Regime::unknown(text));
        }
        let wanted = |r: &Regime| texts.is_empty() || texts.iter().any(|text| r.name().contains(text.as_str()));
        Ok(Regime::all().into_iter().filter(wanted).collect())
    }

    /// Its tasks, for a machine with so many CPUs.
    pub fn workload(&self, cpus: usize) -> Workload {
        let mut workload = Workload::default();
        let tasks = cpus * TASKS_PER_CPU;
        for i in 0..tasks {
            let run_ns = match self.burst {
                Burst::Short => SHORT_NS,
                Burst::Long => LONG_NS,
                Burst::Mixed if i % 2 == 0 => SHORT_NS,
                Burst::Mixed => LONG_NS,
            };
            let working_set_kib = match self.cost {
                MoveCost::None => 0,
                MoveCost::Middle => MIDDLE_KIB,
                MoveCost::High => HIGH_KIB,
                // Independent of the length of bursts.
                MoveCost::Mixed if i / 2 % 2 == 0 => 0,
                MoveCost::Mixed => HIGH_KIB,
            };
            // A task runs for this share of the time, if it never waits.
            let share = f64::from(self.load_percent) / 100.0 / TASKS_PER_CPU as f64;
            let sleep_ns = (run_ns as f64 * (1.0 / share - 1.0)) as u64;
            let role = Role::Batch { run_ns, sleep_ns };
            let kind = usize::from(run_ns == LONG_NS);
            workload.add(1, &TaskSpec { name: "burst".into(), working_set_kib, kind, role, ..TaskSpec::default() });
        }
        workload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regimes_differ_in_what_their_names_say() {
        assert_eq!((Regime::all().len(), Regime::all().iter().filter(|r| !r.is_control()).count()), (36, 24));
        let named = |text: &str| Regime::named(&[text.to_string()]).unwrap();
        assert_eq!(named("-95").len(), 12);
        assert_eq!(named("mixed-short-80").len(), 1);
        assert!(Regime::named(&["fast".to_string()]).unwrap_err().to_string().contains("COST-BURST-LOAD"));

        let regime = named("mixed-mixed-80")[0];
        let workload = regime.workload(8);
        workload.check(8).unwrap();
        let mut kinds = std::collections::BTreeMap::new();
        let mut busy = 0.0;
        for task in &workload.tasks {
            let Role::Batch { run_ns, sleep_ns } = task.role else { panic!("{task:?}") };
            busy += run_ns as f64 / (run_ns + sleep_ns) as f64;
            *kinds.entry((run_ns, task.working_set_kib)).or_insert(0) += 1;
        }
        assert_eq!(kinds.into_values().collect::<Vec<_>>(), [8; 4], "all four combinations, equally often");
        assert!((busy / 8.0 - 0.8).abs() < 0.001, "{busy}");
    }
}
