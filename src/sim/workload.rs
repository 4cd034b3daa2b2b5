// SPDX-License-Identifier: GPL-2.0-only
//! What the tasks of the simulated machine do. All times that are said to be means are drawn from exponential
//! distributions, from the seed; a task's work from that which it names.

use std::collections::VecDeque;

use anyhow::{Result, ensure};

use super::machine::MoveCost;
use super::rng::Rng;

/// How what is drawn varies around its mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// All are equal
    Fixed,
    /// Many are short, few are long, as requests that do not depend on each other are
    #[default]
    Exponential,
    /// Nine of ten take half of the mean, the tenth eleven times as long as those
    Bimodal,
}

impl Distribution {
    /// One draw, at least 1, in the unit of the mean.
    pub(crate) fn draw(self, rng: &mut Rng, mean: u64) -> u64 {
        let drawn = match self {
            Distribution::Fixed => mean,
            Distribution::Exponential => rng.exponential(mean),
            Distribution::Bimodal => mean / 2 * if rng.below(10) == 0 { 11 } else { 1 },
        };
        drawn.max(1)
    }
}

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It runs, and never sleeps.
    Hog,
    /// It never sleeps, but yields again and again, as who spins for a lock.
    Spin {
        /// Mean time between two yields, ns.
        run_ns: u64,
    },
    /// It runs, sleeps, and again.
    Batch {
        /// Mean time it wants to run, ns.
        run_ns: u64,
        /// Mean sleep, ns.
        sleep_ns: u64,
    },
    /// It takes a request from an inbox, works on it, and hands it on; with an empty inbox it sleeps.
    Serve {
        /// The inbox.
        inbox: usize,
        /// Mean work on a request, ns.
        work_ns: u64,
        /// Where the request goes then; if nowhere, it is answered.
        next: Option<usize>,
    },
}

/// A task.
#[derive(Debug, Clone)]
pub struct TaskSpec {
    /// For reports; the first 15 characters are its comm.
    pub name: String,
    /// 1 to 10000; 100 is nice 0.
    pub weight: u32,
    /// The CPUs that it may use; none: all.
    pub allowed: Option<Vec<usize>>,
    /// How much data it works on, KiB.
    pub working_set_kib: u64,
    /// What a change of its last-level cache costs it, where that is stated: then its working set costs nothing.
    pub move_cost: Option<MoveCost>,
    /// How its work varies around the mean that its role says.
    pub work: Distribution,
    /// Responses are counted by kind: from 0.
    pub kind: usize,
    /// What it does.
    pub role: Role,
}

impl Default for TaskSpec {
    /// A hog of nice 0 that may run anywhere and has no data.
    fn default() -> Self {
        Self {
            name: "task".into(),
            weight: 100,
            allowed: None,
            working_set_kib: 0,
            move_cost: None,
            work: Distribution::default(),
            kind: 0,
            role: Role::Hog,
        }
    }
}

/// Requests from outside, at random times that do not depend on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Where they go.
    pub inbox: usize,
    /// Mean time between two, ns.
    pub interval_ns: u64,
}

/// Something that happens to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It gets another weight.
    Weight(u32),
    /// It may use these CPUs.
    Affinity(Vec<usize>),
}

/// All that happens on the machine.
#[derive(Debug, Clone, Default)]
pub struct Workload {
    /// The tasks.
    pub tasks: Vec<TaskSpec>,
    /// Requests.
    pub sources: Vec<Source>,
    /// How many inboxes there are.
    pub inboxes: usize,
    /// What happens to tasks, by number: when, ns after the start.
    pub changes: Vec<(u64, usize, Change)>,
}

impl Workload {
    /// Add tasks that are alike. Returns their numbers.
    pub fn add(&mut self, n: usize, spec: &TaskSpec) -> std::ops::Range<usize> {
        let first = self.tasks.len();
        self.tasks.extend((0..n).map(|i| TaskSpec { name: format!("{}-{i}", spec.name), ..spec.clone() }));
        first..self.tasks.len()
    }

