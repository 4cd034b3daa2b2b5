// SPDX-License-Identifier: GPL-2.0-only
//! The border to the C side: the types that both share, the scheduler's operations, and the lock that keeps it to one
//! simulated scheduler at a time.
//!
//! Shared fields are `Cell`s, so that both sides may write them without breaking Rust's rules: everything is on one
//! thread, and C only runs while Rust waits for it to return.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::mem::offset_of;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::kernel::Kernel;
use super::kfuncs;
use super::rival::Rival;
use crate::kernel::domains::Domains;
use crate::kernel::scheduler::{Counters, SchedulerConfig};
use crate::policy::{RL_MAX_CPUS, RL_NR_DISTANCES, rl_cpu_stats, rl_policy, rl_rule};

/// Words of a set of CPUs.
pub const MASK_WORDS: usize = RL_MAX_CPUS as usize / 64;

/// The task waits or runs: `SCX_TASK_QUEUED`.
pub const TASK_QUEUED: u32 = 1;
/// Wakeup by `try_to_wake_up()`.
pub const WAKE_TTWU: u64 = 0x08;
/// First wakeup of a new task.
pub const WAKE_FORK: u64 = 0x04;
/// The waker is about to sleep.
pub const WAKE_SYNC: u64 = 0x10;
/// The task was woken.
pub const ENQ_WAKEUP: u64 = 0x01;
/// To the head of a queue.
pub const ENQ_HEAD: u64 = 0x10;
/// To the head of a local queue, and what runs there ends.
pub const ENQ_PREEMPT: u64 = 1 << 32;
/// `SCX_ENQ_REENQ`
pub const ENQ_REENQ: u64 = 1 << 40;
/// The task sleeps.
pub const DEQ_SLEEP: u64 = 0x01;
/// Only if the CPU is idle.
pub const KICK_IDLE: u64 = 1;
/// What runs there ends.
pub const KICK_PREEMPT: u64 = 2;
/// Only CPUs of cores that are idle as a whole.
pub const PICK_IDLE_CORE: u64 = 1;
/// Iterate from the end.
pub const ITER_REV: u64 = 1 << 16;
/// Queues of the kernel itself.
pub const DSQ_BUILTIN: u64 = 1 << 63;
/// The queue that all CPUs serve when they have nothing else.
pub const DSQ_GLOBAL: u64 = DSQ_BUILTIN | 1;
/// The local queue of the CPU that the task is on.
pub const DSQ_LOCAL: u64 = DSQ_BUILTIN | 2;
/// The local queue of a CPU, whose number is in the low half.
pub const DSQ_LOCAL_ON: u64 = DSQ_BUILTIN | 1 << 62;
/// A slice if the scheduler gave none, ns: `SCX_SLICE_DFL`.
pub const SLICE_DFL_NS: u64 = 20_000_000;

/// A set of CPUs, as C has it.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Cpumask {
    bits: [Cell<u64>; MASK_WORDS],
}

impl Cpumask {
    /// The set of these CPUs.
    pub fn of(cpus: impl IntoIterator<Item = usize>) -> Self {
        let mask = Self::default();
        cpus.into_iter().for_each(|cpu| mask.set(cpu, true));
        mask
    }

    /// Is the CPU in the set?
    pub fn has(&self, cpu: usize) -> bool {
        self.bits.get(cpu / 64).is_some_and(|word| word.get() >> (cpu % 64) & 1 == 1)
    }

    /// Put the CPU in, or take it out.
    pub fn set(&self, cpu: usize, member: bool) {
        if let Some(word) = self.bits.get(cpu / 64) {
            let bit = 1 << (cpu % 64);
            word.set(if member { word.get() | bit } else { word.get() & !bit });
        }
    }

    /// The word of CPUs 64 * i to 64 * i + 63.
    pub fn word(&self, i: usize) -> u64 {
        self.bits.get(i).map_or(0, Cell::get)
    }

    /// How many CPUs it has.
    pub fn count(&self) -> usize {
        self.bits.iter().map(|word| word.get().count_ones() as usize).sum()
    }

