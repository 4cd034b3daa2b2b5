/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The published policy, and how BPF asks it. BPF only: needs READ_ONCE and smp_rmb of bpf_atomic.h.
 *
 * There is one writer (the agent). It fills the inactive slot with seq odd, makes seq even, and switches `active`. A
 * reader that is overtaken by two publications would see its slot change under it: then seq differs, and it starts
 * over on the slot that is active now. So a decision never mixes two generations.
 */
#ifndef __SCX_RL_SLOTS_H
#define __SCX_RL_SLOTS_H

#include "policy.h"

#define RL_READ_TRIES 3

/* The published policy, on pages that userspace maps. */
struct rl_policy policy SEC(".data.policy");

/* One question to the policy, and its answer. */
struct rl_ask {
	struct rl_inputs in;
	u32 rnd; /* the low 16 bits choose the action */
	u32 tries; /* out: reads repeated because a publication overtook them; RL_READ_TRIES: the fixed rule decided */
	u8 features[RL_FEATURES];
	struct rl_decision decision;
};

static __always_inline bool read_slot(struct rl_ask *ask)
{
	struct rl_slot *slot = &policy.slots[READ_ONCE(policy.active) & 1];
	u64 seq = READ_ONCE(slot->seq);

	smp_rmb();
	ask->decision.generation = slot->generation;
	rl_act(slot, ask->features, ask->rnd, &ask->decision);
	smp_rmb();
	return !(seq & 1) && READ_ONCE(slot->seq) == seq;
}

/* Decide for ask->features. A global function: the verifier proves it once, not on every path that leads here. */
__noinline int rl_decide(struct rl_ask *ask __arg_nonnull)
{
	struct rl_rule rule = RL_RULE_DEFAULT;
	u32 try;

	for (try = 0; try < RL_READ_TRIES; try++) {
		if (read_slot(ask)) {
			ask->tries = try;
			return 0;
		}
	}
	ask->tries = RL_READ_TRIES;
	ask->decision.generation = 0;
	ask->decision.mode = RL_MODE_HEURISTIC;
	ask->decision.logit_q8 = 0;
	ask->decision.action = rl_heuristic(&rule, ask->features);
	ask->decision.p_migrate_q16 = ask->decision.action == RL_MIGRATE ? RL_PROB_ONE : 0;
	return 0;
}

/* Features of ask->in, global for the same reason. */
__noinline int rl_observe(struct rl_ask *ask __arg_nonnull)
{
	rl_features(&ask->in, ask->features);
	return 0;
}

#endif /* __SCX_RL_SLOTS_H */
