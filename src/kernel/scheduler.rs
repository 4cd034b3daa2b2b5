// SPDX-License-Identifier: GPL-2.0-only
//! Load and attach the scheduler, drain its events, read its counters, and tell why it ended.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::rc::Rc;
use std::str::FromStr;

use anyhow::{Context, Error, Result, anyhow, ensure};
use libbpf_rs::{Link, MapCore, MapFlags, OpenObject, RingBuffer, RingBufferBuilder};
use log::{info, warn};
use scx_utils::{UserExitInfo, compat, scx_ops_attach, scx_ops_load, scx_ops_open, uei_exited, uei_report};

use super::domains::Domains;
use super::slots::{Publication, Publisher};
use crate::agent::Environment;
use crate::policy::{
    RL_EVENT_VERSION, RL_HIST_BUCKETS, RL_NR_COUNTERS, RL_NR_DISTANCES, RL_WITHOUT_queued, host, rl_cpu_stats,
    rl_event, rl_mode, rl_policy, rl_slot, rl_weights,
};
use crate::process::with_realtime;

#[allow(clippy::all, missing_docs, non_camel_case_types, dead_code)]
mod skel {
    include!(concat!(env!("OUT_DIR"), "/main_skel.rs"));
}
use skel::{MainSkel, MainSkelBuilder};

/// At most this many events are taken in one call. What is over stays in the ring buffer, whose drops BPF counts; so no
/// queue in userspace grows, and the loop stays responsive when learning is slower than the events.
const MAX_EVENTS_PER_POLL: usize = 1024;

/// How many tasks decisions may move out of each domain per second, by distance class; 0: as many as they like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MigrationLimits(pub [u32; RL_NR_DISTANCES as usize]);

impl MigrationLimits {
    /// The classes' names, in the order of `enum rl_distance`.
    pub const CLASSES: [&str; RL_NR_DISTANCES as usize] = ["smt", "llc", "node", "numa"];

    /// One move in so many ns; 0: no limit.
    pub fn interval_ns(self) -> [u64; RL_NR_DISTANCES as usize] {
        self.0.map(|per_s| 1_000_000_000u64.checked_div(per_s.into()).unwrap_or(0))
    }
}

impl FromStr for MigrationLimits {
    type Err = Error;

    /// CLASS=N parts, separated by commas; classes that are not named have no limit.
    fn from_str(text: &str) -> Result<Self> {
        let mut limits = Self::default();
        for part in text.split(',') {
            let (name, per_s) = part.split_once('=').with_context(|| format!("{part:?} is not CLASS=N"))?;
            let class = Self::CLASSES.iter().position(|class| *class == name);
            let class = class.with_context(|| format!("there is no class {name:?}: smt, llc, node and numa are"))?;
            limits.0[class] = per_s
                .parse::<u32>()
                .ok()
                .filter(|n| (1..=1_000_000).contains(n))
                .with_context(|| format!("{part:?}: from 1 to 1000000 tasks per second are possible"))?;
        }
        Ok(limits)
    }
}

/// Fixed settings of an attached scheduler.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    /// A task keeps its CPU for at most this long while others wait, ns.
    pub slice_ns: u64,
    /// And for at least this long, however many wait, ns.
    pub slice_min_ns: u64,
    /// The policy chooses how long turns last, too, where it is not the fixed rule.
    pub learn_slices: bool,
    /// Mechanisms that are switched off, bits `RL_WITHOUT_*` of intf.h.
    pub without: u32,
    /// No task waits longer than this because the policy said so, ns.
    pub wait_bound_ns: u64,
    /// How many tasks decisions may move out of each domain.
    pub migration_limits: MigrationLimits,
    /// Size of the event ring buffer, bytes; a power of two and a multiple of the page size.
    pub ring_bytes: u32,
}

impl SchedulerConfig {
    /// The settings without options.
    pub const DEFAULT: Self = Self {
        slice_ns: 20_000_000,
        slice_min_ns: 2_000_000,
        learn_slices: false,
        without: 0,
        wait_bound_ns: 20_000_000,
        migration_limits: MigrationLimits([0; RL_NR_DISTANCES as usize]),
        ring_bytes: 1 << 20,
    };
}