    /// Make it equal to another.
    pub fn assign(&self, other: &Cpumask) {
        self.bits.iter().zip(&other.bits).for_each(|(mine, theirs)| mine.set(theirs.get()));
    }

    /// The first CPU of both sets after `after`, around the end.
    pub fn next_in_both(&self, other: &Cpumask, after: usize) -> Option<usize> {
        let start = after + 1;
        let at = |i: usize| self.word(i) & other.word(i);
        // From `start` to the end, and then from the beginning: the word of `start` is looked at twice, in halves.
        let (first, low) = (start / 64 % MASK_WORDS, (1u64 << (start % 64)) - 1);
        let high = at(first) & !low;
        if high != 0 {
            return Some(first * 64 + high.trailing_zeros() as usize);
        }
        for step in 1..=MASK_WORDS {
            let i = (first + step) % MASK_WORDS;
            let word = if step == MASK_WORDS { at(i) & low } else { at(i) };
            if word != 0 {
                return Some(i * 64 + word.trailing_zeros() as usize);
            }
        }
        None
    }
}

/// `struct sched_ext_entity`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct SchedExt {
    /// What is left of its slice, ns.
    pub slice_ns: Cell<u64>,
    /// Its key in an ordered queue.
    pub dsq_vtime: Cell<u64>,
    /// `TASK_QUEUED`.
    pub flags: Cell<u32>,
    /// 1 to 10000; 100 is nice 0.
    pub weight: Cell<u32>,
}

/// `struct task_struct` of src/sim/shim/kernel.h.
#[repr(C)]
#[derive(Debug)]
pub struct TaskStruct {
    /// What sched_ext keeps.
    pub scx: SchedExt,
    cpus_ptr: Cell<*const Cpumask>,
    storage: Cell<*mut c_void>,
    /// Its number in the simulation plus one; 0 for the idle task.
    pub pid: Cell<i32>,
    /// `PF_*`.
    pub flags: Cell<u32>,
    /// The CPU that it is on.
    pub cpu: Cell<i32>,
    /// How many CPUs it may use.
    pub nr_cpus_allowed: Cell<i32>,
    /// Not 0: it may not leave its CPU for the moment.
    pub migration_disabled: Cell<u32>,
    comm: [Cell<u8>; 16],
    /// Data that it brings into a cache, KiB: for the rival that knows what moves cost.
    pub working_set_kib: Cell<u32>,
    /// The CPUs that it may use.
    pub cpus_mask: Cpumask,
}

const _: () = assert!(size_of::<SchedExt>() == 24);
const _: () = assert!(offset_of!(TaskStruct, cpus_ptr) == 24 && offset_of!(TaskStruct, pid) == 40);
const _: () = assert!(offset_of!(TaskStruct, working_set_kib) == 76);
const _: () = assert!(offset_of!(TaskStruct, comm) == 60 && offset_of!(TaskStruct, cpus_mask) == 80);
const _: () = assert!(size_of::<TaskStruct>() == 80 + RL_MAX_CPUS as usize / 8);

impl TaskStruct {
    /// A task, in a place of its own, as C keeps pointers to it.
    pub fn new(pid: i32, name: &str, weight: u32, allowed: &Cpumask, cpu: usize) -> Rc<Self> {
        let task = Rc::new(Self {
            scx: SchedExt::default(),
            cpus_ptr: Cell::new(std::ptr::null()),
            storage: Cell::new(std::ptr::null_mut()),
            pid: Cell::new(pid),
            flags: Cell::new(0),
            cpu: Cell::new(cpu as i32),
            nr_cpus_allowed: Cell::new(0),
            migration_disabled: Cell::new(0),
            comm: Default::default(),
            working_set_kib: Cell::new(0),
            cpus_mask: Cpumask::default(),
        });
        task.scx.weight.set(weight);
        // The last byte stays 0, the end of a C string.
        task.comm.iter().take(15).zip(name.bytes()).for_each(|(to, from)| to.set(from));
        task.cpus_ptr.set(&raw const task.cpus_mask);
        task.allow(allowed);
        task
    }

