// SPDX-License-Identifier: GPL-2.0-only
//! A dispatch queue: first in first out, or ordered by virtual time, but not both at a time.

use std::collections::VecDeque;

/// A waiting task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    vtime: u64,
    task: u32,
}

/// A queue of tasks, by their numbers.
#[derive(Debug, Default)]
pub struct Dsq {
    entries: VecDeque<Entry>,
    ordered: bool,
    /// Insertions so far: the order of arrival, by which iterators leave out who came later.
    pub seq: u64,
}

/// Is `a` before `b`, on a clock that wraps?
fn before(a: u64, b: u64) -> bool {
    (a.wrapping_sub(b) as i64) < 0
}

impl Dsq {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nobody waits?
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The task at an index, from the head.
    pub fn get(&self, index: usize) -> Option<usize> {
        self.entries.get(index).map(|e| e.task as usize)
    }

    /// All who wait, from the head.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.entries.iter().map(|e| e.task as usize)
    }

    /// Add a task at an end. Returns its number of arrival, or none if the queue is ordered by virtual time.
    pub fn push(&mut self, task: usize, to_head: bool) -> Option<u64> {
        if !self.entries.is_empty() && self.ordered {
            return None;
        }
        self.ordered = false;
        let entry = Entry { vtime: 0, task: task as u32 };
        if to_head {
            self.entries.push_front(entry)
        } else {
            self.entries.push_back(entry)
        }
        self.seq += 1;
        Some(self.seq)
    }

    /// Add a task behind all that are not due later. Returns its number of arrival, or none if the queue is first in
    /// first out.
    pub fn insert(&mut self, task: usize, vtime: u64) -> Option<u64> {
        if !self.entries.is_empty() && !self.ordered {
            return None;
        }
        self.ordered = true;
        let at = self.entries.partition_point(|e| !before(vtime, e.vtime));
        self.entries.insert(at, Entry { vtime, task: task as u32 });
        self.seq += 1;
        Some(self.seq)
    }

    /// Take a task out that was inserted with this virtual time. Returns whether it was there.
    pub fn remove(&mut self, task: usize, vtime: u64) -> bool {
        let from = if self.ordered { self.entries.partition_point(|e| before(e.vtime, vtime)) } else { 0 };
        let found = self.entries.iter().skip(from).position(|e| e.task as usize == task);
        found.is_some_and(|i| self.entries.remove(from + i).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordered_queue_keeps_equals_in_order_of_arrival_and_wraps() {
        let mut q = Dsq::default();
        for (task, vtime) in [(1, 5), (2, u64::MAX - 2), (3, 5), (4, 0), (5, 7)] {
            assert!(q.insert(task, vtime).is_some());
        }
        assert_eq!(q.iter().collect::<Vec<_>>(), [2, 4, 1, 3, 5]);
        assert_eq!(q.push(6, false), None, "not both orders at a time");
        assert!(q.remove(3, 5) && !q.remove(3, 5));
        assert_eq!(q.iter().collect::<Vec<_>>(), [2, 4, 1, 5]);
    }

    #[test]
    fn a_plain_queue_has_two_ends() {
        let mut q = Dsq::default();
        assert_eq!((q.push(1, false), q.push(2, false), q.push(3, true)), (Some(1), Some(2), Some(3)));
        assert_eq!(q.iter().collect::<Vec<_>>(), [3, 1, 2]);
        assert_eq!(q.insert(4, 1), None);
        assert!(q.remove(1, 0));
        assert_eq!((q.len(), q.get(1)), (2, Some(2)));
    }
}
