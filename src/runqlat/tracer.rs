// SPDX-License-Identifier: GPL-2.0-only
//! Loads `runqlat.bpf.c`, attaches it to the scheduler's tracepoints, and reads its counters.

use std::io::Read;
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{Iter, Link, MapCore, MapFlags};
use scx_utils::Topology;

use super::counts::{CPU_WORDS, Counts};
use super::longest::Longest;
use super::report::{Report, Waiting};
use super::skel::{OpenRunqlatSkel, RunqlatSkel, RunqlatSkelBuilder};
use crate::kernel::programs::{ProgramCost, of_object};

/// Where the kernel describes its own types, which the tracepoint programs are checked against.
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// A running measurement of all tasks' waits. Dropping it detaches it.
pub struct Tracer {
    skel: RunqlatSkel<'static>,
    waiting: Link,
    base: Counts,
    since: Instant,
    epoch: u64,
}

impl Tracer {
    /// Loads and attaches. Measuring starts at once.
    ///
    /// # Errors
    /// Not root, a kernel without BTF or without the tracepoints, or more CPUs than the tracer knows.
    pub fn start() -> Result<Tracer> {
        // SAFETY: geteuid has no preconditions and cannot fail.
        ensure!(unsafe { libc::geteuid() } == 0, "measuring runqueue latency loads BPF programs: run as root");
        ensure!(
            Path::new(KERNEL_BTF).exists(),
            "{KERNEL_BTF} is missing: the tracer needs a kernel with CONFIG_DEBUG_INFO_BTF=y"
        );
        // libbpf's own lines go to the log; what matters of them is in the errors below.
        crate::kernel::log_libbpf();
        // The skeleton borrows this for its whole life, which ends at an unknown time: a few words stay allocated for
        // each tracer that was started. The object behind them is freed with the skeleton.
        let storage = Box::leak(Box::new(MaybeUninit::uninit()));
        let mut open = RunqlatSkelBuilder::default().open(storage).context("opening the tracer's BPF object")?;
        fill_places(&mut open)?;
        let skel = open.load().context(
            "the kernel refused the tracer's BPF programs: it needs BTF tracepoints (sched_wakeup, sched_wakeup_new, \
             sched_switch) and task storage, Linux 5.18 or later; -v shows the kernel's reasons",
        )?;
        let waiting = skel.progs.rq_waiting.attach().context("attaching the task iterator")?;
        let mut tracer = Tracer { skel, waiting, base: Counts::default(), since: Instant::now(), epoch: 1 };
        tracer.attach_tracepoints()?;
        // Between the attachments, runs were seen whose wakeups were not; those are not to be called missed.
        tracer.reset()?;
        Ok(tracer)
    }

    fn attach_tracepoints(&mut self) -> Result<()> {
        let value_bytes = self.skel.maps.cpus.value_size() as usize;
        ensure!(
            value_bytes == CPU_WORDS * size_of::<u64>(),
            "the tracer's counters are {value_bytes} bytes, not {}: rebuild scx_rl",
            CPU_WORDS * size_of::<u64>()
        );
        let programs = &self.skel.progs;
        // The switch first: a wait whose begin is seen shall be seen to end.
        let attached = [
            ("sched_switch", &programs.rq_switch),
            ("sched_wakeup", &programs.rq_wakeup),
            ("sched_wakeup_new", &programs.rq_wakeup_new),
        ]
        .map(|(name, program)| {
            program.attach().with_context(|| {
                format!(
                    "attaching to the tracepoint {name}: this kernel does not offer it to BPF \
                     (CONFIG_TRACEPOINTS and CONFIG_BPF_EVENTS); run on a kernel that does, for example in the VM"
                )
            })
        });
        let [switch, wakeup, wakeup_new] = attached;
        self.skel.links.rq_switch = Some(switch?);
        self.skel.links.rq_wakeup = Some(wakeup?);
        self.skel.links.rq_wakeup_new = Some(wakeup_new?);
        Ok(())
    }