    /// Change the CPUs that it may use.
    pub fn allow(&self, allowed: &Cpumask) {
        self.cpus_mask.assign(allowed);
        self.nr_cpus_allowed.set(allowed.count() as i32);
    }

    /// The CPU that it is on.
    pub fn cpu(&self) -> usize {
        self.cpu.get().max(0) as usize
    }
}

/// `struct sim_context`: what C's helpers read without asking Rust.
#[repr(C)]
struct Context {
    now_ns: u64,
    cpu: i32,
    nr_cpu_ids: u32,
}

/// `struct sim_config` of src/sim/shim/sim.c.
#[repr(C)]
struct Config {
    slice_ns: u64,
    slice_min_ns: u64,
    wait_bound_ns: u64,
    migration_ns: [u64; RL_NR_DISTANCES as usize],
    nr_cpu_ids: u32,
    nr_domains: u32,
    without: u32,
    smt_enabled: u32,
    sample_shift: u32,
    learn_slices: u32,
    rival: u32,
    dear_rule: rl_rule,
    cpu_domain: *const u16,
    domain_distance: *const u8,
    domain_neighbours: *const u16,
}

const _: () = assert!(size_of::<Config>() == 120);

type Task = *const TaskStruct;

/// `struct sched_ext_ops`: what the scheduler defines; what it does not is none.
#[repr(C)]
struct Ops {
    select_cpu: Option<unsafe extern "C" fn(Task, i32, u64) -> i32>,
    enqueue: Option<unsafe extern "C" fn(Task, u64)>,
    dispatch: Option<unsafe extern "C" fn(i32, Task)>,
    yield_: Option<unsafe extern "C" fn(Task, Task) -> bool>,
    runnable: Option<unsafe extern "C" fn(Task, u64)>,
    running: Option<unsafe extern "C" fn(Task)>,
    stopping: Option<unsafe extern "C" fn(Task, bool)>,
    quiescent: Option<unsafe extern "C" fn(Task, u64)>,
    tick: Option<unsafe extern "C" fn(Task)>,
    update_idle: Option<unsafe extern "C" fn(i32, bool)>,
    set_weight: Option<unsafe extern "C" fn(Task, u32)>,
    set_cpumask: Option<unsafe extern "C" fn(Task, *const Cpumask)>,
    cpu_release: Option<unsafe extern "C" fn(i32, *mut c_void)>,
    cpu_offline: Option<unsafe extern "C" fn(i32)>,
    enable: Option<unsafe extern "C" fn(Task)>,
    disable: Option<unsafe extern "C" fn(Task)>,
    init_task: Option<unsafe extern "C" fn(Task, *const bool) -> i32>,
    init: Option<unsafe extern "C" fn() -> i32>,
    exit: Option<unsafe extern "C" fn(*const u32)>,
    name: *const c_void,
}

unsafe extern "C" {
    static mut sim_context: Context;
    fn sim_reset() -> bool;
    fn sim_configure(config: *const Config);
    fn sim_ops() -> *const Ops;
    fn sim_policy() -> *mut rl_policy;
    fn sim_set_sample_shift(shift: u32);
    fn sim_counters(sum: *mut rl_cpu_stats);
}

/// The C side has one set of variables.
static TURN: Mutex<()> = Mutex::new(());

/// The scheduler, freshly loaded. There is one at a time in a process: making another waits until this one is gone.
pub struct Scheduler {
    ops: &'static Ops,
    kernel: Rc<RefCell<Kernel>>,
    // Dropped last. It also keeps the scheduler on its thread.
    _turn: MutexGuard<'static, ()>,
}

/// An operation of the scheduler, in its C name, if it has it.
macro_rules! op {
    ($self:ident, $cpu:expr, $op:ident, $otherwise:expr $(, $arg:expr)*) => {{
        $self.enter($cpu);
        match $self.ops.$op {
            // SAFETY: the C side's own function, given pointers that are valid for the call (tasks live as long as the
            // kernel, which self owns); nothing in Rust is borrowed that its kfuncs would need.
            Some(f) => unsafe { f($($arg),*) },
            None => $otherwise,
        }
    }};
}

