// SPDX-License-Identifier: GPL-2.0-only
//! A worker: when its bursts arrive, how it serves them, when it pays. All that it sees of the machine is [`World`].

use super::tally::{Served, Tally, Window};
use crate::sim::locality::{Cost, LocalitySpec};
use crate::sim::rng::Rng;
use crate::sim::workload::Distribution;

/// A worker looks where it is after so much work, ns: often enough that it pays soon after a move, seldom enough that
/// looking costs nothing.
pub const CHUNK_NS: u64 = 50_000;
/// The same while it reads its data again, KiB.
pub const CHUNK_KIB: u64 = 64;

/// The machine as a worker sees it. Tests bring their own.
pub trait World {
    /// Time since the beginning, ns.
    fn now_ns(&mut self) -> u64;
    /// Sleeps until then; false: the measurement is over.
    fn sleep_until(&mut self, at_ns: u64) -> bool;
    /// Is the measurement over?
    fn over(&mut self) -> bool;
    /// The last-level cache of the CPU that this runs on; none if that is not known.
    fn llc(&mut self) -> Option<usize>;
    /// Works for what takes so long on a CPU that does nothing else, ns.
    fn work(&mut self, ns: u64);
    /// Reads so much of the worker's own data again, KiB.
    fn read_again(&mut self, kib: u64);
    /// CPU time of this worker so far, ns.
    fn cpu_ns(&mut self) -> u64;
}

/// A burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    /// When it arrives, ns.
    pub at_ns: u64,
    /// Its work, ns.
    pub work_ns: u64,
}

/// The bursts of a worker, without end: a function of specification, seed and the worker's number. The scheduler has no
/// influence.
#[derive(Debug, Clone)]
pub struct Bursts {
    rng: Rng,
    at_ns: u64,
    interval_ns: u64,
    work_ns: u64,
    distribution: Distribution,
}

impl Bursts {
    /// The bursts of this worker, the first of them an interval after `begin_ns`.
    pub fn new(spec: &LocalitySpec, seed: u64, worker: usize, begin_ns: u64) -> Self {
        Self {
            rng: Rng::new(seed, worker as u64),
            at_ns: begin_ns,
            interval_ns: spec.interval_ns(),
            work_ns: spec.burst_ns,
            distribution: spec.distribution,
        }
    }
}

impl Iterator for Bursts {
    type Item = Burst;

    fn next(&mut self) -> Option<Burst> {
        self.at_ns = self.at_ns.saturating_add(self.rng.exponential(self.interval_ns));
        Some(Burst { at_ns: self.at_ns, work_ns: self.distribution.draw(&mut self.rng, self.work_ns) })
    }
}

/// A worker.
pub struct Worker<W> {
    world: W,
    cost: Option<Cost>,
    forget_ns: Option<u64>,
    /// The last-level cache at the last look, and when that was (0 where forgetting is off).
    last: Option<(usize, u64)>,
}

impl<W: World> Worker<W> {
    /// A worker who has not run yet.
    pub fn new(world: W, cost: Option<Cost>, forget_ns: Option<u64>) -> Self {
        Self { world, cost, forget_ns, last: None }
    }

    /// Serves the bursts that arrive before the window ends, until it ends or the measurement is over; what came of it.
    pub fn run(&mut self, bursts: impl Iterator<Item = Burst>, window: Window) -> Tally {
        let mut tally = Tally::default();
        let mut over = false;
        for burst in bursts.take_while(|burst| burst.at_ns < window.end_ns) {
            // Those that nobody serves any more are counted: they are the backlog.
            tally.arrived(burst.at_ns, window);
            if over {
                continue;
            }
            match self.serve(burst) {
                Some(served) if served.done_ns < window.end_ns => tally.served(burst.at_ns, &served, window),
                _ => over = true,
            }
        }
        tally
    }

    /// Waits for a burst, and does its work; none if the measurement was over before.
    fn serve(&mut self, burst: Burst) -> Option<Served> {
        if !self.world.sleep_until(burst.at_ns) {
            return None;
        }
        let mut served = Served::default();
        let (mut left_ns, mut owed, mut pays_since_ns) = (burst.work_ns, 0, 0);
        loop {
            let cold = self.look(&mut served);
            if let (true, Some(Cost::Ns(amount) | Cost::Kib(amount))) = (cold, self.cost) {
                if owed == 0 {
                    pays_since_ns = self.world.cpu_ns();
                }
                owed += amount;
                served.costs += 1;
            }
            if owed > 0 {
                owed -= self.pay(owed);
                if owed == 0 {
                    served.cost_cpu_ns += self.world.cpu_ns().saturating_sub(pays_since_ns);
                }
            } else if left_ns > 0 {
                let chunk_ns = left_ns.min(CHUNK_NS);
                self.world.work(chunk_ns);
                left_ns -= chunk_ns;
            } else {
                served.done_ns = self.world.now_ns();
                return Some(served);
            }
            if self.world.over() {
                return None;
            }
        }
    }