    /// Starts over: what was counted so far is in no later report.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn reset(&mut self) -> Result<()> {
        self.lap().map(drop)
    }

    /// What was counted since the last reset, and how many seconds that is; starts over in the same instant.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn lap(&mut self) -> Result<(Counts, f64)> {
        let now = self.read()?;
        let seconds = self.since.elapsed().as_secs_f64();
        let counts = now.since(&self.base);
        self.base = now;
        self.since = Instant::now();
        self.epoch += 1;
        if let Some(bss) = self.skel.maps.data_data.as_deref_mut() {
            bss.epoch = self.epoch;
        }
        Ok((counts, seconds))
    }

    /// What was measured since the start or the last reset; goes on.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn snapshot(&mut self) -> Result<Report> {
        let counts = self.read()?.since(&self.base);
        let seconds = self.since.elapsed().as_secs_f64();
        Ok(Report::new(&counts, self.waiting()?, seconds))
    }

    /// The tasks that are waiting at this moment.
    ///
    /// # Errors
    /// The kernel's task iterator fails.
    pub fn waiting(&mut self) -> Result<Waiting> {
        let missing = "the tracer's BPF object has no .bss: rebuild scx_rl";
        let bss = self.skel.maps.bss_data.as_deref_mut().context(missing)?;
        bss.waiting_tasks = 0;
        bss.waiting_oldest_ns = 0;
        // The program prints nothing: reading to the end is what runs it over all tasks.
        let mut pass = Iter::new(&self.waiting).context("starting the task iterator")?;
        pass.read_to_end(&mut Vec::new()).context("walking the tasks")?;
        // SAFETY: both point into the map's memory, which the skeleton keeps mapped; volatile, because the kernel wrote it
        // behind the compiler's back.
        let (tasks, oldest_ns) = unsafe {
            ((&raw const bss.waiting_tasks).read_volatile(), (&raw const bss.waiting_oldest_ns).read_volatile())
        };
        Ok(Waiting { tasks, oldest_us: oldest_ns as f64 / 1e3 })
    }

    fn read(&self) -> Result<Counts> {
        let per_cpu = self
            .skel
            .maps
            .cpus
            .lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY)
            .context("reading the tracer's counters")?
            .context("the tracer's counters are missing")?;
        let mut counts = Counts::decode(&per_cpu, self.epoch)?;
        for (of, longest) in counts.longest.iter_mut().enumerate() {
            let key = (of as u32).to_ne_bytes();
            let noted =
                self.skel.maps.longest.lookup_percpu(&key, MapFlags::ANY).context("reading the longest waits")?;
            *longest = Longest::decode(&noted.unwrap_or_default(), self.epoch);
        }
        Ok(counts)
    }
}

/// What the tracer's programs cost to verify; loads them for this purpose, and attaches nothing.
///
/// # Errors
/// When the kernel does not load them.
pub fn programs() -> Result<Vec<ProgramCost>> {
    let mut storage = MaybeUninit::uninit();
    let open = RunqlatSkelBuilder::default().open(&mut storage).context("opening the tracer's BPF object")?;
    let skel = open.load().context("loading the tracer's BPF object")?;
    of_object(skel.object())
}

/// Tells the programs which core, last-level cache and NUMA node each CPU belongs to.
fn fill_places(open: &mut OpenRunqlatSkel<'_>) -> Result<()> {
    let topology = Topology::new().context("reading the CPU topology from /sys/devices/system/cpu")?;
    let Some(rodata) = open.maps.rodata_data.as_deref_mut() else {
        bail!("the tracer's BPF object has no .rodata: rebuild scx_rl");
    };
    let most = rodata.places.len();
    for (&id, cpu) in &topology.all_cpus {
        let place = rodata
            .places
            .get_mut(id)
            .with_context(|| format!("CPU {id} is beyond the {most} CPUs that the tracer knows"))?;
        place.core = u16::try_from(cpu.core_id).context("core id")?;
        place.llc = u16::try_from(cpu.llc_id).context("LLC id")?;
        place.node = u16::try_from(cpu.node_id).context("NUMA node id")?;
        place.known = 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::hist::{Histogram, bucket_low_us, bucket_of};
    use super::*;

    /// The real thing: what the kernel counted must fit itself, and what we know we did.
    #[test]
    fn the_kernel_counts_what_threads_do() {
        // SAFETY: geteuid has no preconditions and cannot fail.
        if unsafe { libc::geteuid() } != 0 || !Path::new(KERNEL_BTF).exists() {
            eprintln!("skipped: needs root and BTF");
            return;
        }
        let mut tracer = Tracer::start().unwrap();
        // The counters are read while the kernel counts, so a wait may be in its bucket and not yet in the sum, and on a
        // busy machine a nap may be over before it began: a few laps, of which one at least must fit exactly.
        let naps = 50;
        let fits = (0..8).any(|_| {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| (0..naps).for_each(|_| std::thread::sleep(Duration::from_millis(1))));
                }
            });
            let (counts, seconds) = tracer.lap().unwrap();
            assert!((0.05..60.0).contains(&seconds));
            // Each nap ends with a wakeup, and other processes have theirs.
            counts.waits[0].samples() >= 4 * naps
                && counts.missed == 0
                && counts.waits.iter().all(buckets_fit_sum_and_maximum)
        });
        assert!(fits, "what the kernel counts is not what threads did, or not in our buckets");
        assert!(tracer.snapshot().unwrap().total.samples < 1000, "a lap starts over");
    }

    /// If the kernel puts waits into the buckets that `bucket_of` names, the exact sum lies between the sums of the
    /// buckets' ends, and the longest wait's bucket is the last.
    fn buckets_fit_sum_and_maximum(waits: &Histogram) -> bool {
        let sum_us = |offset: usize| -> f64 {
            waits.buckets.iter().enumerate().map(|(bucket, &n)| n as f64 * bucket_low_us(bucket + offset)).sum()
        };
        let exact_us = waits.sum_ns as f64 / 1e3;
        let last = waits.buckets.iter().rposition(|&n| n > 0);
        sum_us(0) <= exact_us && exact_us <= sum_us(1) && last.is_none_or(|last| last == bucket_of(waits.max_ns))
    }
}
