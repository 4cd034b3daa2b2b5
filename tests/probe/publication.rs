// SPDX-License-Identifier: GPL-2.0-only
//! A decision reads one generation, however fast generations follow each other.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use scx_rl::kernel::probe::{Program, Runner};
use scx_rl::kernel::slots::{Publication, Publisher};
use scx_rl::policy::host::{self, FEATURES};
use scx_rl::policy::{RL_LOGIT_SHIFT, RL_MODE_DRAW, RL_MODE_GREEDY, rl_policy, rl_probe_args, rl_slot, rl_weights};

use super::common::skip;
use super::{HIDDEN, Plain, probe};

/// No test waits longer than this for threads to meet.
const PATIENCE: Duration = Duration::from_secs(120);

/// The networks of `src/bpf/probe.h`, a function of their generation: what rl_test_w1() and its siblings are there.
fn numbered(generation: u64) -> Plain {
    let g = generation >> 1;
    let mut plain = Plain::from_fn(|_| if g & 1 == 1 { 50 } else { -50 });
    plain.b1 = [1100 + (g % 3) as i64 * 100; HIDDEN];
    plain.w2 = [10 + (g % 5) as i64; HIDDEN];
    plain.b2 = (g % 7) as i64 * 1000;
    plain
}

/// Its publication: drawing and greedy by turns of four, since both use the network.
fn numbered_publication(generation: u64) -> Publication {
    let mode = if generation & 4 == 0 { RL_MODE_DRAW } else { RL_MODE_GREEDY };
    Publication { mode, floor_q16: 64, weights: numbered(generation).packed(), ..Publication::default() }
}

/// The networks repeat after this many generations: 2 x (2 x 3 x 5 x 7).
const PERIOD: u64 = 420;

#[test]
fn neighbouring_test_networks_and_their_mixtures_can_be_told_apart() {
    let logit = |plain: &Plain| (plain.forward(&[1; FEATURES]) >> RL_LOGIT_SHIFT) as i32;
    for g in 0..PERIOD {
        let (old, new) = (numbered(g), numbered(g + 2));
        let slot = rl_slot { mode: RL_MODE_DRAW, weights: old.packed(), ..Default::default() };
        assert_eq!(host::act(&slot, &[1; FEATURES], 0).logit_q8, logit(&old), "generation {g} does not saturate");
        assert_eq!(numbered(g + PERIOD).packed(), old.packed());
        // A slot is rewritten from generation g to g + 2, w1 first: torn in the middle it is neither.
        let torn = Plain { w1: new.w1, ..old.clone() };
        let different = [logit(&old), logit(&new)].iter().all(|l| *l != logit(&torn)) && logit(&old) != logit(&new);
        assert!(different, "generation {g}: {} {} torn {}", logit(&old), logit(&new), logit(&torn));
    }
}

/// The CPUs that this process may use. Two at least, or None: a program runs to its end without the publisher then.
fn cpus() -> Option<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let cpus: Vec<usize> = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap()).take(5).collect();
    if cpus.len() < 2 {
        skip("publishing and deciding at the same time needs two CPUs");
        return None;
    }
    Some(cpus)
}

/// Keep this thread on one CPU: left to the kernel, publisher and deciders may share one and never meet.
fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}

fn add(sum: &mut rl_probe_args, more: &rl_probe_args) {
    sum.n += more.n;
    sum.mixed += more.mixed;
    sum.retries += more.retries;
    sum.fallbacks += more.fallbacks;
    sum.generations += more.generations;
}

/// Run `publish` as fast as it can on the first CPU, and decisions on the others, until each has `enough` of what it
/// reports. Returns the sum of these reports, and the number of publications.
fn under_load(
    cpus: &[usize],
    runner: &Runner,
    mut publish: impl FnMut() + Send,
    enough: impl Fn(&rl_probe_args) -> bool + Sync,
) -> (rl_probe_args, u64) {
    let (stop, published) = (AtomicBool::new(false), AtomicU64::new(0));
    let deadline = Instant::now() + PATIENCE;
    let decide = |cpu: usize| {
        pin(cpu);
        let mut sum = rl_probe_args::default();
        while !enough(&sum) && Instant::now() < deadline {
            let mut round = runner.run(50_000).unwrap();
            // The first decision of a round always counts as a change.
            round.generations = round.generations.saturating_sub(1);
            add(&mut sum, &round);
        }
        sum
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(cpus[0]);
            while !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
                publish();
                published.fetch_add(1, Ordering::Relaxed);
            }
        });
        let decide = &decide;
        let threads: Vec<_> = cpus[1..].iter().map(|&cpu| scope.spawn(move || decide(cpu))).collect();
        let sums: Vec<_> = threads.into_iter().map(|t| t.join()).collect();
        stop.store(true, Ordering::Relaxed);
        let mut all = rl_probe_args::default();
        sums.into_iter().for_each(|sum| add(&mut all, &sum.unwrap()));
        (all, published.load(Ordering::Relaxed))
    })
}

fn publish_numbered(publisher: &mut Publisher, prepared: &[Publication]) {
    let next = publisher.generation() + 1;
    publisher.publish(&prepared[(next % prepared.len() as u64) as usize]);
}

/// All publications of one period (of networks and modes), so that publishing costs nothing but the writing.
fn prepared() -> Vec<Publication> {
    (0..2 * PERIOD).map(numbered_publication).collect()
}