impl Scheduler {
    /// Load it with these settings, for these domains, on that kernel, whose time has begun. The rival chooses between
    /// domains.
    ///
    /// # Errors
    /// This thread has one already, which would wait for itself; or out of memory.
    pub fn load(config: &SchedulerConfig, rival: Rival, domains: &Domains, kernel: Kernel) -> anyhow::Result<Self> {
        anyhow::ensure!(!kfuncs::attached(), "this thread has a simulation already: end that one first");
        // A panic elsewhere left nothing that sim_reset() does not put right.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let n = domains.cpus.len();
        let mut cpu_domain = vec![0u16; domains.nr_cpu_ids];
        for (cpu, domain) in domains.domain_of_cpu() {
            cpu_domain[cpu] = domain as u16;
        }
        let distances: Vec<u8> = domains.distance.iter().flatten().copied().collect();
        let neighbours: Vec<u16> = domains.neighbours.iter().flatten().copied().collect();
        anyhow::ensure!(distances.len() == n * n, "the domains' distances are not a square");
        anyhow::ensure!(neighbours.len() == n * n.saturating_sub(1), "each domain needs all others as neighbours");
        let config = Config {
            slice_ns: config.slice_ns,
            slice_min_ns: config.slice_min_ns,
            wait_bound_ns: config.wait_bound_ns,
            migration_ns: config.migration_limits.interval_ns(),
            nr_cpu_ids: domains.nr_cpu_ids as u32,
            nr_domains: n as u32,
            without: config.without,
            smt_enabled: u32::from(domains.smt),
            sample_shift: 0,
            learn_slices: u32::from(config.learn_slices),
            rival: rival.number(),
            dear_rule: rival.dear_rule(),
            cpu_domain: cpu_domain.as_ptr(),
            domain_distance: distances.as_ptr(),
            domain_neighbours: neighbours.as_ptr(),
        };
        let kernel = Rc::new(RefCell::new(kernel));
        // SAFETY: the lock is held, so nothing else uses the C side; the vectors outlive the call, and have the lengths
        // that sim.c states. The table of operations is static.
        let ops = unsafe {
            anyhow::ensure!(sim_reset(), "out of memory");
            sim_configure(&config);
            &*sim_ops()
        };
        kfuncs::attach(&kernel);
        Ok(Self { ops, kernel, _turn: turn })
    }

    /// The kernel that it runs on. Must not be borrowed while an operation is called.
    pub fn kernel(&self) -> &RefCell<Kernel> {
        &self.kernel
    }

    /// Where the policy is; valid as long as the scheduler.
    pub fn policy(&self) -> Option<NonNull<rl_policy>> {
        // SAFETY: returns the address of a static variable.
        NonNull::new(unsafe { sim_policy() })
    }

    /// From now on log a decision with probability 2^-shift.
    pub fn set_sample_shift(&mut self, shift: u32) {
        // SAFETY: we have the turn; it sets an integer.
        unsafe { sim_set_sample_shift(shift) }
    }

    /// Counters since it was loaded, over all CPUs.
    pub fn counters(&self) -> Counters {
        let mut sum = rl_cpu_stats::default();
        // SAFETY: we have the turn; the pointer is valid for the call.
        unsafe { sim_counters(&mut sum) };
        Counters { values: sum.counters, wait_hist: sum.wait_hist }
    }