    /// Servers: `workers` tasks share an inbox, which gets `per_s` requests a second, each of which takes `work_ns` on
    /// the mean.
    pub fn servers(&mut self, workers: usize, per_s: f64, work_ns: u64, working_set_kib: u64) {
        let inbox = self.inboxes;
        self.inboxes += 1;
        let role = Role::Serve { inbox, work_ns, next: None };
        self.add(workers, &TaskSpec { name: "server".into(), working_set_kib, role, ..TaskSpec::default() });
        self.sources.push(Source { inbox, interval_ns: interval_ns(per_s) });
    }

    /// Tasks that run, sleep, and run again.
    pub fn batch(&mut self, n: usize, run_ns: u64, sleep_ns: u64, working_set_kib: u64) {
        let role = Role::Batch { run_ns, sleep_ns };
        self.add(n, &TaskSpec { name: "batch".into(), working_set_kib, role, ..TaskSpec::default() });
    }

    /// Tasks that never sleep. Returns their numbers.
    pub fn hogs(&mut self, n: usize, weight: u32, working_set_kib: u64) -> std::ops::Range<usize> {
        self.add(n, &TaskSpec { name: "hog".into(), weight, working_set_kib, ..TaskSpec::default() })
    }

    /// A pipeline of `stages` tasks, which gets `per_s` items a second; each stage takes `work_ns` on the mean.
    pub fn pipeline(&mut self, stages: usize, per_s: f64, work_ns: u64, working_set_kib: u64) {
        let first = self.inboxes;
        self.inboxes += stages;
        for stage in 0..stages {
            let next = (stage + 1 < stages).then_some(first + stage + 1);
            let role = Role::Serve { inbox: first + stage, work_ns, next };
            let name = format!("stage{stage}");
            self.add(1, &TaskSpec { name, working_set_kib, role, ..TaskSpec::default() });
        }
        self.sources.push(Source { inbox: first, interval_ns: interval_ns(per_s) });
    }

    /// A mixture for `cpus` CPUs of about this load (1: all that they can do): half of it servers, a quarter pipelines,
    /// and a quarter tasks that run and sleep.
    pub fn mixed(cpus: usize, load: f64) -> Self {
        let mut mixed = Self::default();
        let cpus = cpus as f64;
        // 400 us a request
        mixed.servers((cpus * 4.0) as usize + 1, cpus * load * 0.5 / 400e-6, 400_000, 256);
        // Three stages of 150 us; enough of them that no stage is busy for more than a quarter of the time.
        let busy = cpus * load * 0.25;
        let pipelines = (busy / 0.75).ceil().max(1.0);
        for _ in 0..pipelines as usize {
            mixed.pipeline(3, busy / pipelines / 450e-6, 150_000, 64);
        }
        // 8 ms, then a sleep of three times as long
        mixed.batch((cpus * load * 0.25 * 4.0).ceil() as usize, 8_000_000, 24_000_000, 2048);
        mixed
    }

    /// Is it complete?
    ///
    /// # Errors
    /// Something is named that does not exist, or a number is 0 that must not be.
    pub fn check(&self, cpus: usize) -> Result<()> {
        for spec in &self.tasks {
            let name = &spec.name;
            ensure!((1..=10_000).contains(&spec.weight), "{name} has weight {}: 1 to 10000 are possible", spec.weight);
            if let Some(allowed) = &spec.allowed {
                ensure!(!allowed.is_empty(), "{name} may use no CPU");
                ensure!(allowed.iter().all(|c| *c < cpus), "{name} may use CPUs that do not exist");
            }
            if let Role::Serve { inbox, next, .. } = spec.role {
                ensure!(inbox.max(next.unwrap_or(0)) < self.inboxes, "{name} uses an inbox that does not exist");
            }
        }
        for source in &self.sources {
            ensure!(source.inbox < self.inboxes, "requests go to an inbox that does not exist");
            ensure!(source.interval_ns > 0, "requests come without an interval");
        }
        for (_, task, change) in &self.changes {
            ensure!(*task < self.tasks.len(), "something happens to task {task}, which does not exist");
            if let Change::Affinity(allowed) = change {
                ensure!(
                    !allowed.is_empty() && allowed.iter().all(|c| *c < cpus),
                    "task {task} gets no CPU that exists"
                );
            }
        }
        Ok(())
    }
}

