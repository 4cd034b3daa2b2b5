// SPDX-License-Identifier: GPL-2.0-only
//! Time: what happens when, what runs how fast, and what it costs. It drives the kernel (`ext.rs`), which asks the
//! scheduler.

use std::collections::VecDeque;
use std::path::Path;
use std::ptr::NonNull;

use anyhow::{Context, Result};

use super::ext::{Ext, Switch};
use super::faults::Faults;
use super::ffi::{Cpumask, Scheduler, WAKE_SYNC};
use super::kernel::Kernel;
use super::machine::Machine;
use super::queue::{Event, Queue};
use super::report::Totals;
use super::rng::Rng;
use super::work::{Cpu, ENDLESS, FULL_Q8, Task, TaskStats, Then};
use super::workload::{Change, Inbox, Role, Workload};
use super::{SimConfig, SimError};
use crate::agent::Environment;
use crate::kernel::slots::{Publication, Publisher};
use crate::policy::{rl_event, rl_mode, rl_weights};
use crate::timeline::Trace;

/// The time at which a simulation begins, ns. Not 0, which the scheduler takes for "never".
const START_NS: u64 = 1_000_000_000;
/// Tasks begin within this, ns.
const START_SPREAD_NS: u64 = 1_000_000;
/// What a server does before it waits for requests, ns.
const START_WORK_NS: u64 = 10_000;
/// Time between two looks for tasks that starve, ns.
const WATCH_NS: u64 = 50_000_000;
/// More events than this at one time, and as many again for each CPU, are a loop.
const SAME_TIME_MAX: u64 = 10_000;

/// A simulation that runs.
pub struct Sim {
    ext: Ext,
    publisher: Publisher,
    machine: Machine,
    workload: Workload,
    seed: u64,
    starve_ns: u64,
    queue: Queue,
    now_ns: u64,
    cpus: Vec<Cpu>,
    tasks: Vec<Task>,
    inboxes: Vec<Inbox>,
    rng: Rng,
    totals: Totals,
    same_time: u64,
    trace: Option<Trace>,
    faults: Faults,
    fault_rng: Rng,
    /// Publications on their way, the oldest first.
    publications: VecDeque<Publication>,
}

impl Sim {
    /// A machine with a scheduler that decides as `first` says, and tasks that are about to begin. Waits until no other
    /// simulation is in this process.
    ///
    /// # Errors
    /// The description of machine or workload makes no sense, or the scheduler does not start.
    pub fn new(config: &SimConfig, workload: Workload, first: &Publication) -> Result<Self> {
        let machine = Machine::new(config.shape.places()?, config.costs.clone())?;
        let n = machine.places.len();
        workload.check(n)?;
        config.faults.check()?;
        let domains = machine.domains()?;
        let kernel =
            Kernel::new(machine.siblings.clone(), Rng::new(config.seed, 1), START_NS, config.events_max.max(1));
        let scheduler = Scheduler::load(&config.scheduler, config.rival, &domains, kernel)?;
        let policy: NonNull<_> = scheduler.policy().context("the scheduler has no policy")?;
        // SAFETY: a static variable of the C side, which only this scheduler uses while it is loaded; no other writer.
        let mut publisher = unsafe { Publisher::new(policy, 0) };
        publisher.publish(first);
        let mut rng = Rng::new(config.seed, 2);
        let cpus = (0..n).map(|_| Cpu::new(START_NS, rng.below(machine.costs.tick_skew_ns + 1))).collect();
        let mut sim = Self {
            ext: Ext::start(scheduler)?,
            publisher,
            seed: config.seed,
            starve_ns: config.starve_ns,
            queue: Queue::default(),
            now_ns: START_NS,
            cpus,
            tasks: Vec::with_capacity(workload.tasks.len()),
            inboxes: (0..workload.inboxes).map(|_| Inbox::default()).collect(),
            rng,
            totals: Totals::default(),
            same_time: 0,
            trace: None,
            faults: config.faults.clone(),
            fault_rng: Rng::new(config.seed, 3),
            publications: VecDeque::new(),
            machine,
            workload,
        };
        sim.populate(n)?;
        Ok(sim)
    }