#[test]
fn no_decision_mixes_two_generations_over_ten_million() {
    let mut object = MaybeUninit::uninit();
    let (Some(mut probe), Some(cpus)) = (probe(&mut object), cpus()) else { return };
    let started = Instant::now();
    let (mut publisher, prepared) = (probe.publisher().unwrap(), prepared());
    publish_numbered(&mut publisher, &prepared);
    let runner = probe.runner(Program::Publication).unwrap();
    // What fell back to the fixed rule was not decided by a network, and does not count.
    let share = 10_000_000_u64.div_ceil(cpus.len() as u64 - 1);
    let enough = |sum: &rl_probe_args| sum.n - sum.fallbacks >= share && sum.generations > 1000;
    let (sum, published) = under_load(&cpus, &runner, || publish_numbered(&mut publisher, &prepared), enough);
    println!(
        "{} decisions by a network in {:.1?}, {published} publications meanwhile, {} changes of generation seen, {} \
         retries, {} fallbacks to the fixed rule, {} mixed",
        sum.n - sum.fallbacks,
        started.elapsed(),
        sum.generations,
        sum.retries,
        sum.fallbacks,
        sum.mixed
    );
    assert_eq!(sum.mixed, 0, "decisions that mixed two generations");
    assert!(sum.n - sum.fallbacks >= 10_000_000, "only {} decisions in {PATIENCE:?}", sum.n - sum.fallbacks);
    assert!(sum.generations > 1000 && published > 1000, "publishing and deciding did not overlap: {sum:?}");
}

/// The pages of one probe's `struct rl_policy`, mapped once more.
struct Mapping(NonNull<rl_policy>);

// SAFETY: memory mapped for the whole process; the test gives it to one thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Of the policy map whose active network has this output bias.
    fn find(b2: i64) -> Self {
        for map in libbpf_rs::query::MapInfoIter::default().filter(|m| m.name == ".data.policy") {
            // It may have gone since it was listed; and there may be maps of other builds.
            let Ok(handle) = libbpf_rs::MapHandle::from_map_id(map.id) else { continue };
            if map.value_size as usize != size_of::<rl_policy>() {
                continue;
            }
            let (protection, fd) = (libc::PROT_READ | libc::PROT_WRITE, handle.as_fd().as_raw_fd());
            // SAFETY: a new mapping at an address of the kernel's choice; the kernel checks that the map allows it.
            let at = unsafe {
                libc::mmap(std::ptr::null_mut(), size_of::<rl_policy>(), protection, libc::MAP_SHARED, fd, 0)
            };
            assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
            let mapping = Self(NonNull::new(at.cast()).unwrap());
            // SAFETY: it is as large as rl_policy, aligned to a page, and any bits are a value of its integers.
            let policy = unsafe { mapping.0.as_ptr().read_volatile() };
            if policy.slots[(policy.active & 1) as usize].weights.b2 == b2 {
                return mapping;
            }
        }
        panic!("the policy map was not found");
    }

    /// As `Publisher::publish`, but without the sequence counter.
    fn publish_torn(&mut self, generation: u64, publication: &Publication) {
        let p = self.0.as_ptr();
        // SAFETY: mapped, aligned, and this is the only writer from now on; readers are BPF programs.
        unsafe {
            let active = AtomicU64::from_ptr(&raw mut (*p).active);
            let target = (active.load(Ordering::Relaxed) & 1) ^ 1;
            let slot: *mut rl_slot = &raw mut (*p).slots[target as usize];
            (&raw mut (*slot).generation).write_volatile(generation);
            (&raw mut (*slot).mode).write_volatile(publication.mode);
            (&raw mut (*slot).floor_q16).write_volatile(publication.floor_q16);
            (&raw mut (*slot).weights).write_volatile(publication.weights);
            active.store(target, Ordering::Release);
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what find() mapped, and nothing refers to it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<rl_policy>()) };
    }
}

/// The test above can fail: it notices a publisher that forgets the sequence counter.
#[test]
fn a_publisher_without_the_sequence_counter_is_noticed() {
    let mut object = MaybeUninit::uninit();
    let (Some(mut probe), Some(cpus)) = (probe(&mut object), cpus()) else { return };
    let started = Instant::now();
    let prepared = prepared();
    let publication = |g: u64| &prepared[(g % prepared.len() as u64) as usize];
    // Tests run side by side, each with a map of its own: this one is marked.
    let mark = i64::from(std::process::id()) << 32 | 0x746f_726e;
    let marked = Publication { weights: rl_weights { b2: mark, ..publication(1).weights }, ..*publication(1) };
    let mut generation = probe.publisher().unwrap().publish(&marked);
    let mut mapping = Mapping::find(mark);
    let mut publish = || {
        generation += 1;
        mapping.publish_torn(generation, publication(generation));
    };
    // Both slots hold whole networks before anyone decides.
    publish();
    publish();
    let runner = probe.runner(Program::Publication).unwrap();
    assert_eq!(runner.run(1000).unwrap().mixed, 0, "nothing is mixed while nobody writes");
    let (sum, published) = under_load(&cpus, &runner, publish, |sum| sum.mixed > 0);
    println!("{} of {} decisions mixed, {published} publications, in {:.1?}", sum.mixed, sum.n, started.elapsed());
    assert!(sum.mixed > 0, "not noticed in {} decisions", sum.n);
}
