// SPDX-License-Identifier: GPL-2.0-only
//! What the scheduler's C calls: the kernel's functions for schedulers, by their C names. They come in while Rust waits
//! for one of the scheduler's operations, on the same thread.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_void};
use std::rc::Rc;

use super::ffi::{Cpumask, DSQ_BUILTIN, ITER_REV, TaskStruct};
use super::kernel::{Direct, Kernel};
use crate::policy::rl_event;

thread_local! {
    /// The kernel of the scheduler that is loaded.
    static CURRENT: Cell<*const RefCell<Kernel>> = const { Cell::new(std::ptr::null()) };
}

/// From now on the scheduler's calls go to this kernel, until [`detach`], which must come before it is dropped.
pub(super) fn attach(kernel: &Rc<RefCell<Kernel>>) {
    CURRENT.set(Rc::as_ptr(kernel));
}

/// Does this thread have a simulation?
pub(super) fn attached() -> bool {
    !CURRENT.get().is_null()
}

/// The end of that.
pub(super) fn detach() {
    CURRENT.set(std::ptr::null());
}

/// Do something with the kernel. A panic must not cross C; so if it is borrowed, which is a bug, nothing is done.
fn with<R>(otherwise: R, f: impl FnOnce(&mut Kernel) -> R) -> R {
    // SAFETY: either null, or the kernel of the loaded scheduler, which owns it and calls detach() before it goes.
    let kernel = unsafe { CURRENT.get().as_ref() };
    match kernel.map(RefCell::try_borrow_mut) {
        Some(Ok(mut kernel)) => f(&mut kernel),
        _ => otherwise,
    }
}

/// `struct bpf_iter_scx_dsq` of the shim.
#[repr(C)]
struct Iter {
    dsq: u64,
    flags: u64,
    next: u64,
    last: u64,
    seq: u64,
}

/// Insert a task: only as a direct dispatch, as this scheduler keeps its tasks in queues of the kernel.
fn insert(kernel: &mut Kernel, p: &TaskStruct, dsq: u64, slice_ns: u64, enq_flags: u64, vtime: Option<u64>) {
    let Some(task) = kernel.number(p.pid.get()) else {
        return kernel.fail(format!("the task of pid {} was inserted, which does not exist", p.pid.get()));
    };
    // 0 keeps what is left.
    let slice_ns = if slice_ns > 0 { slice_ns } else { p.scx.slice_ns.get().max(1) };
    match kernel.direct {
        Direct::Task(expected) if expected == task => {
            p.scx.slice_ns.set(slice_ns);
            if let Some(vtime) = vtime {
                p.scx.dsq_vtime.set(vtime);
            }
            kernel.direct = Direct::Done;
            kernel.tasks[task].direct = Some((dsq, enq_flags | if vtime.is_some() { ORDERED } else { 0 }));
        }
        Direct::Task(_) => kernel.fail(format!("{} was inserted while another is enqueued", kernel.name(task))),
        Direct::Done => kernel.fail(format!("{} was inserted twice", kernel.name(task))),
        Direct::No => kernel.fail(format!(
            "{} was inserted outside of select_cpu and enqueue, which the simulator does not know",
            kernel.name(task)
        )),
    }
}

/// Of a direct dispatch: by virtual time. `SCX_ENQ_DSQ_PRIQ`.
pub(super) const ORDERED: u64 = 1 << 57;

/// The functions. Pointers are those of C: valid for the call, on this thread.
mod exported {
    use super::*;

    #[unsafe(no_mangle)]
    extern "C" fn scx_bpf_create_dsq(dsq: u64, _node: i32) -> i32 {
        with(-libc::ENOMEM, |k| k.create_dsq(dsq))
    }

    #[unsafe(no_mangle)]
    extern "C" fn scx_bpf_dsq_nr_queued(dsq: u64) -> i32 {
        with(-libc::ENOENT, |k| match k.find_dsq(dsq, k.this_cpu) {
            Some(place) => k.dsq(place).len() as i32,
            None => -libc::ENOENT,
        })
    }

    #[unsafe(no_mangle)]
    extern "C" fn scx_bpf_dsq_insert(p: &TaskStruct, dsq: u64, slice_ns: u64, enq_flags: u64) {
        with((), |k| insert(k, p, dsq, slice_ns, enq_flags, None));
    }

    #[unsafe(no_mangle)]
    extern "C" fn scx_bpf_dsq_insert_vtime(p: &TaskStruct, dsq: u64, slice_ns: u64, vtime: u64, enq_flags: u64) {
        with((), |k| insert(k, p, dsq, slice_ns, enq_flags, Some(vtime)));
    }

    #[unsafe(no_mangle)]
    extern "C" fn scx_bpf_dsq_move_to_local(dsq: u64, enq_flags: u64) -> bool {
        with(false, |k| match k.find_dsq(dsq, k.this_cpu) {
            Some(place) if dsq & DSQ_BUILTIN == 0 => k.consume(place, k.this_cpu, enq_flags),
            _ => {
                k.fail(format!("there is no queue {dsq:#x} to take a task from"));
                false
            }
        })
    }

    #[unsafe(no_mangle)]
    extern "C" fn bpf_iter_scx_dsq_new(it: &mut Iter, dsq: u64, flags: u64) -> i32 {
        with(-libc::ENOENT, |k| {
            let place = k.find_dsq(dsq, k.this_cpu);
            let (len, seq) = place.map_or((0, 0), |place| (k.dsq(place).len() as u64, k.dsq(place).seq));
            *it = Iter { dsq, flags, next: if flags & ITER_REV != 0 { len } else { 0 }, last: 0, seq };
            if place.is_some() { 0 } else { -libc::ENOENT }
        })
    }

