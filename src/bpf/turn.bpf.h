/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How long turns last, where the policy chooses that, too. A slice ends at a tick, so the choice is made there: while others
 * wait, and once the task has had its slice_min_ns, each tick asks whether its turn ends or goes on. turn_limit_ns() bounds
 * it, and who is next is still a matter of deadlines: a policy that always says "go on" has slices of slice_ns.
 *
 * What is logged is what the rest of the turn came to: did the task get to sleep, and how much time did that take? What time
 * is worth to those who wait is what a burst takes in this domain: the mean period on CPU, over the share of periods that
 * end with a sleep.
 */
#ifndef __SCX_RL_TURN_BPF_H
#define __SCX_RL_TURN_BPF_H

#include "balance.bpf.h"

/* Does the policy choose slices now? Not where the fixed rule decides: that has slices of its own, allowed_ns(). */
static __always_inline bool policy_has_turns(void)
{
	return learn_slices && READ_ONCE(policy.slots[READ_ONCE(policy.active) & 1].mode) != RL_MODE_HEURISTIC;
}

/* What a burst takes here, over the tasks that run; 0: nobody has slept yet. */
static __always_inline u64 burst_time_ns(const struct domain_ctx *dom)
{
	return dom->slept_q16 ? dom->stop_ns * RL_PROB_ONE / dom->slept_q16 : 0;
}

/* A period on CPU has ended. */
static __always_inline void note_stop(struct domain_ctx *dom, u64 used_ns, bool blocked)
{
	dom->stop_ns = mean64(dom->stop_ns, used_ns);
	dom->slept_q16 = mean64(dom->slept_q16, blocked ? RL_PROB_ONE : 0);
}

/* Ask whether the turn of a running task goes on, which has lasted turn_ns. */
__noinline bool rl_turn_goes_on(struct task_struct *p __arg_trusted, s32 cpu, u32 id, u64 turn_ns, u64 now)
{
	struct task_ctx *tctx = lookup_task(p);
	struct domain_ctx *dom = lookup_domain(id);
	struct arm_args arm = { .point = RL_POINT_TURN, .home = id, .other = id, .now = now };
	u32 zero = 0;
	struct rl_ask *ask = bpf_map_lookup_elem(&asks, &zero);

	if (!tctx || !dom || !ask)
		return true;
	__builtin_memset(&ask->in, 0, sizeof(ask->in));
	ask->in.point = RL_POINT_TURN;
	ask->in.home_queued = nr_queued(id);
	ask->in.home_cpus = nr_cpus_of(id);
	ask->in.other_queued = nr_queued(RL_CPU_QUEUE + cpu);
	ask->in.other_cpus = 1;
	ask->in.home_head_age_ns = domain_head_age(dom, ask->in.home_queued, now);
	ask->in.home_run_avg_ns = dom->run_avg_ns;
	ask->in.task_run_avg_ns = tctx->run_avg_ns;
	ask->in.task_sleep_avg_ns = tctx->sleep_avg_ns;
	ask->in.task_want_ns = expected_ns(tctx->burst_avg_ns, tctx->burst_ns + since(tctx->charged_at_ns, now));
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
	arm.usual_ns = burst_time_ns(dom);
	event_arm(p, tctx, &arm, &ask->decision, ask->features);
	return ask->decision.action == RL_GO_ON;
}

#endif /* __SCX_RL_TURN_BPF_H */
