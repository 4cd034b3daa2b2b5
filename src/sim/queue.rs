// SPDX-License-Identifier: GPL-2.0-only
//! What will happen, in order of time, and of being planned where times are equal.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A CPU has learned that it must schedule.
    Resched {
        /// The CPU.
        cpu: usize,
    },
    /// What runs on the CPU has come to an end of its work, if nothing was planned anew since.
    Done {
        /// The CPU.
        cpu: usize,
        /// The plan.
        plan: u32,
    },
    /// The CPU's timer.
    Tick {
        /// The CPU.
        cpu: usize,
    },
    /// The sleep of a task is over.
    Wake {
        /// The task.
        task: usize,
    },
    /// A request comes in.
    Arrive {
        /// Its source.
        source: usize,
    },
    /// Something is changed.
    Change {
        /// What, of the workload's list.
        index: usize,
    },
    /// Does anybody starve?
    Watch,
    /// A publication arrives.
    Publish,
    /// A higher scheduling class takes a CPU.
    TakeCpu,
    /// And gives it back.
    ReturnCpu {
        /// The CPU.
        cpu: usize,
    },
}

impl Event {
    /// A number for the hash.
    pub fn code(self) -> u64 {
        let (kind, number) = match self {
            Event::Resched { cpu } => (1, cpu),
            Event::Done { cpu, .. } => (2, cpu),
            Event::Tick { cpu } => (3, cpu),
            Event::Wake { task } => (4, task),
            Event::Arrive { source } => (5, source),
            Event::Change { index } => (6, index),
            Event::Watch => (7, 0),
            Event::Publish => (8, 0),
            Event::TakeCpu => (9, 0),
            Event::ReturnCpu { cpu } => (10, cpu),
        };
        kind << 56 | number as u64
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    at_ns: u64,
    planned: u64,
    event: Event,
}

impl Ord for Entry {
    /// The earliest is the greatest, as the heap gives out the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_ns, other.planned).cmp(&(self.at_ns, self.planned))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The events to come.
#[derive(Debug, Default)]
pub struct Queue {
    heap: BinaryHeap<Entry>,
    planned: u64,
}

impl Queue {
    /// Plan an event.
    pub fn push(&mut self, at_ns: u64, event: Event) {
        self.planned += 1;
        self.heap.push(Entry { at_ns, planned: self.planned, event });
    }

    /// The next event and its time, if that is not after `until_ns`.
    pub fn pop(&mut self, until_ns: u64) -> Option<(u64, Event)> {
        if self.heap.peek()?.at_ns > until_ns {
            return None;
        }
        self.heap.pop().map(|entry| (entry.at_ns, entry.event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_as_planned() {
        let mut queue = Queue::default();
        for (at_ns, task) in [(5, 0), (3, 1), (5, 2), (4, 3), (9, 4)] {
            queue.push(at_ns, Event::Wake { task });
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(5)).collect();
        let wake = |at_ns, task| (at_ns, Event::Wake { task });
        assert_eq!(order, [wake(3, 1), wake(4, 3), wake(5, 0), wake(5, 2)]);
        assert_eq!(queue.pop(9), Some(wake(9, 4)));
    }
}