fn interval_ns(per_s: f64) -> u64 {
    (1e9 / per_s.max(1e-3)) as u64
}

/// Requests that wait, and tasks that wait for requests.
#[derive(Debug, Default)]
pub struct Inbox {
    /// When the requests came into the machine, ns.
    pub requests: VecDeque<u64>,
    /// Tasks that sleep; who sleeps longest is woken first.
    pub sleepers: VecDeque<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixtures_have_the_load_that_was_asked_for() {
        for (cpus, load) in [(4, 0.8), (64, 0.95), (1024, 0.5)] {
            let mixed = Workload::mixed(cpus, load);
            mixed.check(cpus).unwrap();
            let work = |inbox: usize| -> f64 {
                let serve = mixed.tasks.iter().find_map(|t| match t.role {
                    Role::Serve { inbox: i, work_ns, next } if i == inbox => Some((work_ns as f64, next)),
                    _ => None,
                });
                let (work_ns, next) = serve.unwrap();
                // A source feeds the first stage; the others do the same again.
                work_ns * if next.is_some() { 3.0 } else { 1.0 }
            };
            let requests: f64 = mixed.sources.iter().map(|s| work(s.inbox) / s.interval_ns as f64).sum();
            let batch = mixed.tasks.iter().filter(|t| matches!(t.role, Role::Batch { .. })).count() as f64 / 4.0;
            let share = (requests + batch) / cpus as f64;
            assert!((share / load - 1.0).abs() < 0.15, "{cpus} CPUs: {share} instead of {load}");
        }
    }

    #[test]
    fn distributions_have_the_mean_and_the_values_that_they_say() {
        let mut rng = Rng::new(3, 0);
        let mut draw = |from: Distribution| -> Vec<u64> { (0..50_000).map(|_| from.draw(&mut rng, 1_000)).collect() };
        let (fixed, exponential, bimodal) =
            (draw(Distribution::Fixed), draw(Distribution::Exponential), draw(Distribution::Bimodal));
        for (name, drawn) in [("fixed", &fixed), ("exponential", &exponential), ("bimodal", &bimodal)] {
            let mean = drawn.iter().sum::<u64>() as f64 / drawn.len() as f64;
            assert!((950.0..1_050.0).contains(&mean), "{name}: {mean}");
        }
        assert!(fixed.iter().all(|&x| x == 1_000));
        let long = bimodal.iter().filter(|&&x| x == 5_500).count();
        assert!((4_500..5_500).contains(&long), "{long} of 50000 are long");
        assert_eq!(bimodal.iter().filter(|&&x| x == 500).count() + long, 50_000);
        assert!(exponential.iter().any(|&x| x < 10) && exponential.iter().any(|&x| x > 7_000));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let spec = TaskSpec { name: "x".into(), ..TaskSpec::default() };
        let refused = |spec: TaskSpec, why: &str| {
            let error = Workload { tasks: vec![spec], ..Workload::default() }.check(2).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        refused(TaskSpec { weight: 0, ..spec.clone() }, "weight 0");
        refused(TaskSpec { allowed: Some(vec![]), ..spec.clone() }, "no CPU");
        refused(TaskSpec { allowed: Some(vec![2]), ..spec.clone() }, "do not exist");
        refused(TaskSpec { role: Role::Serve { inbox: 0, work_ns: 1, next: None }, ..spec }, "inbox");
    }
}