    /// Create the tasks, and plan what happens first.
    fn populate(&mut self, cpus: usize) -> Result<()> {
        for i in 0..self.workload.tasks.len() {
            let spec = self.workload.tasks[i].clone();
            let allowed: Vec<usize> = spec.allowed.clone().unwrap_or_else(|| (0..cpus).collect());
            let cpu = allowed[self.rng.below(allowed.len() as u64) as usize];
            let task = self.ext.add_task(&spec.name, spec.weight, &Cpumask::of(allowed), cpu)?;
            let work_ns = match spec.role {
                Role::Hog => ENDLESS,
                Role::Batch { run_ns, .. } | Role::Spin { run_ns } => spec.work.draw(&mut self.rng, run_ns),
                Role::Serve { .. } => START_WORK_NS,
            };
            self.ext.kernel().tasks[task].shared.working_set_kib.set(spec.working_set_kib.min(u32::MAX.into()) as u32);
            let mut new = Task::new(spec);
            new.set_work(work_ns);
            self.tasks.push(new);
            self.queue.push(START_NS + self.rng.below(START_SPREAD_NS), Event::Wake { task });
        }
        for (source, from) in self.workload.sources.iter().enumerate() {
            let at_ns = START_NS + START_SPREAD_NS + self.rng.exponential(from.interval_ns);
            self.queue.push(at_ns, Event::Arrive { source });
        }
        for (index, (after_ns, ..)) in self.workload.changes.iter().enumerate() {
            self.queue.push(START_NS + after_ns, Event::Change { index });
        }
        self.queue.push(START_NS + WATCH_NS, Event::Watch);
        self.ext.kernel().lose_events_q32 = (self.faults.lose_events * (1u64 << 32) as f64) as u64;
        self.plan_loss();
        Ok(())
    }

    /// Simulated time since the beginning, ns.
    pub fn elapsed_ns(&self) -> u64 {
        self.now_ns - START_NS
    }

    /// Record what happens from now on, with the decisions that are taken by [`Environment::poll`].
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn trace_to(&mut self, path: &Path) -> Result<()> {
        self.trace = Some(Trace::create(path, self.machine.places.iter().map(|p| p.llc).collect())?);
        Ok(())
    }

    /// End the record.
    ///
    /// # Errors
    /// It could not be written.
    pub fn end_trace(&mut self) -> Result<()> {
        self.trace.take().map_or(Ok(()), |trace| trace.finish(self.now_ns))
    }

    /// Generation of the weights in use.
    pub fn generation(&self) -> u64 {
        self.publisher.generation()
    }

    /// How many CPUs it has.
    pub fn cpus(&self) -> usize {
        self.cpus.len()
    }

    /// What was counted so far.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// What a task got so far; none if it does not exist.
    pub fn task_stats(&self, task: usize) -> Option<TaskStats> {
        self.tasks.get(task).map(Task::stats)
    }

    /// Give a task random work with this mean, ns.
    fn give_work(&mut self, task: usize, mean_ns: u64) {
        let work_ns = self.tasks[task].spec.work.draw(&mut self.rng, mean_ns);
        self.tasks[task].set_work(work_ns);
    }

    /// The scheduler: its counters, and how it samples.
    pub fn scheduler_mut(&mut self) -> &mut Scheduler {
        self.ext.scheduler_mut()
    }

