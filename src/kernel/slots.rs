// SPDX-License-Identifier: GPL-2.0-only
//! The writer of `struct rl_policy`: two slots, each guarded by a sequence counter, and the index of the active one.
//!
//! The reader is `src/bpf/slots.h`. There must be one writer; readers never wait.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::policy::{RL_MODE_HEURISTIC, host, rl_policy, rl_rule, rl_slot, rl_weights};

/// What is published: a mode, the exploration floor, the fixed rule, and the network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Publication {
    /// One of `RL_MODE_*`.
    pub mode: u32,
    /// Least probability of each action in `RL_MODE_DRAW`, of 65536.
    pub floor_q16: u32,
    /// The numbers of the fixed rule (used by `RL_MODE_HEURISTIC`).
    pub rule: rl_rule,
    /// The quantised network (ignored by modes that do not use it).
    pub weights: rl_weights,
}

impl Default for Publication {
    /// The fixed rule without options.
    fn default() -> Self {
        Self { mode: RL_MODE_HEURISTIC, floor_q16: 0, rule: host::default_rule(), weights: rl_weights::default() }
    }
}

/// The single writer of one mapped `struct rl_policy`.
pub struct Publisher {
    policy: NonNull<rl_policy>,
    generation: u64,
}

// SAFETY: the pointer is to memory mapped for the whole process; `&mut self` keeps it to one writer at a time.
unsafe impl Send for Publisher {}

impl Publisher {
    /// Take over the policy at `policy`, continuing after generation `generation`.
    ///
    /// # Safety
    /// `policy` must point to a mapped `rl_policy` that outlives the publisher and has no other writer.
    pub unsafe fn new(policy: NonNull<rl_policy>, generation: u64) -> Self {
        Self { policy, generation }
    }

    /// The generation that was published last.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Write the inactive slot, then make it the active one. Returns the new generation.
    pub fn publish(&mut self, publication: &Publication) -> u64 {
        self.generation += 1;
        let p = self.policy.as_ptr();
        // SAFETY: new()'s contract: mapped, aligned, no other writer. Concurrent readers are BPF programs, which check
        // seq around their reads; all shared words are written through atomics or volatile writes of plain integers.
        unsafe {
            let active = AtomicU64::from_ptr(&raw mut (*p).active);
            let target = (active.load(Ordering::Relaxed) & 1) ^ 1;
            let slot: *mut rl_slot = &raw mut (*p).slots[target as usize];
            let seq = AtomicU64::from_ptr(&raw mut (*slot).seq);
            let even = seq.load(Ordering::Relaxed) & !1;
            seq.store(even + 1, Ordering::Relaxed);
            fence(Ordering::Release);
            (&raw mut (*slot).generation).write_volatile(self.generation);
            (&raw mut (*slot).mode).write_volatile(publication.mode);
            (&raw mut (*slot).floor_q16).write_volatile(publication.floor_q16);
            (&raw mut (*slot).rule).write_volatile(publication.rule);
            (&raw mut (*slot).weights).write_volatile(publication.weights);
            fence(Ordering::Release);
            seq.store(even + 2, Ordering::Relaxed);
            active.store(target, Ordering::Release);
        }
        self.generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishing_alternates_slots_and_leaves_seq_even() {
        let mut policy = Box::new(rl_policy::default());
        // SAFETY: the box outlives the publisher, and nothing else writes to it.
        let mut publisher = unsafe { Publisher::new(NonNull::from(&mut *policy), 41) };
        let mut publication = Publication { mode: 1, floor_q16: 7, ..Publication::default() };
        for i in 1..=5u64 {
            publication.weights.b2 = i as i64;
            assert_eq!(publisher.publish(&publication), 41 + i);
            let p = publisher.policy.as_ptr();
            // SAFETY: as above; read back through the publisher's own pointer.
            let slot = unsafe { (*p).slots[(*p).active as usize] };
            assert_eq!((slot.generation, slot.seq % 2, slot.weights.b2), (41 + i, 0, i as i64));
            assert_eq!(slot.rule, publication.rule);
            assert_eq!(i % 2, unsafe { (*p).active }, "slots alternate");
        }
    }
}
