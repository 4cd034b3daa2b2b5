/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The policy's arithmetic: fixed-point forward pass, sigmoid, and the action. Pure integer C without side effects,
 * compiled for BPF and for the host; the two agree to the bit because there is nothing in here to disagree about.
 */
#ifndef __SCX_RL_POLICY_H
#define __SCX_RL_POLICY_H

#include "features.h"

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
	u64 acc[RL_GROUPS] = {};
	s64 z = w->b2;
	s64 offset = 0;
	u32 i, g, l;

#pragma unroll
	for (i = 0; i < RL_FEATURES; i++) {
		u64 x = f[i];

		offset += x;
#pragma unroll
		for (g = 0; g < RL_GROUPS; g++)
			acc[g] += x * w->w1[i][g];
	}
	offset *= RL_WEIGHT_OFFSET;

#pragma unroll
	for (g = 0; g < RL_GROUPS; g++) {
#pragma unroll
		for (l = 0; l < RL_LANES; l++) {
			u32 n = g * RL_LANES + l;
			s64 h = (s64)(acc[g] >> (l * RL_LANE_BITS) & lane) - offset + w->b1[n];

			z += (h > 0 ? h : 0) * w->w2[n];
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

/* sigmoid(i / 16) * 2^16, i = 0..128 */
static const u16 rl_sigmoid_table[129] = {
	32768, 33792, 34813, 35831, 36843, 37847, 38841, 39824, 40793, 41748, 42687, 43608,
	44511, 45393, 46254, 47094, 47911, 48704, 49474, 50220, 50941, 51638, 52310, 52957,
	53581, 54179, 54754, 55306, 55834, 56339, 56822, 57284, 57724, 58144, 58544, 58925,
	59287, 59632, 59959, 60270, 60565, 60844, 61109, 61360, 61598, 61823, 62036, 62238,
	62428, 62608, 62778, 62938, 63090, 63233, 63368, 63495, 63615, 63728, 63835, 63935,
	64030, 64119, 64203, 64283, 64357, 64427, 64494, 64556, 64614, 64669, 64721, 64770,
	64816, 64859, 64900, 64938, 64974, 65008, 65039, 65069, 65097, 65124, 65149, 65172,
	65194, 65215, 65234, 65252, 65269, 65285, 65300, 65315, 65328, 65341, 65352, 65364,
	65374, 65384, 65393, 65402, 65410, 65417, 65425, 65431, 65438, 65444, 65449, 65454,
	65459, 65464, 65468, 65472, 65476, 65480, 65483, 65486, 65489, 65492, 65495, 65497,
	65500, 65502, 65504, 65506, 65508, 65509, 65511, 65513, 65514,
};

/*
 * sigmoid of a logit in 1/256, as an integer out of RL_PROB_ONE: linear between the table's entries, exactly symmetric
 * (p(-x) = ONE - p(x)), within 0.0002 of the real function.
 */
static inline u32 rl_sigmoid_q16(s32 logit_q8)
{
	u32 x = logit_q8 < 0 ? -logit_q8 : logit_q8;
	u32 i, frac, p;

	if (x >= RL_LOGIT_MAX) {
		p = rl_sigmoid_table[128];
	} else {
		i = x >> 4;
		frac = x & 15;
		/* i <= 127 here; the mask tells the verifier */
		i &= 127;
		p = rl_sigmoid_table[i] + ((rl_sigmoid_table[i + 1] - rl_sigmoid_table[i]) * frac >> 4);
	}
	return logit_q8 < 0 ? RL_PROB_ONE - p : p;
}

/*
 * The fixed balancer, and the fallback: go where a CPU is idle, or where the queue per CPU is shorter by at least one
 * task (two across NUMA nodes).
 */
static inline u32 rl_heuristic(const u8 *f)
{
	u32 margin = f[RL_F_distance] >= RL_DIST_NUMA * 42 ? 32 : 16;

	if (f[RL_F_other_idle] && !f[RL_F_home_idle])
		return RL_MIGRATE;
	return f[RL_F_home_queued] >= f[RL_F_other_queued] + margin ? RL_MIGRATE : RL_STAY;
}

/*
 * Choose under a slot's mode. rnd is uniform in 0..65535; d->p_migrate_q16 is the number it was compared with, so
 * P(migrate) is exactly p_migrate_q16 / 2^16. Deterministic modes log certainty.
 */
static inline void rl_act(const struct rl_slot *slot, const u8 *f, u32 rnd, struct rl_decision *d)
{
	u32 p, floor;

	d->mode = slot->mode;
	d->logit_q8 = 0;
	switch (d->mode) {
	case RL_MODE_LEARN:
		d->logit_q8 = rl_logit(rl_forward(&slot->weights, f));
		p = rl_sigmoid_q16(d->logit_q8);
		floor = slot->floor_q16;
		if (floor > RL_PROB_ONE / 2)
			floor = RL_PROB_ONE / 2;
		if (p < floor)
			p = floor;
		if (p > RL_PROB_ONE - floor)
			p = RL_PROB_ONE - floor;
		break;
	case RL_MODE_FROZEN:
		d->logit_q8 = rl_logit(rl_forward(&slot->weights, f));
		p = d->logit_q8 > 0 ? RL_PROB_ONE : 0;
		break;
	case RL_MODE_RANDOM:
		p = RL_PROB_ONE / 2;
		break;
	default:
		p = rl_heuristic(f) == RL_MIGRATE ? RL_PROB_ONE : 0;
		break;
	}
	d->p_migrate_q16 = p;
	d->action = (rnd & (RL_PROB_ONE - 1)) < p ? RL_MIGRATE : RL_STAY;
}

#endif /* __SCX_RL_POLICY_H */
