// SPDX-License-Identifier: GPL-2.0-only
//! The machine that this runs on, as workers see it: clock, sleep, work, caches.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu};
use nix::unistd::Pid;

use super::worker::World;
use crate::kernel::domains::Domains;

/// Words of a cache line.
const LINE_WORDS: usize = 8;
const LINES_PER_KIB: u64 = 16;
const WORDS_PER_KIB: usize = LINE_WORDS * LINES_PER_KIB as usize;
/// A run of the calibration takes at least so long, ns: much longer than the clock's resolution, much shorter than a
/// slice.
const CALIBRATION_NS: u64 = 1_000_000;
/// And there are so many, of which the fastest counts: what disturbs a run makes it longer, never shorter.
const CALIBRATIONS: usize = 30;
/// How much a hog does before it looks whether it is over, iterations.
const HOG_ITERATIONS: u64 = 20_000;

/// What all workers have in common.
pub struct Host {
    begin: Instant,
    over: AtomicBool,
    llc_of_cpu: Vec<Option<usize>>,
    iterations_per_us: f64,
}

impl Host {
    /// Its time begins now. `llc_of_cpu`: by the CPU's id; `iterations_per_us`: of [`spin`].
    pub fn new(llc_of_cpu: Vec<Option<usize>>, iterations_per_us: f64) -> Self {
        Self { begin: Instant::now(), over: AtomicBool::new(false), llc_of_cpu, iterations_per_us }
    }

    /// When that is, ns after the beginning.
    pub fn instant(&self, at_ns: u64) -> Instant {
        self.begin + Duration::from_nanos(at_ns)
    }

    /// From now on it is over. Who sleeps must be woken.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Works until it is over.
    pub fn hog(&self) {
        while !self.over.load(Ordering::Relaxed) {
            spin(HOG_ITERATIONS);
        }
    }
}

/// The machine as one worker sees it, with the data that it may have to read again.
pub struct Desk<'a> {
    host: &'a Host,
    data: Vec<u64>,
    next: usize,
}

impl<'a> Desk<'a> {
    /// For a worker with so much data, KiB. To be called by its own thread, so that the memory is near to it.
    pub fn new(host: &'a Host, data_kib: usize) -> Self {
        // Not zeros: pages that nobody has written would all be one page.
        Self { host, data: vec![1; data_kib * WORDS_PER_KIB], next: 0 }
    }
}

impl World for Desk<'_> {
    fn now_ns(&mut self) -> u64 {
        self.host.begin.elapsed().as_nanos() as u64
    }

    fn sleep_until(&mut self, at_ns: u64) -> bool {
        loop {
            if self.over() {
                return false;
            }
            let now_ns = self.now_ns();
            if now_ns >= at_ns {
                return true;
            }
            // A sleep that the end of the measurement can end.
            std::thread::park_timeout(Duration::from_nanos(at_ns - now_ns));
        }
    }

    fn over(&mut self) -> bool {
        self.host.over.load(Ordering::Relaxed)
    }

    fn llc(&mut self) -> Option<usize> {
        *self.host.llc_of_cpu.get(sched_getcpu().ok()?)?
    }

    fn work(&mut self, ns: u64) {
        spin((ns as f64 / 1e3 * self.host.iterations_per_us) as u64);
    }

    fn read_again(&mut self, kib: u64) {
        let mut sum = 0u64;
        for _ in 0..kib * LINES_PER_KIB {
            sum = sum.wrapping_add(self.data.get(self.next).copied().unwrap_or_default());
            self.next += LINE_WORDS;
            if self.next >= self.data.len() {
                self.next = 0;
            }
        }
        black_box(sum);
    }

    fn cpu_ns(&mut self) -> u64 {
        // Not getrusage: what that tells is as old as the last tick.
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: time outlives the call.
        if unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } != 0 {
            return 0;
        }
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }
}

