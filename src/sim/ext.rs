// SPDX-License-Identifier: GPL-2.0-only
//! When the kernel asks the scheduler what: the order of operations of kernel/sched/core.c and ext.c (Linux 6.17), in
//! functions with the names that they have there. What they cost, and when they happen, is not known here.
//!
//! A kernel function that calls an operation must not hold the kernel's state meanwhile, as the operation asks for it.

use std::cell::RefMut;
use std::rc::Rc;

use anyhow::{Result, ensure};

use super::ffi::{
    Cpumask, DEQ_SLEEP, ENQ_HEAD, ENQ_REENQ, ENQ_WAKEUP, SLICE_DFL_NS, Scheduler, TASK_QUEUED, TaskStruct, WAKE_FORK,
    WAKE_TTWU,
};
use super::kernel::{Direct, Kernel};
use super::kfuncs::ORDERED;

/// `DEQUEUE_SAVE` and `ENQUEUE_RESTORE`: a task is taken out while something about it changes.
const CHANGE: u64 = 0x02;
/// The task exits: `PF_EXITING`.
const EXITING: u32 = 0x4;

/// What a CPU does after it scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch {
    /// What ran.
    pub prev: Option<usize>,
    /// What runs now.
    pub next: Option<usize>,
    /// How long that had waited, ns.
    pub waited_ns: u64,
    /// The CPU whose queues it was taken from, if it was.
    pub taken_from: Option<usize>,
}

/// The kernel with its scheduler.
pub struct Ext {
    scheduler: Scheduler,
}

impl Ext {
    /// Starts the scheduler.
    ///
    /// # Errors
    /// It refuses.
    pub fn start(scheduler: Scheduler) -> Result<Self> {
        let status = scheduler.init();
        ensure!(status == 0, "the scheduler does not start: error {status}");
        Ok(Self { scheduler })
    }

    /// The scheduler.
    pub fn scheduler_mut(&mut self) -> &mut Scheduler {
        &mut self.scheduler
    }