    /// Is the worker's data elsewhere, or forgotten? Nothing is at the first look: it is new wherever it is.
    fn look(&mut self, served: &mut Served) -> bool {
        let Some(llc) = self.world.llc() else { return false };
        // The clock is asked only if it matters: there are machines, emulated ones above all, on which that is slow.
        let now_ns = if self.forget_ns.is_some() { self.world.now_ns() } else { 0 };
        let Some((last_llc, at_ns)) = self.last.replace((llc, now_ns)) else { return false };
        served.llc_changes += u64::from(llc != last_llc);
        llc != last_llc || self.forget_ns.is_some_and(|after_ns| now_ns.saturating_sub(at_ns) >= after_ns)
    }

    /// Pays a part of what is owed; how much that was.
    fn pay(&mut self, owed: u64) -> u64 {
        match self.cost {
            Some(Cost::Kib(_)) => {
                let chunk_kib = owed.min(CHUNK_KIB);
                self.world.read_again(chunk_kib);
                chunk_kib
            }
            _ => {
                let chunk_ns = owed.min(CHUNK_NS);
                self.world.work(chunk_ns);
                chunk_ns
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: u64 = 1_000;
    const MS: u64 = 1_000_000;

    /// A machine without other tasks, on which work takes as long as it says. Where the worker is depends on the time.
    struct Script<F> {
        now_ns: u64,
        end_ns: u64,
        llc_at: F,
        /// What the worker saw, look by look.
        seen: Vec<usize>,
        worked_ns: u64,
        read_kib: u64,
        cpu_ns: u64,
    }

    impl<F: FnMut(u64) -> usize> Script<F> {
        fn new(llc_at: F) -> Self {
            let seen = Vec::new();
            Self { now_ns: 0, end_ns: u64::MAX, llc_at, seen, worked_ns: 0, read_kib: 0, cpu_ns: 0 }
        }

        fn changes(&self) -> u64 {
            self.seen.windows(2).filter(|pair| pair[0] != pair[1]).count() as u64
        }

        fn pass(&mut self, ns: u64) {
            self.now_ns += ns;
            self.cpu_ns += ns;
        }
    }

    impl<F: FnMut(u64) -> usize> World for &mut Script<F> {
        fn now_ns(&mut self) -> u64 {
            self.now_ns
        }

        fn sleep_until(&mut self, at_ns: u64) -> bool {
            self.now_ns = self.now_ns.max(at_ns);
            !self.over()
        }

        fn over(&mut self) -> bool {
            self.now_ns >= self.end_ns
        }

        fn llc(&mut self) -> Option<usize> {
            let llc = (self.llc_at)(self.now_ns);
            self.seen.push(llc);
            Some(llc)
        }

        fn work(&mut self, ns: u64) {
            self.worked_ns += ns;
            self.pass(ns);
        }

        fn read_again(&mut self, kib: u64) {
            self.read_kib += kib;
            self.pass(kib * 100);
        }

        fn cpu_ns(&mut self) -> u64 {
            self.cpu_ns
        }
    }

    const ALWAYS: Window = Window { begin_ns: 0, end_ns: u64::MAX };

    fn spec(busy_cpus: f64) -> LocalitySpec {
        LocalitySpec {
            workers: 4,
            burst_ns: MS,
            distribution: Distribution::Exponential,
            busy_cpus,
            cost: Cost::Ns(0),
            costly: 1.0,
            forget_ns: None,
            hogs: 0,
        }
    }

    /// A burst of 1 ms each 3 ms.
    fn regular(n: u64) -> impl Iterator<Item = Burst> {
        (1..=n).map(|i| Burst { at_ns: 3 * i * MS, work_ns: MS })
    }

    #[test]
    fn bursts_are_a_function_of_seed_and_worker() {
        let take = |seed, worker| Bursts::new(&spec(2.0), seed, worker, 7).take(20_000).collect::<Vec<_>>();
        let bursts = take(1, 0);
        assert_eq!(bursts, take(1, 0));
        assert_ne!(bursts, take(2, 0));
        assert_ne!(bursts, take(1, 1));
        assert!(bursts.is_sorted_by(|a, b| a.at_ns < b.at_ns));
        // Four workers that keep two CPUs busy: each has 1 ms to do each 2 ms.
        let interval_ns = (bursts[19_999].at_ns - 7) as f64 / 20_000.0;
        assert!((interval_ns / 2e6 - 1.0).abs() < 0.05, "{interval_ns}");
        let work_ns = bursts.iter().map(|burst| burst.work_ns).sum::<u64>() as f64 / 20_000.0;
        assert!((work_ns / 1e6 - 1.0).abs() < 0.05, "{work_ns}");
    }

    #[test]
    fn the_cost_is_paid_once_for_each_change() {
        // 7 ms is not a multiple of anything here: it moves while the worker works, sleeps, and pays.
        for cost_us in [0, 200, 1_700] {
            let mut world = Script::new(|now_ns| (now_ns / (7 * MS) % 3) as usize);
            let tally = Worker::new(&mut world, Some(Cost::Ns(cost_us * US)), None).run(regular(100), ALWAYS);
            let changes = world.changes();
            assert_eq!((tally.response.samples(), tally.llc_changes, tally.costs), (100, changes, changes));
            assert_eq!(world.worked_ns, 100 * MS + changes * cost_us * US, "work, and the cost for each change");
            assert_eq!(tally.cost_cpu_ns, changes * cost_us * US);
            assert!(changes > 20, "{changes}");
        }
    }

    #[test]
    fn who_stays_or_has_no_cost_pays_nothing() {
        let mut world = Script::new(|_| 5);
        let tally = Worker::new(&mut world, Some(Cost::Ns(MS)), None).run(regular(50), ALWAYS);
        assert_eq!((tally.costs, tally.llc_changes, world.worked_ns), (0, 0, 50 * MS));
        let mut world = Script::new(|now_ns| (now_ns / (7 * MS)) as usize);
        let tally = Worker::new(&mut world, None, Some(MS)).run(regular(50), ALWAYS);
        assert!(tally.llc_changes > 15);
        assert_eq!((tally.costs, tally.paid_bursts, world.worked_ns), (0, 0, 50 * MS));
    }

    #[test]
    fn a_move_while_paying_costs_again_and_is_one_burst() {
        // Elsewhere at the second and at the fourth look: when 50 of 200 us are paid for the first, the second comes.
        let places = [0, 1, 1, 2];
        let mut look = 0;
        let mut world = Script::new(|_| {
            look += 1;
            places[(look - 1).min(3)]
        });
        let one = Burst { at_ns: MS, work_ns: 100 * US };
        let tally = Worker::new(&mut world, Some(Cost::Ns(200 * US)), None).run(std::iter::once(one), ALWAYS);
        assert_eq!((tally.costs, tally.paid_bursts, world.worked_ns), (2, 1, 500 * US));
        assert_eq!((tally.response.sum_ns, tally.cost_cpu_ns), (500 * US, 400 * US));
    }

    #[test]
    fn data_is_read_again_to_the_last_kib() {
        let mut world = Script::new(|now_ns| (now_ns / (7 * MS) % 2) as usize);
        let tally = Worker::new(&mut world, Some(Cost::Kib(150)), None).run(regular(100), ALWAYS);
        assert!(tally.costs > 20);
        assert_eq!((world.read_kib, world.worked_ns), (150 * tally.costs, 100 * MS));
        assert_eq!(tally.cost_cpu_ns, world.read_kib * 100);
    }

    #[test]
    fn what_was_left_alone_for_long_is_forgotten() {
        let at = |ms: u64| Burst { at_ns: ms * MS, work_ns: MS };
        let run = |forget_ns| {
            let mut world = Script::new(|_| 0);
            // Away for 4, 18 and 19 ms; a cost that is paid makes the next time 1 us shorter.
            let bursts = [at(10), at(15), at(34), at(54)].into_iter();
            Worker::new(&mut world, Some(Cost::Ns(US)), forget_ns).run(bursts, ALWAYS).costs
        };
        assert_eq!([None, Some(30 * MS), Some(18 * MS), Some(4 * MS)].map(run), [0, 0, 2, 3]);
    }

    #[test]
    fn overload_is_a_backlog() {
        // Twice what a CPU can do, from 100 ms to 1100 ms.
        let window = Window { begin_ns: 100 * MS, end_ns: 1_100 * MS };
        let mut world = Script::new(|_| 0);
        world.end_ns = window.end_ns;
        let bursts = Bursts::new(&spec(8.0), 1, 0, 0);
        let tally = Worker::new(&mut world, None, None).run(bursts.clone(), window);
        let arrived = bursts.take_while(|burst| burst.at_ns < window.end_ns).count() as u64;
        assert_eq!(tally.arrived_before + tally.arrived, arrived);
        assert!((800..1_200).contains(&(tally.backlog() - tally.backlog_before())), "{}", tally.backlog());
        assert_eq!(tally.backlog_before() + tally.arrived, tally.response.samples() + tally.backlog());
        assert!(tally.response.percentile_us(0.99) > 400_000.0, "who arrives late waits for half a second");
    }

    #[test]
    fn a_measurement_that_is_over_leaves_the_burst_undone() {
        let mut world = Script::new(|_| 0);
        world.end_ns = 6 * MS + 300 * US;
        let window = Window { begin_ns: 0, end_ns: 100 * MS };
        let tally = Worker::new(&mut world, None, None).run(regular(1_000), window);
        assert_eq!((tally.arrived, tally.response.samples(), tally.backlog()), (33, 1, 32));
        assert_eq!(world.worked_ns, MS + 300 * US, "nothing was begun any more");
    }
}
