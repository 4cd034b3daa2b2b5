/* SPDX-License-Identifier: GPL-2.0-only */
/* What is made when the scheduler is attached: queues, and masks of CPUs. */
#ifndef __SCX_RL_SETUP_BPF_H
#define __SCX_RL_SETUP_BPF_H

#include "place.bpf.h"

static s32 init_cpu(s32 cpu)
{
	struct cpu_ctx *cctx = lookup_cpu(cpu);
	struct bpf_cpumask *mask;
	s32 err;

	if (!cctx)
		return -EINVAL;
	err = scx_bpf_create_dsq(RL_CPU_QUEUE + cpu, -1);
	if (err)
		return err;
	mask = bpf_cpumask_create();
	if (!mask)
		return -ENOMEM;
	mask = bpf_kptr_xchg(&cctx->mask, mask);
	if (mask)
		bpf_cpumask_release(mask);
	return 0;
}

/* Also those that are offline: one that comes runs kernel threads of its own before the kernel ends us for it. */
static s32 init_cpus(void)
{
	s32 cpu, err;

	bpf_for(cpu, 0, scx_bpf_nr_cpu_ids()) {
		if (cpu >= RL_MAX_CPUS)
			break;
		err = init_cpu(cpu);
		if (err)
			return err;
	}
	return 0;
}

static s32 init_domain(u32 id)
{
	struct domain_ctx *dom = lookup_domain(id);
	struct bpf_cpumask *mask;
	u32 cpu;
	s32 err;

	if (!dom || id >= RL_MAX_DOMAINS)
		return -EINVAL;
	err = scx_bpf_create_dsq(id, -1);
	if (err)
		return err;
	mask = bpf_cpumask_create();
	if (!mask)
		return -ENOMEM;
	bpf_for(cpu, 0, nr_cpu_ids) {
		if (cpu >= RL_MAX_CPUS)
			break;
		if (domain_cpus[id][cpu / 64] & (1ULL << (cpu % 64))) {
			bpf_cpumask_set_cpu(cpu, mask);
			/* the kernel, too, takes every CPU for idle at first */
			set_idle(cpu, id, true);
		}
	}
	mask = bpf_kptr_xchg(&dom->cpumask, mask);
	if (mask)
		bpf_cpumask_release(mask);
	return 0;
}

#endif /* __SCX_RL_SETUP_BPF_H */
