// SPDX-License-Identifier: GPL-2.0-only
//! What the simulated kernel knows, and the part of kernel/sched/ext.c that only changes it: queues, moves between
//! them, kicks. What calls the scheduler is in `ext.rs`; so functions here may be called from within the scheduler.

use std::collections::VecDeque;
use std::rc::Rc;

use super::dsq::Dsq;
use super::ffi::{
    Cpumask, DSQ_BUILTIN, DSQ_GLOBAL, DSQ_LOCAL, DSQ_LOCAL_ON, ENQ_HEAD, ENQ_PREEMPT, KICK_IDLE, KICK_PREEMPT,
    TaskStruct,
};
use super::idle::IdleMasks;
use super::rng::Rng;
use crate::policy::rl_event;

/// Ids of the scheduler's own queues are below this.
const USER_DSQS: usize = 1 << 12;

/// Where a task may insert itself while an operation runs: `direct_dispatch_task` of ext.c.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direct {
    /// Not in select_cpu or enqueue.
    No,
    /// This task, and it has not been inserted yet.
    Task(usize),
    /// It has been inserted.
    Done,
}

/// A task, as the kernel sees it.
pub struct Task {
    /// What C sees of it.
    pub shared: Rc<TaskStruct>,
    /// It waits or runs since then, without a time on CPU in between, ns; 0: neither, or it runs.
    pub runnable_at_ns: u64,
    /// The queue it is in, by its place in `Kernel::dsqs`.
    dsq: Option<usize>,
    /// Its number of arrival there.
    dsq_seq: u64,
    /// Where select_cpu or enqueue inserted it: queue and flags. It gets there when that operation is over.
    pub direct: Option<(u64, u64)>,
    /// The last move took it to another CPU's queue, from this CPU. Taken by who runs it.
    pub taken_from: Option<usize>,
}

/// A CPU, as the kernel sees it.
#[derive(Debug, Default)]
pub struct Cpu {
    /// The task that runs, if one does.
    pub curr: Option<usize>,
    /// Its slice is used up to here, ns.
    pub exec_start_ns: u64,
    /// It looks for a task.
    pub in_balance: bool,
    /// A higher scheduling class has it.
    pub taken: bool,
}

/// The state of the simulated kernel.
pub struct Kernel {
    /// Simulated time, ns. Never 0, which the scheduler takes for "never".
    pub now_ns: u64,
    /// The CPU on which the scheduler's code runs.
    pub this_cpu: usize,
    /// Whether what is inserted now is a direct dispatch.
    pub direct: Direct,
    /// All CPUs.
    pub cpus: Vec<Cpu>,
    /// All tasks.
    pub tasks: Vec<Task>,
    /// The idle task: what runs where nothing does.
    pub idle_task: Rc<TaskStruct>,
    /// Idle CPUs.
    pub idle: IdleMasks,
    /// CPUs that must schedule: `resched_curr()`. Taken by who drives the CPUs.
    pub rescheds: Vec<usize>,
    /// Kicks: CPU and flags. They take effect when the operation is over.
    kicks: Vec<(usize, u64)>,
    /// What the scheduler reported, or did wrong: it ends the simulation.
    pub error: Option<String>,
    /// The local queue of this CPU is to be queued anew, once the operation that asked for it is over.
    pub reenqueue: Option<usize>,
    /// Share of events that are lost, in 2^-32.
    pub lose_events_q32: u64,
    /// Events for the agent.
    pub events: VecDeque<rl_event>,
    /// At most this many; more are lost, which the scheduler counts.
    pub events_max: usize,
    /// The record that is being written.
    pub record: Box<rl_event>,
    /// Random numbers for the scheduler.
    pub rng: Rng,
    /// Those for faults: a fault must not change what the scheduler draws.
    pub fault_rng: Rng,
    /// Where each CPU's last search of a mask ended: `distribute_cpu_mask_prev`.
    pub last_picked: Vec<usize>,
    /// Local queues by CPU, then the global one, then the scheduler's.
    dsqs: Vec<Dsq>,
    /// The place of the scheduler's queues, by id.
    user_dsqs: Vec<Option<usize>>,
    /// A queue whose tasks nobody gets, to provoke starvation in tests.
    #[cfg(test)]
    pub broken_dsq: Option<u64>,
}