    /// Let this much time pass, ns.
    ///
    /// # Errors
    /// A task starves, the machine makes no progress, a task runs where it may not, or the scheduler does what the
    /// kernel would end it for. The simulation cannot go on then.
    pub fn run_for(&mut self, ns: u64) -> Result<(), SimError> {
        let end_ns = self.now_ns + ns;
        while let Some((at_ns, event)) = self.queue.pop(end_ns) {
            self.same_time = if at_ns == self.now_ns { self.same_time + 1 } else { 0 };
            if self.same_time > SAME_TIME_MAX * (1 + self.cpus.len() as u64) {
                return Err(SimError::Stalled { at_ns: self.elapsed_ns(), seed: self.seed });
            }
            self.set_time(at_ns);
            self.totals.event(at_ns, event.code());
            self.happen(event)?;
            if let Some(message) = self.ext.kernel().error.take() {
                return Err(SimError::Scheduler { message, at_ns: self.elapsed_ns(), seed: self.seed });
            }
        }
        self.set_time(end_ns);
        for cpu in 0..self.cpus.len() {
            self.progress(cpu);
        }
        Ok(())
    }

    fn set_time(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        self.ext.kernel().now_ns = now_ns;
    }

    fn happen(&mut self, event: Event) -> Result<(), SimError> {
        match event {
            Event::Resched { cpu } => {
                if self.cpus[cpu].resched_at_ns == Some(self.now_ns) && !self.is_taken(cpu) {
                    self.schedule(cpu, false)?;
                }
            }
            Event::Done { cpu, plan } => {
                if self.cpus[cpu].plan == plan
                    && let Some(task) = self.cpus[cpu].curr
                {
                    self.done(cpu, task)?;
                }
            }
            Event::Tick { cpu } => self.tick(cpu),
            Event::Wake { task } => {
                let cpu = self.ext.kernel().tasks[task].shared.cpu();
                if let Role::Batch { run_ns, .. } = self.tasks[task].spec.role
                    && !self.tasks[task].new
                {
                    self.give_work(task, run_ns);
                    self.tasks[task].request_at_ns = Some(self.now_ns);
                }
                self.wake(task, cpu, false, true);
            }
            Event::Arrive { source } => {
                let from = self.workload.sources[source];
                let next_ns = self.now_ns + self.rng.exponential(from.interval_ns);
                self.queue.push(next_ns, Event::Arrive { source });
                let cpu = self.rng.below(self.cpus.len() as u64) as usize;
                self.deliver(from.inbox, self.now_ns, cpu, false, true);
            }
            Event::Change { index } => self.change(index)?,
            Event::Watch => self.watch()?,
            Event::Publish => {
                if let Some(publication) = self.publications.pop_front() {
                    self.publisher.publish(&publication);
                }
            }
            Event::TakeCpu => self.take_cpu()?,
            Event::ReturnCpu { cpu } => {
                let switch = self.ext.return_cpu(cpu);
                self.switched(cpu, switch)?;
            }
        }
        Ok(())
    }

    /// Account what a CPU did since it was last looked at.
    fn progress(&mut self, cpu: usize) {
        let state = &mut self.cpus[cpu];
        let elapsed_ns = self.now_ns - state.since_ns;
        state.since_ns = self.now_ns;
        let Some(task) = state.curr else { return };
        self.tasks[task].progress(elapsed_ns, state.speed_q8);
        self.totals.busy_ns += elapsed_ns;
    }

    /// Plan when what runs on the CPU has done its work. After [`Sim::progress`].
    fn plan(&mut self, cpu: usize) {
        let state = &mut self.cpus[cpu];
        state.plan = state.plan.wrapping_add(1);
        let Some(task) = state.curr else { return };
        if let Some(needs_ns) = self.tasks[task].needs_ns(state.speed_q8) {
            self.queue.push(self.now_ns + needs_ns, Event::Done { cpu, plan: state.plan });
        }
    }