    /// Before the scheduler's code runs on a CPU.
    fn enter(&self, cpu: usize) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.this_cpu = cpu;
        // SAFETY: we have the turn, and no C runs now: nothing else uses the variable.
        unsafe {
            (&raw mut sim_context.now_ns).write(kernel.now_ns);
            (&raw mut sim_context.cpu).write(cpu as i32);
        }
    }

    /// `ops.init()`: 0, or an error number.
    pub fn init(&self) -> i32 {
        op!(self, 0, init, 0)
    }

    /// `ops.init_task()`: 0, or an error number.
    pub fn init_task(&self, cpu: usize, task: &TaskStruct) -> i32 {
        let fork = true;
        op!(self, cpu, init_task, 0, task, &fork)
    }

    /// `ops.enable()`.
    pub fn enable(&self, cpu: usize, task: &TaskStruct) {
        op!(self, cpu, enable, (), task)
    }

    /// `ops.select_cpu()`: a CPU for a waking task.
    pub fn select_cpu(&self, cpu: usize, task: &TaskStruct, prev_cpu: usize, wake_flags: u64) -> i32 {
        op!(self, cpu, select_cpu, prev_cpu as i32, task, prev_cpu as i32, wake_flags)
    }

    /// `ops.enqueue()`.
    pub fn enqueue(&self, cpu: usize, task: &TaskStruct, enq_flags: u64) {
        op!(self, cpu, enqueue, (), task, enq_flags)
    }

    /// `ops.dispatch()`: the CPU needs a task; `prev` ran on it until now.
    pub fn dispatch(&self, cpu: usize, prev: Option<&TaskStruct>) {
        let prev = prev.map_or(std::ptr::null(), std::ptr::from_ref);
        op!(self, cpu, dispatch, (), cpu as i32, prev)
    }

    /// `ops.yield()`.
    pub fn yield_task(&self, cpu: usize, task: &TaskStruct) -> bool {
        op!(self, cpu, yield_, false, task, std::ptr::null())
    }

    /// `ops.runnable()`.
    pub fn runnable(&self, cpu: usize, task: &TaskStruct, enq_flags: u64) {
        op!(self, cpu, runnable, (), task, enq_flags)
    }

    /// `ops.running()`.
    pub fn running(&self, cpu: usize, task: &TaskStruct) {
        op!(self, cpu, running, (), task)
    }

    /// `ops.stopping()`.
    pub fn stopping(&self, cpu: usize, task: &TaskStruct, runnable: bool) {
        op!(self, cpu, stopping, (), task, runnable)
    }

    /// `ops.quiescent()`.
    pub fn quiescent(&self, cpu: usize, task: &TaskStruct, deq_flags: u64) {
        op!(self, cpu, quiescent, (), task, deq_flags)
    }

    /// `ops.tick()`.
    pub fn tick(&self, cpu: usize, task: &TaskStruct) {
        op!(self, cpu, tick, (), task)
    }

    /// `ops.update_idle()`.
    pub fn update_idle(&self, cpu: usize, idle: bool) {
        op!(self, cpu, update_idle, (), cpu as i32, idle)
    }

    /// `ops.cpu_release()`.
    pub fn cpu_release(&self, cpu: usize) {
        op!(self, cpu, cpu_release, (), cpu as i32, std::ptr::null_mut())
    }

    /// `ops.set_weight()`.
    pub fn set_weight(&self, cpu: usize, task: &TaskStruct, weight: u32) {
        op!(self, cpu, set_weight, (), task, weight)
    }

    /// `ops.set_cpumask()`.
    pub fn set_cpumask(&self, cpu: usize, task: &TaskStruct) {
        op!(self, cpu, set_cpumask, (), task, &raw const task.cpus_mask)
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        kfuncs::detach();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_searched_around_the_end() {
        let all = Cpumask::of(0..1024);
        let some = Cpumask::of([3, 64, 1023]);
        for (after, next) in [(0, 3), (3, 64), (63, 64), (64, 1023), (1022, 1023), (1023, 3)] {
            assert_eq!(some.next_in_both(&all, after), Some(next), "after {after}");
        }
        assert_eq!(some.next_in_both(&Cpumask::of([4]), 0), None);
        assert_eq!(Cpumask::of([7]).next_in_both(&all, 7), Some(7), "the only one comes again");
        assert_eq!((some.count(), some.has(64), some.has(65)), (3, true, false));
    }
}