impl Kernel {
    /// An idle machine without tasks. `siblings`: the CPUs of each CPU's core, itself included.
    pub fn new(siblings: Vec<Vec<usize>>, rng: Rng, now_ns: u64, events_max: usize) -> Self {
        let n = siblings.len();
        Self {
            now_ns,
            this_cpu: 0,
            direct: Direct::No,
            cpus: (0..n).map(|_| Cpu::default()).collect(),
            tasks: Vec::new(),
            idle_task: TaskStruct::new(0, "swapper", 1, &Cpumask::of(0..n), 0),
            idle: IdleMasks::new(siblings),
            rescheds: Vec::new(),
            kicks: Vec::new(),
            error: None,
            reenqueue: None,
            lose_events_q32: 0,
            events: VecDeque::new(),
            events_max,
            record: Box::default(),
            fault_rng: rng.clone(),
            rng,
            last_picked: (0..n).collect(),
            dsqs: (0..=n).map(|_| Dsq::default()).collect(),
            user_dsqs: Vec::new(),
            #[cfg(test)]
            broken_dsq: None,
        }
    }

    /// Note an error of the scheduler; the first one counts.
    pub fn fail(&mut self, message: impl Into<String>) {
        self.error.get_or_insert_with(|| message.into());
    }

    /// The number of a task that C names by its pid.
    pub fn number(&self, pid: i32) -> Option<usize> {
        usize::try_from(pid).ok()?.checked_sub(1).filter(|&task| task < self.tasks.len())
    }

    /// The name and pid of a task, for messages.
    pub fn name(&self, task: usize) -> String {
        format!("task {task} (pid {})", self.tasks[task].shared.pid.get())
    }

    /// May the task run on the CPU?
    pub fn allowed(&self, task: usize, cpu: usize) -> bool {
        cpu < self.cpus.len() && self.tasks[task].shared.cpus_mask.has(cpu)
    }

    /// `scx_bpf_create_dsq()`: 0, or an error number.
    pub fn create_dsq(&mut self, id: u64) -> i32 {
        let i = id as usize;
        if id & DSQ_BUILTIN != 0 || i >= USER_DSQS {
            return -libc::EINVAL;
        }
        if self.user_dsqs.len() <= i {
            self.user_dsqs.resize(i + 1, None);
        }
        if self.user_dsqs[i].is_some() {
            return -libc::EEXIST;
        }
        self.user_dsqs[i] = Some(self.dsqs.len());
        self.dsqs.push(Dsq::default());
        0
    }

    /// The place of a queue, as seen from a CPU: `find_dsq_for_dispatch()`.
    pub fn find_dsq(&self, id: u64, cpu: usize) -> Option<usize> {
        if id & DSQ_BUILTIN == 0 {
            return self.user_dsqs.get(id as usize).copied().flatten();
        }
        let on = (id & 0xffff_ffff) as usize;
        match id {
            DSQ_LOCAL => Some(cpu),
            DSQ_GLOBAL => Some(self.global()),
            _ if id & DSQ_LOCAL_ON == DSQ_LOCAL_ON && on < self.cpus.len() => Some(on),
            _ => None,
        }
    }

    /// The place of the global queue.
    pub fn global(&self) -> usize {
        self.cpus.len()
    }

    /// A queue, by its place.
    pub fn dsq(&self, place: usize) -> &Dsq {
        &self.dsqs[place]
    }

    /// The number of arrival of a task in a queue, if it is in that.
    pub fn arrival(&self, task: usize, place: usize) -> Option<u64> {
        (self.tasks[task].dsq == Some(place)).then_some(self.tasks[task].dsq_seq)
    }

    /// `dispatch_enqueue()`: put a task that is in no queue into one. `vtime`: by this key.
    pub fn put(&mut self, place: usize, task: usize, enq_flags: u64, vtime: Option<u64>) {
        let arrival = match vtime {
            None => self.dsqs[place].push(task, enq_flags & (ENQ_HEAD | ENQ_PREEMPT) != 0),
            Some(_) if place <= self.global() => None,
            Some(vtime) => self.dsqs[place].insert(task, vtime),
        };
        let Some(seq) = arrival else {
            return self.fail(format!("{} was inserted by virtual time into a queue without, or not", self.name(task)));
        };
        self.tasks[task].dsq = Some(place);
        self.tasks[task].dsq_seq = seq;
        if place < self.cpus.len() {
            self.after_local(place, task, enq_flags);
        }
    }

    /// `local_dsq_post_enq()`: a task has come into a CPU's local queue.
    fn after_local(&mut self, cpu: usize, task: usize, enq_flags: u64) {
        if self.cpus[cpu].in_balance {
            return;
        }
        match self.cpus[cpu].curr {
            None => self.resched(cpu),
            Some(curr) if enq_flags & ENQ_PREEMPT != 0 && curr != task => {
                self.tasks[curr].shared.scx.slice_ns.set(0);
                self.resched(cpu);
            }
            Some(_) => {}
        }
    }

