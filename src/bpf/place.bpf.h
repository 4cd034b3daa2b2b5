/* SPDX-License-Identifier: GPL-2.0-only */
/* Where a task goes within its domain: an idle CPU, the CPU of a waker that is about to sleep, or one to preempt. */
#ifndef __SCX_RL_PLACE_BPF_H
#define __SCX_RL_PLACE_BPF_H

#include "order.bpf.h"

/* How many running tasks a waking one compares itself with. */
#define RL_VICTIMS 8
/* From deciding an insertion to the task being in the queue, at most. */
#define RL_INSERT_NS 50000
/* A CPU that goes idle while tasks wait looks again so often, and then not for a while: they may be none that it may run. */
#define RL_IDLE_LOOKS 4
#define RL_IDLE_LOOK_NS 500000

/* The task's domain if it may run there, else the domain of a CPU that it may use. */
static __always_inline u32 legal_home(struct task_struct *p, struct task_ctx *tctx, s32 cpu)
{
	struct domain_ctx *dom = lookup_domain(tctx->home);

	if (dom && domain_allowed(dom, p))
		return tctx->home;
	if (cpu < 0 || !bpf_cpumask_test_cpu(cpu, p->cpus_ptr))
		cpu = bpf_cpumask_any_distribute(p->cpus_ptr);
	return domain_of(cpu);
}

/* Claim an idle CPU of the domain that p may use: prev_cpu if it is one, a whole idle core before a busy one's sibling. */
__noinline s32 rl_pick_idle(struct task_struct *p __arg_trusted, u32 id, s32 prev_cpu)
{
	struct domain_ctx *dom = lookup_domain(id);
	struct bpf_cpumask *mask, *both;
	struct cpu_ctx *cctx = lookup_cpu(bpf_get_smp_processor_id());
	s32 cpu = -EBUSY;

	if (!dom || !cctx || !READ_ONCE(dom->nr_idle))
		return -EBUSY;
	if (!smt_enabled && prev_cpu >= 0 && domain_of(prev_cpu) == id && bpf_cpumask_test_cpu(prev_cpu, p->cpus_ptr) &&
	    scx_bpf_test_and_clear_cpu_idle(prev_cpu))
		return prev_cpu;

	bpf_rcu_read_lock();
	mask = dom->cpumask;
	if (!mask)
		goto out;
	if (!bpf_cpumask_subset(cast_mask(mask), p->cpus_ptr)) {
		both = cctx->mask;
		if (!both)
			goto out;
		bpf_cpumask_and(both, cast_mask(mask), p->cpus_ptr);
		mask = both;
	}
	if (smt_enabled) {
		cpu = scx_bpf_pick_idle_cpu(cast_mask(mask), SCX_PICK_IDLE_CORE);
		if (cpu < 0 && prev_cpu >= 0 && bpf_cpumask_test_cpu(prev_cpu, cast_mask(mask)) &&
		    scx_bpf_test_and_clear_cpu_idle(prev_cpu))
			cpu = prev_cpu;
	}
	if (cpu < 0)
		cpu = scx_bpf_pick_idle_cpu(cast_mask(mask), 0);
out:
	bpf_rcu_read_unlock();
	return cpu;
}

/* Some CPU of the domain that p may use; prev_cpu if it is one. */
static __always_inline s32 any_cpu(struct task_struct *p, u32 id, s32 prev_cpu)
{
	struct domain_ctx *dom = lookup_domain(id);
	s32 cpu = prev_cpu;

	if (domain_of(prev_cpu) == id && bpf_cpumask_test_cpu(prev_cpu, p->cpus_ptr))
		return prev_cpu;
	if (dom && dom->cpumask)
		cpu = bpf_cpumask_any_and_distribute(cast_mask(dom->cpumask), p->cpus_ptr);
	return cpu >= 0 && cpu < nr_cpu_ids ? cpu : prev_cpu;
}

/* The CPU of the domain whose running task has the latest deadline, if that is late enough to preempt it; or -EBUSY. */
__noinline s32 rl_pick_victim(struct task_struct *p __arg_trusted, struct task_ctx *tctx __arg_nonnull, u32 id,
			      s32 prev_cpu)
{
	struct domain_ctx *dom = lookup_domain(id);
	s64 best = 0;
	u64 now = scx_bpf_now();
	s32 cpu = prev_cpu, victim = -EBUSY;
	u32 i;

	if (!dom)
		return -EBUSY;
	bpf_for(i, 0, RL_VICTIMS) {
		s64 gain;

		if (i > nr_cpus_of(id))
			break;
		if (i || domain_of(cpu) != id || !bpf_cpumask_test_cpu(cpu, p->cpus_ptr)) {
			struct bpf_cpumask *mask = dom->cpumask;

			cpu = mask ? bpf_cpumask_any_and_distribute(cast_mask(mask), p->cpus_ptr) : -1;
		}
		if (cpu < 0 || cpu >= nr_cpu_ids)
			break;
		gain = rl_advantage(tctx, p->scx.weight, cpu, now);
		if (gain > best && has_run(cpu, now)) {
			best = gain;
			victim = cpu;
		}
	}
	return victim;
}