    /// The CPUs of a core share it: set their speeds.
    fn share_core(&mut self, cpu: usize) {
        for i in 0..self.machine.siblings[cpu].len() {
            let s = self.machine.siblings[cpu][i];
            let shared = self.machine.siblings[cpu].iter().any(|&o| o != s && self.cpus[o].curr.is_some());
            let speed_q8 = if shared { self.machine.costs.smt_q8 } else { FULL_Q8 };
            if s == cpu {
                self.cpus[s].speed_q8 = speed_q8;
            } else if self.cpus[s].speed_q8 != speed_q8 {
                self.progress(s);
                self.cpus[s].speed_q8 = speed_q8;
                self.plan(s);
            }
        }
    }

    /// CPUs that must schedule learn it: at once on this CPU, later elsewhere. `interrupt`: this one may have slept.
    fn notify(&mut self, from_cpu: usize, interrupt: bool) {
        let rescheds = std::mem::take(&mut self.ext.kernel().rescheds);
        for &cpu in &rescheds {
            let idle = self.cpus[cpu].curr.is_none();
            let travel_ns = if cpu == from_cpu { 0 } else { self.machine.costs.ipi_ns };
            let exit_ns = if idle && (interrupt || cpu != from_cpu) { self.machine.costs.idle_exit_ns } else { 0 };
            let at_ns = self.now_ns + travel_ns + exit_ns;
            if self.cpus[cpu].resched_at_ns.is_none_or(|planned_ns| planned_ns > at_ns) {
                self.cpus[cpu].resched_at_ns = Some(at_ns);
                self.queue.push(at_ns, Event::Resched { cpu });
            }
        }
        // Give the list back for its memory.
        let mut kernel = self.ext.kernel();
        kernel.rescheds = rescheds;
        kernel.rescheds.clear();
    }

    fn schedule(&mut self, cpu: usize, blocks: bool) -> Result<(), SimError> {
        self.cpus[cpu].resched_at_ns = None;
        self.progress(cpu);
        let switch = self.ext.schedule(cpu, blocks);
        self.switched(cpu, switch)
    }

    /// A CPU has scheduled: what that costs.
    fn switched(&mut self, cpu: usize, switch: Switch) -> Result<(), SimError> {
        self.cpus[cpu].curr = switch.next;
        if switch.prev != switch.next {
            if let Some(trace) = &mut self.trace {
                trace.switch(cpu, switch.next.map(|task| self.tasks[task].spec.name.as_str()), self.now_ns);
            }
            if let Some(prev) = switch.prev {
                self.tasks[prev].warmth.left(&self.machine, cpu, self.now_ns);
            }
            if let Some(next) = switch.next {
                self.begin(cpu, next, switch)?;
            }
            if switch.prev.is_none() != switch.next.is_none() {
                self.share_core(cpu);
            }
            self.plan(cpu);
        }
        self.notify(cpu, false);
        Ok(())
    }

    /// A task begins to run.
    fn begin(&mut self, cpu: usize, next: usize, switch: Switch) -> Result<(), SimError> {
        if !self.ext.kernel().allowed(next, cpu) {
            let (task, at_ns) = (self.tasks[next].spec.name.clone(), self.elapsed_ns());
            return Err(SimError::Affinity { task, cpu, at_ns, seed: self.seed });
        }
        let task = &mut self.tasks[next];
        let moved = task.warmth.llc(&self.machine).is_some_and(|llc| llc != self.machine.places[cpu].llc);
        let refill_ns = task.refill_ns(&self.machine, cpu, self.now_ns);
        let llc_of = |cpu: usize| self.machine.places[cpu].llc;
        let taken = switch.taken_from.is_some_and(|from| llc_of(from) != llc_of(cpu));
        let take_ns = if taken { self.machine.costs.take_ns } else { 0 };
        task.charge(self.machine.costs.switch_ns + refill_ns + take_ns);
        task.count_run(switch.waited_ns, moved, refill_ns);
        self.totals.run(cpu, next, switch.waited_ns, moved, refill_ns);
        if !self.cpus[cpu].ticking {
            self.cpus[cpu].ticking = true;
            self.plan_tick(cpu);
        }
        Ok(())
    }

