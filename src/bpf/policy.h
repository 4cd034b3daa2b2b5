/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The policy's arithmetic: fixed-point forward pass, sigmoid, and the action. Pure integer C without side effects,
 * compiled for BPF and for the host; the two agree to the bit because there is nothing in here to disagree about.
 */
#ifndef __SCX_RL_POLICY_H
#define __SCX_RL_POLICY_H

#include "features.h"

/* max(h, 0) without a branch: with one, the verifier would walk 2^RL_HIDDEN paths. The asm hides it from clang. */
static inline s64 rl_relu(s64 h)
{
	s64 mask = ~(h >> 63);

	asm volatile("" : "+r"(mask));
	return h & mask;
}

/* One addition after the other. clang would make trees of them, for which BPF's ten registers and small stack are too few. */
#define rl_add(sum, value)                                                                                             \
	do {                                                                                                           \
		(sum) += (value);                                                                                      \
		asm volatile("" : "+r"(sum));                                                                          \
	} while (0)

/*
 * Network output for features f, in units of 1 / 2^(FEATURE_BITS + 2 * WEIGHT_BITS).
 *
 * One 64-bit multiplication advances RL_LANES neurons (see struct rl_weights). The offset of the weights adds
 * RL_WEIGHT_OFFSET * sum(f) to every lane, which is taken off once at the end. Nothing is rounded: the result equals
 * the real-valued network with the quantised weights.
 */
static inline s64 rl_forward(const struct rl_weights *w, const u8 *f)
{
	const u64 lane = (1ULL << RL_LANE_BITS) - 1;
	s64 z = w->b2, offset = 0;
	u32 i, g, l;

#pragma unroll
	for (i = 0; i < RL_FEATURES; i++)
		rl_add(offset, f[i]);
	offset *= RL_WEIGHT_OFFSET;

#pragma unroll
	for (g = 0; g < RL_GROUPS; g++) {
		u64 acc = 0;

#pragma unroll
		for (i = 0; i < RL_FEATURES; i++)
			rl_add(acc, f[i] * w->w1[g][i]);
#pragma unroll
		for (l = 0; l < RL_LANES; l++) {
			u32 n = g * RL_LANES + l;
			s64 h = (s64)(acc >> (l * RL_LANE_BITS) & lane) - offset + w->b1[n];

			z += rl_relu(h) * w->w2[n];
		}
	}
	return z;
}

/* z as a saturated logit, 1/256 */
static inline s32 rl_logit(s64 z)
{
	z >>= RL_LOGIT_SHIFT;
	if (z > RL_LOGIT_MAX)
		return RL_LOGIT_MAX;
	if (z < -RL_LOGIT_MAX)
		return -RL_LOGIT_MAX;
	return (s32)z;
}

/*
 * sigmoid of a logit in 1/256, as an integer out of RL_PROB_ONE, within 0.0001 of the real function, monotone, and
 * exactly symmetric: p(-x) = ONE - p(x). From 1 / (1 + 2^-t), t = x * log2(e); 2^-t is a cubic in the fraction of t
 * (minimax, exact at both ends), shifted by its integer part. There is no table: a lookup by a computed index would
 * make the verifier follow the precise range of everything that led to it.
 */
static inline u32 rl_sigmoid_q16(s32 logit_q8)
{
	s64 sign = logit_q8 >> 31;
	u64 x = (u64)((logit_q8 ^ sign) - sign) & 0xfff;
	u64 t = x * 94548 >> 8; /* log2(e) in 16 bits */
	s64 f = t & 0xffff, e, p;

	e = (1 << 16) + (f * (-45226 + (f * (14819 + (f * -2361 >> 16)) >> 16)) >> 16);
	e >>= t >> 16 & 15;
	p = (1ULL << 32) / (u64)((1 << 16) + e);
	return (u32)((p ^ sign) - sign + (sign & RL_PROB_ONE));
}

/* As features: 20 ms, and 5 ms. */
#define RL_LONG_WANT 114
#define RL_LONG_TURN 65

/*
 * The fixed balancer, and the fallback. At TURN, who will not sleep within a slice has a quarter of one: near to allowed_ns()
 * (order.bpf.h), which decides where no policy is asked.
 */
static inline u32 rl_heuristic(const struct rl_rule *rule, const u8 *f)
{
	u32 idle = f[RL_F_other_idle] && !f[RL_F_home_idle];
	u32 gain = idle ? rule->idle_gain : 0, margin = rule->margin;

	if (f[RL_F_turn])
		return f[RL_F_task_want] >= RL_LONG_WANT && f[RL_F_turn] >= RL_LONG_TURN ? RL_END_TURN : RL_GO_ON;
	if (f[RL_F_since_ran] < rule->hot_since)
		margin = rule->hot_margin;
	if (f[RL_F_distance] >= RL_DIST_NUMA * 42 && margin < rule->numa_margin)
		margin = rule->numa_margin;
	if (!idle && f[RL_F_home_head_age] < rule->head_age)
		return RL_STAY;
	return f[RL_F_home_queued] + gain >= f[RL_F_other_queued] + margin ? RL_MIGRATE : RL_STAY;
}

/*
 * Least probability of each action at TURN while learning, unless the floor is 0: 1/50. A turn that ends a tick early or late
 * costs little, and what comes of going on depends on what is done at the next tick: a policy that always ends turns would
 * hardly get to see that one.
 */
#define RL_TURN_FLOOR_Q16 (RL_PROB_ONE / 50)

/*
 * Choose under a slot's mode. rnd is uniform in 0..65535; d->p_migrate_q16 is the number it was compared with, so
 * P(migrate) is exactly p_migrate_q16 / 2^16. Deterministic modes log certainty.
 */
static inline void rl_act(const struct rl_slot *slot, const u8 *f, u32 rnd, struct rl_decision *d)
{
	u32 p, floor;

	d->mode = slot->mode;
	if (d->mode == RL_MODE_TURNS)
		d->mode = f[RL_F_turn] ? RL_MODE_DRAW : RL_MODE_HEURISTIC;
	d->logit_q8 = 0;
	if (d->mode == RL_MODE_DRAW || d->mode == RL_MODE_GREEDY)
		d->logit_q8 = rl_logit(rl_forward(&slot->weights, f));
	switch (d->mode) {
	case RL_MODE_DRAW:
		p = rl_sigmoid_q16(d->logit_q8);
		floor = slot->floor_q16;
		if (floor && floor < RL_TURN_FLOOR_Q16 && f[RL_F_turn])
			floor = RL_TURN_FLOOR_Q16;
		if (floor > RL_PROB_ONE / 2)
			floor = RL_PROB_ONE / 2;
		if (p < floor)
			p = floor;
		if (p > RL_PROB_ONE - floor)
			p = RL_PROB_ONE - floor;
		break;
	case RL_MODE_GREEDY:
		p = d->logit_q8 > 0 ? RL_PROB_ONE : 0;
		break;
	case RL_MODE_RANDOM:
		p = RL_PROB_ONE / 2;
		break;
	default:
		p = rl_heuristic(&slot->rule, f) == RL_MIGRATE ? RL_PROB_ONE : 0;
		break;
	}
	d->p_migrate_q16 = p;
	d->action = (rnd & (RL_PROB_ONE - 1)) < p ? RL_MIGRATE : RL_STAY;
}

#endif /* __SCX_RL_POLICY_H */