    /// The kernel's state.
    pub fn kernel(&self) -> RefMut<'_, Kernel> {
        self.scheduler.kernel().borrow_mut()
    }

    fn task(&self, task: usize) -> Rc<TaskStruct> {
        self.kernel().tasks[task].shared.clone()
    }

    /// A new task, which sleeps. Returns its number.
    ///
    /// # Errors
    /// The scheduler refuses it, or there is no CPU for it.
    pub fn add_task(&self, name: &str, weight: u32, allowed: &Cpumask, cpu: usize) -> Result<usize> {
        let (task, cpus) = {
            let mut kernel = self.kernel();
            (kernel.add_task(name, weight, allowed, cpu), kernel.cpus.len())
        };
        ensure!(cpu < cpus && allowed.has(cpu), "{name} is to start on CPU {cpu}, which it may not use");
        let p = self.task(task);
        let status = self.scheduler.init_task(cpu, &p);
        ensure!(status == 0, "the scheduler refuses {name}: error {status}");
        self.scheduler.enable(cpu, &p);
        self.scheduler.set_weight(cpu, &p, weight);
        Ok(task)
    }

    /// `try_to_wake_up()` from a CPU, and `wake_up_new_task()` if `new`.
    pub fn wake(&self, task: usize, from_cpu: usize, new: bool, wake_flags: u64) {
        let p = self.task(task);
        let mut cpu = p.cpu();
        if p.nr_cpus_allowed.get() > 1 && p.migration_disabled.get() == 0 {
            self.kernel().direct = Direct::Task(task);
            let flags = wake_flags | if new { WAKE_FORK } else { WAKE_TTWU };
            let chosen = self.scheduler.select_cpu(from_cpu, &p, cpu, flags);
            let mut kernel = self.kernel();
            kernel.direct = Direct::No;
            match usize::try_from(chosen) {
                Ok(chosen) if chosen < kernel.cpus.len() => cpu = chosen,
                _ => kernel.fail(format!("select_cpu chose CPU {chosen}, which does not exist")),
            }
        }
        if !p.cpus_mask.has(cpu) {
            // select_fallback_rq()
            match p.cpus_mask.next_in_both(&p.cpus_mask, cpu) {
                Some(allowed) => cpu = allowed,
                None => self.kernel().fail(format!("task {task} may use no CPU")),
            }
        }
        p.cpu.set(cpu as i32);
        self.enqueue_task(from_cpu, task, if new { 0 } else { ENQ_WAKEUP });
        self.wakeup_preempt(cpu);
        self.kernel().run_kicks();
    }

    /// A task came to a CPU that idles, if only on the way to another queue: the CPU looks.
    fn wakeup_preempt(&self, cpu: usize) {
        let mut kernel = self.kernel();
        if kernel.cpus[cpu].curr.is_none() {
            kernel.resched(cpu);
        }
    }

    /// `enqueue_task_scx()`
    fn enqueue_task(&self, from_cpu: usize, task: usize, enq_flags: u64) {
        let p = self.task(task);
        {
            let mut kernel = self.kernel();
            let now_ns = kernel.now_ns;
            kernel.tasks[task].runnable_at_ns = now_ns;
        }
        p.scx.flags.set(p.scx.flags.get() | TASK_QUEUED);
        self.scheduler.runnable(from_cpu, &p, enq_flags);
        self.do_enqueue(from_cpu, task, enq_flags);
    }

    /// `do_enqueue_task()`
    fn do_enqueue(&self, from_cpu: usize, task: usize, enq_flags: u64) {
        let p = self.task(task);
        if self.kernel().tasks[task].direct.is_none() {
            if p.flags.get() & EXITING != 0 || p.migration_disabled.get() != 0 {
                p.scx.slice_ns.set(SLICE_DFL_NS);
                return self.kernel().put(p.cpu(), task, enq_flags, None);
            }
            self.kernel().direct = Direct::Task(task);
            self.scheduler.enqueue(from_cpu, &p, enq_flags);
            self.kernel().direct = Direct::No;
        }
        let mut kernel = self.kernel();
        let Some((dsq, flags)) = kernel.tasks[task].direct.take() else {
            let name = kernel.name(task);
            return kernel.fail(format!("enqueue did not insert {name}; the simulator needs it in a queue"));
        };
        match kernel.find_dsq(dsq, p.cpu()) {
            Some(place) if place < kernel.cpus.len() && place != p.cpu() => {
                let name = kernel.name(task);
                kernel.fail(format!("{name} was sent to CPU {place} from another, which the simulator does not know"));
            }
            Some(place) => {
                let vtime = (flags & ORDERED != 0).then(|| p.scx.dsq_vtime.get());
                kernel.put(place, task, enq_flags | flags, vtime);
            }
            None => kernel.fail(format!("there is no queue {dsq:#x}")),
        }
    }

    /// `dequeue_task_scx()`
    fn dequeue_task(&self, task: usize, deq_flags: u64) {
        let p = self.task(task);
        let cpu = p.cpu();
        if p.scx.flags.get() & TASK_QUEUED == 0 {
            return;
        }
        let running = self.kernel().cpus[cpu].curr == Some(task);
        if running {
            self.kernel().update_curr(cpu);
            self.scheduler.stopping(cpu, &p, false);
        }
        self.scheduler.quiescent(cpu, &p, deq_flags);
        p.scx.flags.set(p.scx.flags.get() & !TASK_QUEUED);
        let mut kernel = self.kernel();
        kernel.unlink(task);
        kernel.tasks[task].direct = None;
        kernel.tasks[task].runnable_at_ns = 0;
    }

    /// `__schedule()` on a CPU; `blocks`: what runs goes to sleep.
    pub fn schedule(&self, cpu: usize, blocks: bool) -> Switch {
        let prev = self.kernel().cpus[cpu].curr;
        if let (Some(task), true) = (prev, blocks) {
            self.dequeue_task(task, DEQ_SLEEP);
        }
        let next = self.pick_task(cpu, prev);
        if next != prev {
            self.put_prev(cpu, prev, next.is_some());
            return self.switch_to(cpu, prev, next);
        }
        if next.is_none() {
            // pick_task_idle(): it may have been claimed in vain
            self.kernel().idle.update(cpu, true);
        }
        self.kernel().run_kicks();
        Switch { prev, next, waited_ns: 0, taken_from: None }
    }

    /// The end of `__schedule()`, where the CPU changes to something else.
    fn switch_to(&self, cpu: usize, prev: Option<usize>, next: Option<usize>) -> Switch {
        let (waited_ns, taken_from) = next.map_or((0, None), |task| {
            let mut kernel = self.kernel();
            let (now_ns, task) = (kernel.now_ns, &mut kernel.tasks[task]);
            (now_ns - task.runnable_at_ns, task.taken_from.take())
        });
        self.set_next(cpu, next);
        let mut kernel = self.kernel();
        kernel.cpus[cpu].curr = next;
        kernel.run_kicks();
        Switch { prev, next, waited_ns, taken_from }
    }

    /// `balance_one()` and `pick_task_scx()`
    fn pick_task(&self, cpu: usize, prev: Option<usize>) -> Option<usize> {
        let p = prev.map(|task| self.task(task));
        let queued = p.as_ref().is_some_and(|p| p.scx.flags.get() & TASK_QUEUED != 0);
        let slice_left = || queued && p.as_ref().is_some_and(|p| p.scx.slice_ns.get() > 0);
        {
            let mut kernel = self.kernel();
            kernel.cpus[cpu].in_balance = true;
            kernel.update_curr(cpu);
        }
        let keep = slice_left()
            || !self.has_local(cpu) && {
                self.scheduler.dispatch(cpu, p.as_deref());
                slice_left() || !self.has_local(cpu) && queued
            };
        let mut kernel = self.kernel();
        kernel.cpus[cpu].in_balance = false;
        let next = if keep { prev } else { kernel.dsq(cpu).get(0) };
        if let Some(task) = next {
            let slice = &kernel.tasks[task].shared.scx.slice_ns;
            if slice.get() == 0 {
                slice.set(SLICE_DFL_NS);
            }
        }
        next
    }

    /// Has the CPU a task in its local queue, or got one from the global one?
    fn has_local(&self, cpu: usize) -> bool {
        let mut kernel = self.kernel();
        let global = kernel.global();
        !kernel.dsq(cpu).is_empty() || kernel.consume(global, cpu, 0)
    }

    /// `put_prev_task_scx()`, `put_prev_task_idle()`
    fn put_prev(&self, cpu: usize, prev: Option<usize>, something_runs: bool) {
        let Some(task) = prev else {
            if something_runs {
                self.kernel().idle.update(cpu, false);
                self.scheduler.update_idle(cpu, false);
            }
            return;
        };
        let p = self.task(task);
        if p.scx.flags.get() & TASK_QUEUED == 0 {
            return;
        }
        self.kernel().update_curr(cpu);
        self.scheduler.stopping(cpu, &p, true);
        {
            let mut kernel = self.kernel();
            let now_ns = kernel.now_ns;
            kernel.tasks[task].runnable_at_ns = now_ns;
            if p.scx.slice_ns.get() > 0 {
                return kernel.put(cpu, task, ENQ_HEAD, None);
            }
        }
        self.do_enqueue(cpu, task, 0);
    }

    /// `set_next_task_scx()`, `set_next_task_idle()`
    fn set_next(&self, cpu: usize, next: Option<usize>) {
        let Some(task) = next else {
            self.kernel().idle.update(cpu, true);
            return self.scheduler.update_idle(cpu, true);
        };
        let p = self.task(task);
        {
            let mut kernel = self.kernel();
            kernel.unlink(task);
            kernel.cpus[cpu].exec_start_ns = kernel.now_ns;
        }
        self.scheduler.running(cpu, &p);
        self.kernel().tasks[task].runnable_at_ns = 0;
    }

    /// A higher scheduling class takes the CPU: `put_prev_task_scx()`, `switch_class()`.
    pub fn take_cpu(&self, cpu: usize) -> Switch {
        let prev = self.kernel().cpus[cpu].curr;
        self.put_prev(cpu, prev, true);
        {
            let mut kernel = self.kernel();
            kernel.cpus[cpu].curr = None;
            kernel.cpus[cpu].taken = true;
        }
        self.scheduler.cpu_release(cpu);
        let again: Vec<usize> = {
            let mut kernel = self.kernel();
            let asked = kernel.reenqueue.take();
            let local: Vec<usize> = asked.map_or(Vec::new(), |cpu| kernel.dsq(cpu).iter().collect());
            local.iter().for_each(|&task| kernel.unlink(task));
            local
        };
        for task in again {
            self.do_enqueue(cpu, task, ENQ_REENQ);
        }
        self.kernel().run_kicks();
        Switch { prev, next: None, waited_ns: 0, taken_from: None }
    }

    /// The higher class has done, and the CPU schedules.
    pub fn return_cpu(&self, cpu: usize) -> Switch {
        self.kernel().cpus[cpu].taken = false;
        let next = self.pick_task(cpu, None);
        self.switch_to(cpu, None, next)
    }

    /// `task_tick_scx()`
    pub fn tick(&self, cpu: usize) {
        let Some(task) = self.kernel().cpus[cpu].curr else { return };
        let p = self.task(task);
        self.kernel().update_curr(cpu);
        self.scheduler.tick(cpu, &p);
        let mut kernel = self.kernel();
        if p.scx.slice_ns.get() == 0 {
            kernel.resched(cpu);
        }
        kernel.run_kicks();
    }

    /// `yield_task_scx()`; the CPU schedules after that.
    pub fn yield_task(&self, cpu: usize) {
        let Some(task) = self.kernel().cpus[cpu].curr else { return };
        let p = self.task(task);
        self.kernel().update_curr(cpu);
        self.scheduler.yield_task(cpu, &p);
    }

    /// Change something about a task, which is taken out of its queue meanwhile: `sched_change` of core.c.
    fn change(&self, from_cpu: usize, task: usize, change: impl FnOnce(&TaskStruct)) {
        let p = self.task(task);
        let cpu = p.cpu();
        let queued = p.scx.flags.get() & TASK_QUEUED != 0;
        let running = self.kernel().cpus[cpu].curr == Some(task);
        // It has waited since then, whatever changes meanwhile.
        let since_ns = self.kernel().tasks[task].runnable_at_ns;
        self.dequeue_task(task, CHANGE);
        change(&p);
        if !queued {
            return;
        }
        if running {
            // Restored as what runs: to the local queue, and out of it at once.
            p.scx.flags.set(p.scx.flags.get() | TASK_QUEUED);
            self.scheduler.runnable(from_cpu, &p, CHANGE);
            return self.set_next(cpu, Some(task));
        }
        if !p.cpus_mask.has(cpu)
            && let Some(allowed) = p.cpus_mask.next_in_both(&p.cpus_mask, cpu)
        {
            p.cpu.set(allowed as i32);
        }
        self.enqueue_task(from_cpu, task, CHANGE);
        self.kernel().tasks[task].runnable_at_ns = since_ns;
        self.wakeup_preempt(p.cpu());
    }

    /// Another nice value or cgroup weight.
    pub fn set_weight(&self, from_cpu: usize, task: usize, weight: u32) {
        self.change(from_cpu, task, |p| {
            p.scx.weight.set(weight);
            self.scheduler.set_weight(from_cpu, p, weight);
        });
        self.kernel().run_kicks();
    }

    /// Other CPUs. Returns the CPU that must be rid of the task at once ([`Ext::evict`]), if it runs where it may not.
    pub fn set_affinity(&self, from_cpu: usize, task: usize, allowed: &Cpumask) -> Option<usize> {
        self.change(from_cpu, task, |p| {
            p.allow(allowed);
            self.scheduler.set_cpumask(from_cpu, p);
        });
        let mut kernel = self.kernel();
        kernel.run_kicks();
        let cpu = kernel.tasks[task].shared.cpu();
        (kernel.cpus[cpu].curr == Some(task) && !kernel.allowed(task, cpu)).then_some(cpu)
    }

    /// `migration_cpu_stop()`: what runs on the CPU is put on one that it may use, and the CPU schedules. (The stopper
    /// thread is of a higher class, so the kernel would also call cpu_release; that is left out.)
    pub fn evict(&self, cpu: usize) -> Switch {
        let prev = self.kernel().cpus[cpu].curr;
        if let Some(task) = prev {
            let p = self.task(task);
            self.kernel().update_curr(cpu);
            self.scheduler.stopping(cpu, &p, true);
            let allowed = p.cpus_mask.next_in_both(&p.cpus_mask, cpu).unwrap_or(cpu);
            {
                let mut kernel = self.kernel();
                let now_ns = kernel.now_ns;
                kernel.tasks[task].runnable_at_ns = now_ns;
                p.cpu.set(allowed as i32);
            }
            self.do_enqueue(cpu, task, 0);
            self.wakeup_preempt(allowed);
        }
        let next = self.pick_task(cpu, None);
        self.switch_to(cpu, prev, next)
    }
}