    /// `dispatch_dequeue()`: take a task out of the queue it is in, if any.
    pub fn unlink(&mut self, task: usize) {
        if let Some(place) = self.tasks[task].dsq.take() {
            let vtime = self.tasks[task].shared.scx.dsq_vtime.get();
            if !self.dsqs[place].remove(task, vtime) {
                self.fail(format!("{} is not in its queue: its virtual time was changed there", self.name(task)));
            }
        }
    }

    /// May a CPU that a task is not on take it? `task_can_run_on_remote_rq()`.
    fn can_take(&self, task: usize, cpu: usize) -> bool {
        self.tasks[task].shared.migration_disabled.get() == 0 && self.allowed(task, cpu)
    }

    /// Move a task from a queue to a CPU's local queue.
    fn move_local(&mut self, task: usize, cpu: usize, enq_flags: u64) {
        self.unlink(task);
        let from = self.tasks[task].shared.cpu();
        if from != cpu {
            self.tasks[task].shared.cpu.set(cpu as i32);
            self.tasks[task].taken_from = Some(from);
        }
        self.put(cpu, task, enq_flags, None);
    }

    /// `consume_dispatch_q()`: take the first task of a queue that may run on the CPU.
    pub fn consume(&mut self, place: usize, cpu: usize, enq_flags: u64) -> bool {
        #[cfg(test)]
        if self.broken_dsq.is_some_and(|id| self.find_dsq(id, cpu) == Some(place)) {
            return false;
        }
        let mine = |task: usize| self.tasks[task].shared.cpu() == cpu || self.can_take(task, cpu);
        let Some(task) = self.dsqs[place].iter().find(|&task| mine(task)) else { return false };
        self.move_local(task, cpu, enq_flags);
        true
    }

    /// `scx_bpf_dsq_move()`: move a task that an iterator over `from` has found, which began when `seq` had arrived.
    pub fn move_found(&mut self, task: usize, from: usize, seq: u64, to: u64, enq_flags: u64) -> bool {
        let cpu = self.this_cpu;
        if self.arrival(task, from).is_none_or(|arrived| arrived > seq) {
            return false;
        }
        let Some(place) = self.find_dsq(to, cpu) else {
            self.fail(format!("there is no queue {to:#x}"));
            return false;
        };
        if place < self.cpus.len() {
            if self.tasks[task].shared.cpu() != place && !self.can_take(task, place) {
                self.fail(format!("CPU {place} was to take {}, which may not run there", self.name(task)));
                return false;
            }
            self.move_local(task, place, enq_flags);
        } else {
            self.unlink(task);
            self.put(place, task, enq_flags, None);
        }
        true
    }

    /// `resched_curr()`.
    pub fn resched(&mut self, cpu: usize) {
        self.rescheds.push(cpu);
    }

    /// `scx_bpf_kick_cpu()`.
    pub fn kick(&mut self, cpu: usize, flags: u64) {
        if cpu >= self.cpus.len() {
            return self.fail(format!("CPU {cpu} was kicked, but there are {}", self.cpus.len()));
        }
        self.kicks.push((cpu, flags));
    }

    /// `kick_cpus_irq_workfn()`: kicks take effect once the operations that made them are over.
    pub fn run_kicks(&mut self) {
        for i in 0..self.kicks.len() {
            let (cpu, flags) = self.kicks[i];
            let curr = self.cpus[cpu].curr;
            if flags & KICK_IDLE != 0 && curr.is_some() {
                continue;
            }
            if let (Some(curr), true) = (curr, flags & KICK_PREEMPT != 0) {
                self.tasks[curr].shared.scx.slice_ns.set(0);
            }
            self.resched(cpu);
        }
        self.kicks.clear();
    }

    /// `update_curr_scx()`: take what has passed off the slice of what runs.
    pub fn update_curr(&mut self, cpu: usize) {
        let now_ns = self.now_ns;
        let state = &mut self.cpus[cpu];
        let ran_ns = now_ns.saturating_sub(state.exec_start_ns);
        state.exec_start_ns = now_ns;
        if let Some(curr) = state.curr {
            let slice = &self.tasks[curr].shared.scx.slice_ns;
            slice.set(slice.get().saturating_sub(ran_ns));
        }
    }

    /// Add a task that sleeps. Returns its number.
    pub fn add_task(&mut self, name: &str, weight: u32, allowed: &Cpumask, cpu: usize) -> usize {
        let task = self.tasks.len();
        self.tasks.push(Task {
            shared: TaskStruct::new(task as i32 + 1, name, weight, allowed, cpu),
            runnable_at_ns: 0,
            dsq: None,
            dsq_seq: 0,
            direct: None,
            taken_from: None,
        });
        task
    }
}
