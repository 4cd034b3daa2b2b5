/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the simulated kernel shares with the scheduler: the few types of vmlinux.h that it touches, with only the fields
 * that it touches. src/sim/ffi.rs has the same layouts; the assertions at the end here, and those there, keep them so.
 */
#ifndef __SCX_RL_SIM_KERNEL_H
#define __SCX_RL_SIM_KERNEL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include "intf.h"

enum sim_limits {
	SIM_MASK_WORDS = RL_MAX_CPUS / 64,
	SIM_COMM_LEN = 16,
};

struct cpumask {
	u64 bits[SIM_MASK_WORDS];
};

struct bpf_cpumask {
	struct cpumask cpumask;
};

struct sched_ext_entity {
	u64 slice;     /* ns left */
	u64 dsq_vtime; /* its key in a queue that is ordered */
	u32 flags;     /* SCX_TASK_* */
	u32 weight;    /* 1..10000, 100 is nice 0 */
};

struct task_struct {
	struct sched_ext_entity scx;
	const struct cpumask *cpus_ptr;
	void *storage; /* its element of the one task storage map */
	s32 pid;       /* its number in the simulation plus one; 0 for the idle task */
	u32 flags;     /* PF_* */
	s32 cpu;       /* task_cpu() */
	s32 nr_cpus_allowed;
	u32 migration_disabled;
	char comm[SIM_COMM_LEN];
	u32 working_set_kib; /* what no scheduler can know: for rivals.h alone */
	struct cpumask cpus_mask;
};

/* Written by the simulator before each call into the scheduler. */
struct sim_context {
	u64 now_ns;
	s32 cpu; /* on which the scheduler's code runs */
	u32 nr_cpu_ids;
};

_Static_assert(sizeof(struct sched_ext_entity) == 24, "ffi.rs has the same layout");
_Static_assert(offsetof(struct task_struct, cpus_ptr) == 24, "ffi.rs has the same layout");
_Static_assert(offsetof(struct task_struct, pid) == 40, "ffi.rs has the same layout");
_Static_assert(offsetof(struct task_struct, comm) == 60, "ffi.rs has the same layout");
_Static_assert(offsetof(struct task_struct, working_set_kib) == 76, "ffi.rs has the same layout");
_Static_assert(offsetof(struct task_struct, cpus_mask) == 80, "ffi.rs has the same layout");
_Static_assert(sizeof(struct task_struct) == 80 + RL_MAX_CPUS / 8, "ffi.rs has the same layout");
_Static_assert(sizeof(struct sim_context) == 16, "ffi.rs has the same layout");

#endif /* __SCX_RL_SIM_KERNEL_H */