/// Arithmetic in a chain (xorshift), so that each step waits for the one before, on every kind of CPU.
#[inline(never)]
pub fn spin(iterations: u64) {
    let mut x = black_box(iterations | 1);
    for _ in 0..iterations {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    black_box(x);
}

/// How many iterations of [`spin`] this machine does in a us, while it does nothing else.
///
/// # Errors
/// They take no time that the clock can tell.
pub fn calibrate() -> Result<f64> {
    let time_ns = |iterations| {
        let begin = Instant::now();
        spin(iterations);
        begin.elapsed().as_nanos() as u64
    };
    let mut iterations = 1 << 12;
    while time_ns(iterations) < CALIBRATION_NS {
        iterations *= 2;
        ensure!(iterations < 1 << 40, "the work cannot be calibrated on this machine: give --iterations-per-us");
    }
    let fastest_ns = (0..CALIBRATIONS).map(|_| time_ns(iterations)).min().unwrap_or(0);
    ensure!(fastest_ns > 0, "the clock stands still, so the work cannot be calibrated: give --iterations-per-us");
    Ok(iterations as f64 * 1e3 / fastest_ns as f64)
}

/// How many CPUs this process may use.
///
/// # Errors
/// The kernel does not tell.
pub fn cpus() -> Result<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).context("asking which CPUs this process may use")?;
    Ok((0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).count())
}

/// By CPU id, the number of the domain.
pub fn caches(domains: &Domains) -> Vec<Option<usize>> {
    let mut llc_of_cpu = vec![None; domains.nr_cpu_ids];
    for (cpu, domain) in domains.domain_of_cpu() {
        llc_of_cpu[cpu] = Some(domain);
    }
    llc_of_cpu
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_as_long_as_it_says_at_least() {
        let host = Host::new(Vec::new(), calibrate().unwrap());
        let mut desk = Desk::new(&host, 0);
        let times_us: Vec<(u128, u64)> = (0..20)
            .map(|_| {
                let (begin, cpu_ns) = (Instant::now(), desk.cpu_ns());
                desk.work(1_000_000);
                let cpu_us = (desk.cpu_ns() - cpu_ns) / 1_000;
                (begin.elapsed().as_micros(), cpu_us)
            })
            .collect();
        // Wide, because the machine may have been busier during the calibration than now, or the other way round.
        assert!(times_us.iter().min().is_some_and(|&(us, _)| (300..20_000).contains(&us)), "{times_us:?}");
        // CPU time is exact, not as of the last tick.
        assert!(times_us.iter().all(|&(us, cpu_us)| cpu_us >= 300 && u128::from(cpu_us) <= us), "{times_us:?}");
        assert_eq!(desk.llc(), None, "an unknown CPU is in no cache");
        assert!(cpus().unwrap() >= 1);
    }

    #[test]
    fn reading_goes_round_the_data_and_takes_cpu_time() {
        let host = Host::new(vec![Some(3); CpuSet::count()], 1.0);
        let mut desk = Desk::new(&host, 10);
        assert_eq!(desk.llc(), Some(3));
        desk.read_again(6);
        assert_eq!(desk.next, 6 * WORDS_PER_KIB);
        desk.read_again(6);
        assert_eq!(desk.next, 2 * WORDS_PER_KIB);
        let before_ns = desk.cpu_ns();
        (0..200).for_each(|_| desk.read_again(1_024));
        assert!(desk.cpu_ns() > before_ns);
    }

    #[test]
    fn a_sleep_ends_in_time_or_with_the_measurement() {
        let host = Host::new(Vec::new(), 1.0);
        let mut desk = Desk::new(&host, 0);
        let at_ns = desk.now_ns() + 2_000_000;
        assert!(desk.sleep_until(at_ns) && desk.now_ns() >= at_ns);
        let far_ns = at_ns + 1_000_000_000_000;
        let woken = std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| Desk::new(&host, 0).sleep_until(far_ns));
            std::thread::sleep(Duration::from_millis(5));
            host.end();
            sleeper.thread().unpark();
            sleeper.join().unwrap()
        });
        assert!(!woken && desk.now_ns() < far_ns);
    }
}