    fn plan_tick(&mut self, cpu: usize) {
        let (period_ns, phase_ns) = (self.machine.costs.tick_ns.max(1), self.cpus[cpu].tick_phase_ns);
        let at_ns = (self.now_ns.saturating_sub(phase_ns) / period_ns + 1) * period_ns + phase_ns;
        self.queue.push(at_ns, Event::Tick { cpu });
    }

    fn tick(&mut self, cpu: usize) {
        if self.cpus[cpu].curr.is_none() {
            self.cpus[cpu].ticking = false;
            return;
        }
        self.progress(cpu);
        self.ext.tick(cpu);
        self.notify(cpu, false);
        self.plan_tick(cpu);
    }

    /// Wake a task from a CPU, which pays for that. `interrupt`: not by what runs there.
    fn wake(&mut self, task: usize, from_cpu: usize, sync: bool, interrupt: bool) {
        let new = std::mem::replace(&mut self.tasks[task].new, false);
        self.ext.wake(task, from_cpu, new, if sync { WAKE_SYNC } else { 0 });
        self.totals.wakeups += 1;
        if let Some(waker) = self.cpus[from_cpu].curr {
            self.progress(from_cpu);
            self.tasks[waker].charge(self.machine.costs.wakeup_ns);
            self.plan(from_cpu);
        }
        self.notify(from_cpu, interrupt);
    }

    /// Put a request into an inbox, and wake a task that waits for it.
    fn deliver(&mut self, inbox: usize, arrived_ns: u64, from_cpu: usize, sync: bool, interrupt: bool) {
        match self.inboxes[inbox].sleepers.pop_front() {
            None => self.inboxes[inbox].requests.push_back(arrived_ns),
            Some(task) => {
                self.take_request(task, arrived_ns);
                self.wake(task, from_cpu, sync, interrupt);
            }
        }
    }

    fn take_request(&mut self, task: usize, arrived_ns: u64) {
        if let Role::Serve { work_ns, .. } = self.tasks[task].spec.role {
            self.give_work(task, work_ns);
            self.tasks[task].request_at_ns = Some(arrived_ns);
            self.tasks[task].then = Then::Finish;
        }
    }

    /// A task has done its work.
    fn done(&mut self, cpu: usize, task: usize) -> Result<(), SimError> {
        self.progress(cpu);
        match (self.tasks[task].spec.role, self.tasks[task].then) {
            (Role::Hog, _) => Ok(()),
            (Role::Spin { run_ns }, _) => {
                self.give_work(task, run_ns);
                self.ext.yield_task(cpu);
                self.schedule(cpu, false)?;
                if self.cpus[cpu].curr == Some(task) {
                    self.plan(cpu);
                }
                Ok(())
            }
            (Role::Batch { sleep_ns, .. }, _) => {
                if let Some(woken_ns) = self.tasks[task].request_at_ns.take() {
                    self.totals.respond(self.tasks[task].spec.kind, self.now_ns - woken_ns);
                }
                let wakes_ns = self.now_ns + self.rng.exponential(sleep_ns);
                self.queue.push(wakes_ns, Event::Wake { task });
                self.schedule(cpu, true)
            }
            (Role::Serve { inbox, next, .. }, Then::Finish) => {
                if let Some(arrived_ns) = self.tasks[task].request_at_ns.take() {
                    match next {
                        None => self.totals.respond(self.tasks[task].spec.kind, self.now_ns - arrived_ns),
                        Some(next) => {
                            let sleeps = self.inboxes[inbox].requests.is_empty();
                            self.deliver(next, arrived_ns, cpu, sleeps, false);
                        }
                    }
                }
                self.tasks[task].then = Then::Rest;
                if self.tasks[task].has_paid() {
                    return self.done(cpu, task);
                }
                self.plan(cpu);
                Ok(())
            }
            (Role::Serve { inbox, .. }, Then::Rest) => match self.inboxes[inbox].requests.pop_front() {
                Some(arrived_ns) => {
                    self.take_request(task, arrived_ns);
                    self.plan(cpu);
                    Ok(())
                }
                None => {
                    self.inboxes[inbox].sleepers.push_back(task);
                    self.schedule(cpu, true)
                }
            },
        }
    }