/*
 * The waker says that it is about to sleep: how long it usually still takes until it leaves its CPU, from its first such
 * wakeup in a burst on. RL_NEVER: not known, or it exits. The wakeup may also come from an interrupt that took the CPU of a
 * task which has nothing to do with it. Only what the task usually does after such wakeups tells.
 */
__noinline u64 rl_waker_tail(void)
{
	struct task_struct *waker = bpf_get_current_task_btf();
	struct task_ctx *wctx = bpf_task_storage_get(&tasks, waker, 0, 0);

	if (!wctx || !wctx->running_at_ns)
		return RL_NEVER;
	if (!wctx->woke_at_ns)
		wctx->woke_at_ns = scx_bpf_now();
	return wctx->wake_tail_ns && !(waker->flags & PF_EXITING) ? wctx->wake_tail_ns : RL_NEVER;
}

/*
 * It has left its CPU, tail_ns after it woke another. Once in a while an interrupt or a hypervisor makes that long, which would
 * take the pair apart until the mean has forgotten it: so one counts for no more than twice what is too long in any case.
 */
static __always_inline void note_tail(struct task_ctx *tctx, u64 tail_ns)
{
	tctx->wake_tail_ns = mean8(tctx->wake_tail_ns, tail_ns < 2 * RL_BRIEF_NS ? tail_ns : 2 * RL_BRIEF_NS);
}

/*
 * The waker is going to leave its CPU in `tail`. If that is less than an idle CPU at home takes to wake up, p is faster on the
 * waker's CPU; in another domain, if that saves what a move there is expected to cost, too: so pairs come together. All of it
 * is measured, so this holds on any machine. Only while nobody else waits for that CPU: a pair that hands it to and fro would
 * keep it for ever.
 */
static __always_inline bool waker_is_faster(struct task_struct *p, struct task_ctx *tctx, u32 home, u64 tail)
{
	s32 cpu = bpf_get_smp_processor_id();
	u32 here = domain_of(cpu);
	struct domain_ctx *dom = lookup_domain(home), *to = lookup_domain(here);
	u64 now;

	if (!dom || !to || !with(RL_WITHOUT_sync) || tail >= dom->idle_wake_ns ||
	    !bpf_cpumask_test_cpu(cpu, p->cpus_ptr) || nr_queued(here) || nr_queued(RL_CPU_QUEUE + cpu) ||
	    nr_queued(SCX_DSQ_LOCAL_ON | cpu))
		return false;
	if (here == home)
		return true;
	now = scx_bpf_now();
	if (tail + move_cost_ns(tctx, to) >= dom->idle_wake_ns || rl_too_many_moves(home, here, now))
		return false;
	rl_note_decided_move(home, here, now);
	return true;
}

/* A waking task's domain, and its virtual time there. */
static __always_inline void settle(struct task_struct *p, struct task_ctx *tctx, u32 home)
{
	tctx->home = home;
	rl_join(tctx, home);
	rl_limit_lead(tctx, p->scx.weight, true);
}

/* Keep the domain's count of idle CPUs. Only the CPU itself, or its update_idle, changes its flag. */
static __always_inline void set_idle(s32 cpu, u32 id, u32 idle)
{
	struct cpu_ctx *cctx = lookup_cpu(cpu);
	struct domain_ctx *dom = lookup_domain(id);

	if (!cctx || !dom || cctx->idle == idle)
		return;
	cctx->idle = idle;
	__sync_fetch_and_add(&dom->nr_idle, idle ? 1 : -1);
}

/* Wake a CPU for a task that was just queued in domain id, or for the CPU's own queue if pinned. */
__noinline int rl_kick_for(struct task_struct *p __arg_trusted, u32 id, bool pinned, bool stays)
{
	s32 cpu = scx_bpf_task_cpu(p);

	if (pinned) {
		if (scx_bpf_test_and_clear_cpu_idle(cpu))
			rl_kick_idle(cpu);
		return 0;
	}
	cpu = rl_pick_idle(p, id, cpu);
	/*
	 * Nobody at home: let an idle CPU elsewhere look at the queue and decide (PULL), unless the policy has just said that
	 * the task should stay.
	 */
	if (cpu < 0 && nr_domains > 1 && !stays)
		cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		rl_kick_idle(cpu);
	return 0;
}

/*
 * A CPU found nothing to run. A task queued after it last looked, and before the kernel marks it idle, finds nobody to kick.
 * So it looks again after that. The kernel inserts only after rl_enqueue() has returned, so one that was just decided counts
 * as well. (How long that takes has no bound, if a hypervisor takes the CPU away: then the next tick or dispatch helps.)
 */
static __always_inline void look_again(s32 cpu, u32 id, struct cpu_ctx *cctx)
{
	struct domain_ctx *dom = lookup_domain(id);
	u64 now = scx_bpf_now();

	if (since(cctx->looked_at_ns, now) > RL_IDLE_LOOK_NS)
		cctx->looks = 0;
	if (!dom || cctx->looks >= RL_IDLE_LOOKS)
		return;
	if (nr_queued(id) || nr_queued(RL_CPU_QUEUE + cpu) ||
	    since(READ_ONCE(dom->enqueued_at_ns), now) < RL_INSERT_NS) {
		cctx->looks++;
		cctx->looked_at_ns = now;
		rl_kick_idle(cpu);
	}
}

#endif /* __SCX_RL_PLACE_BPF_H */
