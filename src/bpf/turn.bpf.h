/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How long turns last, where the policy chooses that, too. A slice ends at a tick, so the choice is made there: while others
 * wait, and once the task has had its slice_min_ns, each tick asks whether its turn ends or goes on. turn_limit_ns() bounds
 * it, and who is next is still a matter of deadlines: a policy that always says "go on" has slices of slice_ns.
 *
 * What is logged is what the rest of the turn came to: did the task get to sleep, and how much time did that take? What that
 * time is worth depends on who waits for it: on the least that one of them runs between two sleeps.
 */
#ifndef __SCX_RL_TURN_BPF_H
#define __SCX_RL_TURN_BPF_H

#include "balance.bpf.h"

/* Does the policy choose slices now? Not where the fixed rule decides: that has slices of its own, allowed_ns(). */
static __always_inline bool policy_has_turns(void)
{
	return learn_slices && READ_ONCE(policy.slots[READ_ONCE(policy.active) & 1].mode) != RL_MODE_HEURISTIC;
}

/* So many that wait in a queue are looked at, the first ones. Each look takes the queue's lock. */
#define RL_TURN_SCAN 4

/*
 * The least that one of the first in the queue wants who may run on the CPU; at most `least`. One that is new wants what new
 * ones usually do before they first sleep, if anything is known of that.
 */
static __always_inline u64 least_want_ns(u32 queue, s32 cpu, const struct domain_ctx *dom, u64 least)
{
	struct task_struct *p;
	u32 scanned = 0;

	bpf_for_each(scx_dsq, p, queue, 0) {
		struct task_ctx *tctx;
		u64 want;

		if (scanned++ >= RL_TURN_SCAN)
			break;
		tctx = lookup_task(p);
		if (!tctx || !bpf_cpumask_test_cpu(cpu, p->cpus_ptr))
			continue;
		want = tctx->burst_avg_ns ? want_ns(tctx) : dom->first_burst_ns;
		if (want && want < least)
			least = want;
	}
	return least;
}

/* Ask whether the turn of a running task goes on, which has lasted turn_ns. */
__noinline bool rl_turn_goes_on(struct task_struct *p __arg_trusted, s32 cpu, u32 id, u64 turn_ns, u64 now)
{
	struct task_ctx *tctx = lookup_task(p);
	struct domain_ctx *dom = lookup_domain(id);
	struct arm_args arm = { .point = RL_POINT_TURN, .home = id, .other = id, .now = now };
	u32 zero = 0, pinned = nr_queued(RL_CPU_QUEUE + cpu), queued = nr_queued(id);
	u64 burst_ns, least;
	struct rl_ask *ask = bpf_map_lookup_elem(&asks, &zero);

	if (!tctx || !dom || !ask)
		return true;
	least = pinned ? least_want_ns(RL_CPU_QUEUE + cpu, cpu, dom, RL_NEVER) : RL_NEVER;
	if (queued)
		least = least_want_ns(id, cpu, dom, least);
	/* nobody who could take this CPU, or nothing is known of them */
	if (least == RL_NEVER)
		return true;
	arm.usual_ns = least;
	__builtin_memset(&ask->in, 0, sizeof(ask->in));
	ask->in.point = RL_POINT_TURN;
	ask->in.home_queued = queued;
	ask->in.home_cpus = nr_cpus_of(id);
	ask->in.other_queued = pinned;
	ask->in.other_cpus = 1;
	ask->in.home_head_age_ns = domain_head_age(dom, ask->in.home_queued, now);
	burst_ns = tctx->burst_ns + since(tctx->charged_at_ns, now);
	ask->in.home_run_avg_ns = burst_ns;
	ask->in.other_run_avg_ns = arm.usual_ns;
	ask->in.task_run_avg_ns = tctx->run_avg_ns;
	ask->in.task_sleep_avg_ns = tctx->sleep_avg_ns;
	ask->in.task_want_ns = expected_ns(tctx->burst_avg_ns, burst_ns);
	ask->in.turn_ns = turn_ns;
	ask->in.weight = p->scx.weight;
	arm.rnd = bpf_get_prandom_u32();
	ask->rnd = arm.rnd;
	ask_and_count(p, ask);
	count(turn_decisions);
	if (ask->decision.action == RL_END_TURN)
		count(turns_ended);
	/* what comes of an earlier one of this turn is not only its own any more */
	if (READ_ONCE(tctx->pending[RL_POINT_TURN].state) == PENDING_RUNNING)
		tctx->pending[RL_POINT_TURN].event.flags |= RL_EV_REDECIDED;
	arm.nr_runs = tctx->nr_runs;
	event_arm(p, tctx, &arm, &ask->decision, ask->features);
	return ask->decision.action == RL_GO_ON;
}

#endif /* __SCX_RL_TURN_BPF_H */
