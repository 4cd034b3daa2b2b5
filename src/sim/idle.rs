// SPDX-License-Identifier: GPL-2.0-only
//! Which CPUs are idle, as sched_ext's built-in tracking knows it (kernel/sched/ext_idle.c).

use std::rc::Rc;

use super::ffi::{Cpumask, PICK_IDLE_CORE};

/// The idle masks of CPUs and of whole cores.
pub struct IdleMasks {
    /// Idle CPUs that nobody has claimed yet.
    pub cpus: Rc<Cpumask>,
    /// CPUs of cores that are idle as a whole.
    cores: Cpumask,
    /// The CPUs of each CPU's core, itself included.
    siblings: Vec<Vec<usize>>,
    smt: bool,
}

impl IdleMasks {
    /// All CPUs are idle. `siblings`: the CPUs of each CPU's core, itself included.
    pub fn new(siblings: Vec<Vec<usize>>) -> Self {
        let all = || Cpumask::of(0..siblings.len());
        Self { cpus: Rc::new(all()), cores: all(), smt: siblings.iter().any(|s| s.len() > 1), siblings }
    }

    /// `update_builtin_idle()`: the CPU has become idle, or busy.
    pub fn update(&mut self, cpu: usize, idle: bool) {
        self.cpus.set(cpu, idle);
        if !self.smt || (idle && !self.siblings[cpu].iter().all(|&s| self.cpus.has(s))) {
            return;
        }
        self.siblings[cpu].iter().for_each(|&s| self.cores.set(s, idle));
    }

    /// `scx_idle_test_and_clear_cpu()`: claim the CPU, if it is idle.
    pub fn claim(&mut self, cpu: usize) -> bool {
        let Some(siblings) = self.siblings.get(cpu) else { return false };
        // Whether it can be claimed or not, its core is not idle as a whole.
        siblings.iter().for_each(|&s| self.cores.set(s, false));
        let idle = self.cpus.has(cpu);
        self.cpus.set(cpu, false);
        idle
    }

    /// `scx_pick_idle_cpu()`: claim an idle CPU of the set, of a wholly idle core if there is one. `last`: where the
    /// last such search ended.
    pub fn pick(&mut self, allowed: &Cpumask, flags: u64, last: &mut usize) -> Option<usize> {
        loop {
            let core = if self.smt { self.cores.next_in_both(allowed, *last) } else { None };
            let found = match core {
                Some(cpu) => Some(cpu),
                None if self.smt && flags & PICK_IDLE_CORE != 0 => None,
                None => self.cpus.next_in_both(allowed, *last),
            };
            let cpu = found?;
            *last = cpu;
            if self.claim(cpu) {
                return Some(cpu);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_cores_go_first_and_claims_are_exclusive() {
        let mut idle = IdleMasks::new((0..4).map(|c| vec![c / 2 * 2, c / 2 * 2 + 1]).collect());
        let all = Cpumask::of(0..4);
        let mut last = 3;
        assert_eq!(idle.pick(&all, 0, &mut last), Some(0));
        assert_eq!(idle.pick(&all, 0, &mut last), Some(2), "a whole core before the sibling");
        assert_eq!(idle.pick(&all, PICK_IDLE_CORE, &mut last), None);
        assert_eq!(idle.pick(&all, 0, &mut last), Some(3));
        assert!(!idle.claim(3) && idle.claim(1) && !idle.claim(1));
        assert_eq!(idle.pick(&all, 0, &mut last), None);
        idle.update(2, true);
        assert_eq!(idle.pick(&all, PICK_IDLE_CORE, &mut last), None, "its sibling is busy");
        idle.update(3, true);
        assert!(idle.pick(&all, PICK_IDLE_CORE, &mut last).is_some());
        assert!(!idle.claim(4), "no such CPU");
    }
}
