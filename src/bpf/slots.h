/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reading the published policy. BPF only: needs READ_ONCE and smp_rmb of bpf_atomic.h.
 *
 * There is one writer (the agent). It fills the inactive slot with seq odd, makes seq even, and switches `active`. A
 * reader that is overtaken by two publications would see its slot change under it: then seq differs, and it starts
 * over on the slot that is active now. So a decision never mixes two generations.
 */
#ifndef __SCX_RL_SLOTS_H
#define __SCX_RL_SLOTS_H

#include "policy.h"

#define RL_READ_TRIES 3

/*
 * Decide for features f with random bits rnd.
 * Return: how often the read had to be repeated; RL_READ_TRIES means that the fixed rule decided instead.
 */
static __always_inline u32 rl_decide(struct rl_policy *policy, const u8 *f, u32 rnd, struct rl_decision *d)
{
	u32 try;

	for (try = 0; try < RL_READ_TRIES; try++) {
		struct rl_slot *slot = &policy->slots[READ_ONCE(policy->active) & 1];
		u64 seq = READ_ONCE(slot->seq);

		smp_rmb();
		d->generation = slot->generation;
		rl_act(slot, f, rnd, d);
		smp_rmb();
		if (!(seq & 1) && READ_ONCE(slot->seq) == seq)
			return try;
	}
	d->generation = 0;
	d->mode = RL_MODE_HEURISTIC;
	d->logit_q8 = 0;
	d->action = rl_heuristic(f);
	d->p_migrate_q16 = d->action == RL_MIGRATE ? RL_PROB_ONE : 0;
	return RL_READ_TRIES;
}

#endif /* __SCX_RL_SLOTS_H */