/// The flags of the ops, as far as this kernel has them, without the mechanisms `without`. The kernel keeps track of idle CPUs. A
/// task that wakes for another CPU may get there by an interrupt, instead of under the lock of that CPU's runqueue, for which
/// both would compete; where its old CPU is not done with it yet, rl_select_cpu() is left out, and rl_enqueue() decides on
/// its own.
pub(super) fn ops_flags(without: u32) -> u64 {
    let queued = if without & RL_WITHOUT_queued == 0 { *compat::SCX_OPS_ALLOW_QUEUED_WAKEUP } else { 0 };
    *compat::SCX_OPS_KEEP_BUILTIN_IDLE | queued
}

/// Sums over all CPUs since attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    /// In the order of `RL_COUNTERS` in intf.h.
    pub values: [u64; RL_NR_COUNTERS as usize],
    /// Runqueue waits: bucket i counts those in [2^i, 2^(i+1)) us, bucket 0 also shorter ones.
    pub wait_hist: [u64; RL_HIST_BUCKETS as usize],
}

impl Default for Counters {
    fn default() -> Self {
        Self { values: [0; RL_NR_COUNTERS as usize], wait_hist: [0; RL_HIST_BUCKETS as usize] }
    }
}

impl Counters {
    /// One counter, by its `RL_CNT_*` index; 0 for an unknown one.
    pub fn get(&self, counter: u32) -> u64 {
        self.values.get(counter as usize).copied().unwrap_or(0)
    }

    /// Every counter by its name in intf.h.
    pub fn named(&self) -> BTreeMap<&'static str, u64> {
        host::counter_table().into_iter().map(|(name, _)| name).zip(self.values).collect()
    }

    /// self - earlier, per counter and bucket.
    pub fn since(&self, earlier: &Counters) -> Counters {
        let mut d = self.clone();
        d.values.iter_mut().zip(earlier.values).for_each(|(a, b)| *a = a.saturating_sub(b));
        d.wait_hist.iter_mut().zip(earlier.wait_hist).for_each(|(a, b)| *a = a.saturating_sub(b));
        d
    }

    /// Upper edge (us) of the bucket that holds the q-quantile of waits; 0 without samples.
    pub fn wait_quantile_us(&self, q: f64) -> u64 {
        let total: u64 = self.wait_hist.iter().sum();
        let rank = (total as f64 * q).ceil() as u64;
        let mut seen = 0;
        for (i, n) in self.wait_hist.iter().enumerate() {
            seen += n;
            if total > 0 && seen >= rank.max(1) {
                return 2u64 << i;
            }
        }
        0
    }
}

/// An attached scheduler. Dropping it detaches it, and the kernel goes back to its default scheduler.
pub struct Scheduler<'a> {
    // The order of fields is the order of dropping: detach first.
    link: Option<Link>,
    ring: RingBuffer<'static>,
    queue: Rc<RefCell<Received>>,
    publisher: Publisher,
    skel: MainSkel<'a>,
}

#[derive(Default)]
struct Received {
    events: Vec<rl_event>,
    malformed: u64,
}