    fn change(&mut self, index: usize) -> Result<(), SimError> {
        let (_, task, change) = self.workload.changes[index].clone();
        let from_cpu = 0;
        let must_leave = match change {
            Change::Weight(weight) => {
                self.ext.set_weight(from_cpu, task, weight);
                None
            }
            Change::Affinity(cpus) => self.ext.set_affinity(from_cpu, task, &Cpumask::of(cpus)),
        };
        self.notify(from_cpu, true);
        match must_leave {
            Some(cpu) => {
                self.cpus[cpu].resched_at_ns = None;
                self.progress(cpu);
                let switch = self.ext.evict(cpu);
                self.switched(cpu, switch)
            }
            None => Ok(()),
        }
    }

    /// The kernel's watchdog, and stricter.
    fn watch(&mut self) -> Result<(), SimError> {
        self.queue.push(self.now_ns + WATCH_NS, Event::Watch);
        let kernel = self.ext.kernel();
        let starving =
            kernel.tasks.iter().position(|t| t.runnable_at_ns > 0 && self.now_ns - t.runnable_at_ns > self.starve_ns);
        match starving {
            None => Ok(()),
            Some(task) => Err(SimError::Starved {
                task: self.tasks[task].spec.name.clone(),
                waited_ns: self.now_ns - kernel.tasks[task].runnable_at_ns,
                at_ns: self.elapsed_ns(),
                seed: self.seed,
            }),
        }
    }

    /// Plan the next loss of a CPU, if CPUs are lost at all.
    fn plan_loss(&mut self) {
        if self.faults.lose_cpu_every_ns > 0 {
            let after_ns = self.fault_rng.exponential(self.faults.lose_cpu_every_ns);
            self.queue.push(self.now_ns + after_ns, Event::TakeCpu);
        }
    }

    fn is_taken(&self, cpu: usize) -> bool {
        self.ext.kernel().cpus[cpu].taken
    }

    /// A higher class takes a CPU, any that it does not have.
    fn take_cpu(&mut self) -> Result<(), SimError> {
        self.plan_loss();
        let cpu = self.fault_rng.below(self.cpus.len() as u64) as usize;
        if self.is_taken(cpu) {
            return Ok(());
        }
        let for_ns = self.fault_rng.exponential(self.faults.lose_cpu_for_ns);
        self.queue.push(self.now_ns + for_ns, Event::ReturnCpu { cpu });
        self.cpus[cpu].resched_at_ns = None;
        self.progress(cpu);
        let switch = self.ext.take_cpu(cpu);
        self.switched(cpu, switch)
    }

    /// The kernel's state, to break things.
    #[cfg(test)]
    pub(super) fn kernel(&self) -> std::cell::RefMut<'_, Kernel> {
        self.ext.kernel()
    }
}

impl Environment for Sim {
    fn poll(&mut self, out: &mut Vec<rl_event>) -> Result<()> {
        let events: VecDeque<rl_event> = std::mem::take(&mut self.ext.kernel().events);
        if let Some(trace) = &mut self.trace {
            events.iter().for_each(|event| trace.decision(event));
        }
        out.extend(events);
        Ok(())
    }

    fn publish(&mut self, weights: &rl_weights, mode: rl_mode, floor_q16: u32) -> Result<u64> {
        let publication = Publication { mode, floor_q16, weights: *weights, ..Publication::default() };
        if self.faults.publish_delay_ns == 0 {
            return Ok(self.publisher.publish(&publication));
        }
        self.publications.push_back(publication);
        self.queue.push(self.now_ns + self.faults.publish_delay_ns, Event::Publish);
        Ok(self.publisher.generation() + self.publications.len() as u64)
    }
}
