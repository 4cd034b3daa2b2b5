/* SPDX-License-Identifier: GPL-2.0-only */
/* What the test_run programs of probe.bpf.c exchange with userspace. */
#ifndef __SCX_RL_PROBE_H
#define __SCX_RL_PROBE_H

#include "policy.h"

enum { RL_PROBE_BATCH = 1024 };

/* Inputs and outputs of one batch, mapped by userspace. */
struct rl_probe_batch {
	struct rl_inputs inputs[RL_PROBE_BATCH];
	u8 features[RL_PROBE_BATCH][RL_FEATURES];
	u32 rnd[RL_PROBE_BATCH];
	s64 z[RL_PROBE_BATCH];
	struct rl_decision decisions[RL_PROBE_BATCH];
};

/* Argument and result of one run. */
struct rl_probe_args {
	u64 n;     /* in: repetitions */
	u64 ns;    /* out: time for all of them */
	u64 mixed; /* out: decisions whose output does not belong to their generation */
	u64 retries;
	u64 fallbacks;
	u64 generations; /* out: how often the generation changed between two decisions */
};

/*
 * The publication test publishes networks that are a known function of their generation: all weights of the first
 * layer are test_w1(g), and so on. With all features at 1, the logit follows in closed form, and a network put together
 * from two publications has another one. A slot is rewritten every second generation, hence g >> 1.
 */
static inline s32 rl_test_w1(u64 g)
{
	return (g >> 1) & 1 ? 50 : -50;
}

static inline s32 rl_test_b1(u64 g)
{
	return 1100 + (s32)((g >> 1) % 3) * 100;
}

static inline s32 rl_test_w2(u64 g)
{
	return 10 + (s32)((g >> 1) % 5);
}

static inline s64 rl_test_b2(u64 g)
{
	return (s64)((g >> 1) % 7) * 1000;
}

static inline s32 rl_test_logit(u64 g)
{
	return rl_logit((s64)RL_HIDDEN * (RL_FEATURES * rl_test_w1(g) + rl_test_b1(g)) * rl_test_w2(g) + rl_test_b2(g));
}

#endif /* __SCX_RL_PROBE_H */