impl<'a> Scheduler<'a> {
    /// Open, load, publish `first` as the generation after `generation`, and attach. `tasks` is the map of what is known
    /// about tasks: taken over from the last time, or made and kept there.
    ///
    /// It must outlive restarts, which come when a CPU goes or comes: from Linux 6.14 on, until `rcu_tasks_trace` was built on
    /// SRCU (7.0 has that), a kernel that frees a map of task storage while a CPU goes offline hangs for good. `bpf_map_free()`
    /// keeps its worker on its CPU and waits in `bpf_local_storage_map_free()` for `rcu_tasks_trace`, which waits for the lock of
    /// CPU hotplug, whose holder waits in `sched_cpu_wait_empty()` until no task is kept on that CPU.
    ///
    /// # Errors
    /// When the kernel refuses to load or attach; the message carries the reason that libbpf or the kernel gave.
    pub fn attach(
        object: &'a mut MaybeUninit<OpenObject>,
        config: &SchedulerConfig,
        domains: &Domains,
        first: &Publication,
        generation: u64,
        tasks: &mut Option<OwnedFd>,
    ) -> Result<Self> {
        ensure!(
            config.ring_bytes.is_power_of_two() && config.ring_bytes >= 4096,
            "the ring buffer must be a power of two of at least 4096 bytes, not {}",
            config.ring_bytes
        );
        let builder = MainSkelBuilder::default();
        let no_options: Option<libbpf_rs::libbpf_sys::bpf_object_open_opts> = None;
        let mut open = scx_ops_open!(builder, object, rl_ops, no_options)?;

        let rodata = open.maps.rodata_data.as_mut().ok_or_else(|| anyhow!("the BPF object has no rodata"))?;
        rodata.nr_cpu_ids = domains.nr_cpu_ids as u32;
        rodata.nr_domains = domains.cpus.len() as u32;
        rodata.smt_enabled = domains.smt;
        rodata.slice_ns = config.slice_ns;
        rodata.slice_min_ns = config.slice_min_ns;
        rodata.learn_slices = config.learn_slices;
        rodata.without = config.without;
        rodata.wait_bound_ns = config.wait_bound_ns;
        rodata.migration_ns = config.migration_limits.interval_ns();
        for (cpu, dom) in domains.domain_of_cpu() {
            rodata.cpu_domain[cpu] = dom as u16;
            rodata.domain_cpus[dom][cpu / 64] |= 1 << (cpu % 64);
            rodata.domain_nr_cpus[dom] += 1;
        }
        for (a, row) in domains.distance.iter().enumerate() {
            rodata.domain_distance[a][..row.len()].copy_from_slice(row);
            rodata.domain_neighbours[a][..domains.neighbours[a].len()].copy_from_slice(&domains.neighbours[a]);
        }
        open.maps.events.set_max_entries(config.ring_bytes).context("cannot size the ring buffer")?;
        open.struct_ops.rl_ops_mut().flags = ops_flags(config.without);

        if let Some(tasks) = tasks {
            open.maps.tasks.reuse_fd(tasks.as_fd()).context("cannot take over what is known about tasks")?;
        }

        let mut skel = scx_ops_load!(open, rl_ops, uei)?;
        if tasks.is_none() {
            *tasks =
                Some(skel.maps.tasks.as_fd().try_clone_to_owned().context("cannot keep what is known about tasks")?);
        }

        let data = skel.maps.data_policy_data.as_mut().ok_or_else(|| anyhow!("the policy is not mapped"))?;
        // SAFETY: the mapping lives as long as `skel`, which is dropped after the publisher; nobody else writes it.
        // The skeleton's type and bindgen's are made from the same C struct.
        let mut publisher = unsafe { Publisher::new(NonNull::from(&mut data.policy).cast::<rl_policy>(), generation) };
        publisher.publish(first);

        let queue = Rc::new(RefCell::new(Received::default()));
        let sink = queue.clone();
        let mut ring = RingBufferBuilder::new();
        ring.add(&skel.maps.events, move |bytes| {
            let mut received = sink.borrow_mut();
            match decode(bytes) {
                Some(event) => received.events.push(event),
                None => received.malformed += 1,
            }
            0
        })
        .context("cannot read the event ring buffer")?;
        let ring = ring.build().context("cannot read the event ring buffer")?;

        let link = Some(with_realtime(|| scx_ops_attach!(skel, rl_ops))?);
        info!("attached: {}", ops_name().unwrap_or_else(|| "rl".into()));
        Ok(Self { link, ring, queue, publisher, skel })
    }

    /// Move the events that have arrived to `out`. Returns how many records were malformed (a bug, or memory
    /// corruption): they are dropped.
    pub fn drain(&mut self, out: &mut Vec<rl_event>) -> Result<u64> {
        let n = self.ring.consume_raw_n(MAX_EVENTS_PER_POLL);
        ensure!(n >= 0, "cannot read the event ring buffer: {}", std::io::Error::from_raw_os_error(-n));
        let mut received = self.queue.borrow_mut();
        out.append(&mut received.events);
        Ok(std::mem::take(&mut received.malformed))
    }

    /// The generation that was published last.
    pub fn generation(&self) -> u64 {
        self.publisher.generation()
    }