    /// The next task. Only the one that was returned last may have left the queue meanwhile.
    #[unsafe(no_mangle)]
    extern "C" fn bpf_iter_scx_dsq_next(it: &mut Iter) -> *const TaskStruct {
        with(std::ptr::null(), |k| {
            let Some(place) = k.find_dsq(it.dsq, k.this_cpu) else { return std::ptr::null() };
            loop {
                let index = if it.flags & ITER_REV != 0 {
                    it.next = it.next.min(k.dsq(place).len() as u64);
                    if it.next == 0 {
                        return std::ptr::null();
                    }
                    it.next -= 1;
                    it.next
                } else {
                    // If the last one has left, the others have moved up.
                    let stayed = k.number(it.last as i32).is_none_or(|task| k.arrival(task, place).is_some());
                    it.next = if stayed { it.next } else { it.next.saturating_sub(1) };
                    it.next += 1;
                    it.next - 1
                };
                let Some(task) = k.dsq(place).get(index as usize) else { return std::ptr::null() };
                it.last = task as u64 + 1;
                // Who came after the iteration began is left out.
                if k.arrival(task, place).is_some_and(|arrived| arrived <= it.seq) {
                    return Rc::as_ptr(&k.tasks[task].shared);
                }
            }
        })
    }

    #[unsafe(no_mangle)]
    extern "C" fn scx_bpf_dsq_move(it: &Iter, p: &TaskStruct, dsq: u64, enq_flags: u64) -> bool {
        with(false, |k| match (k.number(p.pid.get()), k.find_dsq(it.dsq, k.this_cpu)) {
            (Some(task), Some(from)) => k.move_found(task, from, it.seq, dsq, enq_flags),
            _ => false,
        })
    }

    #[unsafe(no_mangle)]
    extern "C" fn scx_bpf_reenqueue_local() -> u32 {
        // How many are queued anew is not known yet; our scheduler does not ask.
        with(0, |k| {
            k.reenqueue = Some(k.this_cpu);
            0
        })
    }

    #[unsafe(no_mangle)]
    extern "C" fn scx_bpf_kick_cpu(cpu: i32, flags: u64) {
        with((), |k| k.kick(usize::try_from(cpu).unwrap_or(usize::MAX), flags));
    }

    #[unsafe(no_mangle)]
    extern "C" fn scx_bpf_test_and_clear_cpu_idle(cpu: i32) -> bool {
        with(false, |k| usize::try_from(cpu).is_ok_and(|cpu| k.idle.claim(cpu)))
    }

    #[unsafe(no_mangle)]
    extern "C" fn scx_bpf_pick_idle_cpu(allowed: &Cpumask, flags: u64) -> i32 {
        with(-libc::EBUSY, |k| {
            let this = k.this_cpu;
            let Kernel { idle, last_picked, .. } = k;
            idle.pick(allowed, flags, &mut last_picked[this]).map_or(-libc::EBUSY, |cpu| cpu as i32)
        })
    }

    #[unsafe(no_mangle)]
    extern "C" fn scx_bpf_get_idle_cpumask() -> *const Cpumask {
        with(std::ptr::null(), |k| Rc::as_ptr(&k.idle.cpus))
    }

    /// A CPU of both sets, another one each time. If there is none, the number of CPUs.
    #[unsafe(no_mangle)]
    extern "C" fn bpf_cpumask_any_and_distribute(a: &Cpumask, b: &Cpumask) -> u32 {
        with(u32::MAX, |k| {
            let last = k.last_picked[k.this_cpu];
            match a.next_in_both(b, last) {
                Some(cpu) => {
                    k.last_picked[k.this_cpu] = cpu;
                    cpu as u32
                }
                None => k.cpus.len() as u32,
            }
        })
    }

    #[unsafe(no_mangle)]
    extern "C" fn bpf_get_prandom_u32() -> u32 {
        with(0, |k| (k.rng.bits() >> 32) as u32)
    }

    #[unsafe(no_mangle)]
    extern "C" fn bpf_get_current_task_btf() -> *const TaskStruct {
        with(std::ptr::null(), |k| match k.cpus[k.this_cpu].curr {
            Some(task) => Rc::as_ptr(&k.tasks[task].shared),
            None => Rc::as_ptr(&k.idle_task),
        })
    }

    #[unsafe(no_mangle)]
    extern "C" fn sim_error(message: *const c_char) {
        // SAFETY: C passes a string that is valid for the call.
        let message = unsafe { CStr::from_ptr(message) }.to_string_lossy();
        with((), |k| k.fail(message));
    }

    #[unsafe(no_mangle)]
    extern "C" fn sim_ring_reserve(bytes: u64) -> *mut c_void {
        with(std::ptr::null_mut(), |k| {
            let fits = bytes as usize == size_of::<rl_event>() && k.events.len() < k.events_max;
            let lost = k.lose_events_q32 > 0 && k.fault_rng.below(1 << 32) < k.lose_events_q32;
            if fits && !lost { (&raw mut *k.record).cast() } else { std::ptr::null_mut() }
        })
    }

    #[unsafe(no_mangle)]
    extern "C" fn sim_ring_submit(_record: *mut c_void) {
        with((), |k| {
            let event = *k.record;
            k.events.push_back(event);
        });
    }
}