    /// The active slot, read back from the kernel by a map lookup (not through our own mapping).
    pub fn read_back(&self) -> Result<rl_slot> {
        let bytes = self
            .skel
            .maps
            .data_policy
            .lookup(&0u32.to_ne_bytes(), MapFlags::ANY)
            .context("cannot read the policy back")?
            .ok_or_else(|| anyhow!("the policy map is empty"))?;
        ensure!(bytes.len() >= size_of::<rl_policy>(), "the policy map is too small");
        // SAFETY: plain integers, at least as many bytes as the type has; read_unaligned needs no alignment.
        let policy = unsafe { bytes.as_ptr().cast::<rl_policy>().read_unaligned() };
        Ok(policy.slots[(policy.active & 1) as usize])
    }

    /// From now on log a decision with probability 2^-shift.
    pub fn set_sample_shift(&mut self, shift: u32) {
        if let Some(bss) = self.skel.maps.bss_data.as_mut() {
            bss.sample_shift = shift;
        }
    }

    /// Counters since attach, over all CPUs.
    pub fn counters(&self) -> Result<Counters> {
        let per_cpu = self
            .skel
            .maps
            .stats
            .lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY)
            .context("cannot read the counters")?
            .unwrap_or_default();
        let mut sum = Counters::default();
        for bytes in per_cpu.iter().filter(|b| b.len() >= size_of::<rl_cpu_stats>()) {
            // SAFETY: plain integers, at least as many bytes as the type has; read_unaligned needs no alignment.
            let s = unsafe { bytes.as_ptr().cast::<rl_cpu_stats>().read_unaligned() };
            sum.values.iter_mut().zip(s.counters).for_each(|(a, b)| *a += b);
            sum.wait_hist.iter_mut().zip(s.wait_hist).for_each(|(a, b)| *a += b);
        }
        Ok(sum)
    }

    /// Has the kernel ended the scheduler?
    pub fn exited(&self) -> bool {
        uei_exited!(&self.skel, uei)
    }

    /// Detach and report why it ended.
    ///
    /// # Errors
    /// When the kernel ended it because of an error, with the kernel's words.
    pub fn detach(mut self) -> Result<UserExitInfo> {
        drop(self.link.take());
        uei_report!(&self.skel, uei)
    }
}

impl Environment for Scheduler<'_> {
    fn poll(&mut self, out: &mut Vec<rl_event>) -> Result<()> {
        self.drain(out).map(|_| ())
    }

    fn publish(&mut self, weights: &rl_weights, mode: rl_mode, floor_q16: u32) -> Result<u64> {
        Ok(self.publisher.publish(&Publication { mode, floor_q16, weights: *weights, ..Publication::default() }))
    }
}

impl Drop for Scheduler<'_> {
    fn drop(&mut self) {
        if self.link.take().is_some() {
            warn!("detached without a report");
        }
    }
}

/// The attached scheduler's name, as the kernel tells it.
pub fn ops_name() -> Option<String> {
    let name = std::fs::read_to_string("/sys/kernel/sched_ext/root/ops").ok()?;
    Some(name.trim().to_string())
}

fn decode(bytes: &[u8]) -> Option<rl_event> {
    if bytes.len() < size_of::<rl_event>() {
        return None;
    }
    // SAFETY: plain integers, at least as many bytes as the type has; read_unaligned needs no alignment.
    let event = unsafe { bytes.as_ptr().cast::<rl_event>().read_unaligned() };
    (u32::from(event.version) == RL_EVENT_VERSION).then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migration_limits_are_by_class() {
        let limits: MigrationLimits = "node=500,numa=3".parse().unwrap();
        assert_eq!(limits, MigrationLimits([0, 0, 500, 3]));
        assert_eq!(limits.interval_ns(), [0, 0, 2_000_000, 333_333_333]);
        for (text, why) in [
            ("node", "CLASS=N"),
            ("socket=1", "no class \"socket\""),
            ("node=0", "from 1 to 1000000"),
            ("node=x", "from 1 to 1000000"),
            ("node=1,", "CLASS=N"),
        ] {
            let error = text.parse::<MigrationLimits>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
