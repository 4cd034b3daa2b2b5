/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the policy sees. Pure integer C, compiled for BPF and for the host.
 *
 * RL_FEATURE_TABLE is the one place where features are defined: adding one is adding a line (and, if it needs a new
 * measurement, a field of struct rl_inputs that balance.bpf.h and turn.bpf.h fill). Names and expressions are hashed into
 * the schema of a checkpoint, so a checkpoint of another table is refused.
 */
#ifndef __SCX_RL_FEATURES_H
#define __SCX_RL_FEATURES_H

#include "intf.h"

/* Raw measurements at a decision. "home": where the task is; "other": where it could go. */
struct rl_inputs {
	u64 home_head_age_ns;  /* estimated age of the longest waiter, 0 if none */
	u64 other_head_age_ns;
	u64 home_run_avg_ns; /* running mean of the time on CPU per dispatch, over the domain's tasks; see RL_FEATURE_TABLE */
	u64 other_run_avg_ns; /* at TURN: the least that a waiting task runs between two sleeps */
	u64 task_run_avg_ns; /* running mean of the task's time on CPU per dispatch */
	u64 task_sleep_avg_ns; /* running mean of the task's sleeps */
	u64 since_ran_ns; /* since it last left a CPU; ~0 if it never ran */
	u64 since_moved_ns; /* since it last changed domain; ~0 if it never did */
	u64 move_cost_ns; /* what a move is expected to cost: service after it less the usual, 0 if negative */
	u64 task_want_ns; /* what the task usually runs between two sleeps, or has run since its last one */
	u64 turn_ns; /* at TURN: how long its turn has lasted */
	u32 home_queued;
	u32 other_queued;
	u32 home_cpus;
	u32 other_cpus;
	u32 home_idle;
	u32 other_idle;
	u32 point; /* enum rl_point */
	u32 distance; /* enum rl_distance */
	u32 waker; /* 0 none, 1 synchronous wakeup, 2 the waker is in the other domain, 3 both */
	u32 weight; /* task weight, 1..10000, 100 is nice 0 */
};

/* Floor of log2(v) in eighths of an octave, 0 for 0 and at most RL_FEATURE_MAX (2^15.9). No loops, no floats. */
static inline u32 rl_log8(u64 v)
{
	u32 e = 0, m;

	if (!v)
		return 0;
	if (v >= 1ULL << 16)
		return RL_FEATURE_MAX;
	if (v >= 1U << 8)
		e = 8;
	if (v >> e >= 1U << 4)
		e += 4;
	if (v >> e >= 1U << 2)
		e += 2;
	if (v >> e >= 1U << 1)
		e += 1;
	/* three bits below the leading one */
	m = (u32)((v << 3) >> e) & 7;
	return e * 8 + m;
}

/* v / n, in 16ths, saturated */
static inline u32 rl_ratio16(u32 v, u32 n)
{
	u32 r;

	if (v > 4096)
		v = 4096;
	r = n ? v * 16 / n : RL_FEATURE_MAX;
	return r > RL_FEATURE_MAX ? RL_FEATURE_MAX : r;
}

/* v of n as a share, RL_FEATURE_MAX is all */
static inline u32 rl_share(u32 v, u32 n)
{
	if (!n || v >= n)
		return n ? RL_FEATURE_MAX : 0;
	return v * RL_FEATURE_MAX / n;
}

/* X(name, what it is and its scale, expression over `in`, in 0..RL_FEATURE_MAX) */
#define RL_FEATURE_TABLE(X)                                                                                            \
	X(is_pull, "127 at PULL, 0 elsewhere", in->point == RL_POINT_PULL ? RL_FEATURE_MAX : 0)                        \
	X(distance, "42 x distance class", (in->distance & 3) * 42)                                                    \
	X(home_queued, "tasks queued per CPU at home, 16ths", rl_ratio16(in->home_queued, in->home_cpus))              \
	X(other_queued, "tasks queued per CPU at the other domain, 16ths",                                             \
	  rl_ratio16(in->other_queued, in->other_cpus))                                                                \
	X(home_head_age, "age of the longest waiter at home, log2 of 1.024 us, eighths",                               \
	  rl_log8(in->home_head_age_ns >> 10))                                                                         \
	X(other_head_age, "age of the longest waiter at the other domain, likewise",                                   \
	  rl_log8(in->other_head_age_ns >> 10))                                                                        \
	X(home_idle, "share of idle CPUs at home", rl_share(in->home_idle, in->home_cpus))                             \
	X(other_idle, "share of idle CPUs at the other domain", rl_share(in->other_idle, in->other_cpus))              \
	X(home_run_avg, "mean run at home; at TURN, what the task has run since it slept; log2 of 1.024 us, eighths",  \
	  rl_log8(in->home_run_avg_ns >> 10))                                                                          \
	X(other_run_avg, "mean run at the other domain; at TURN, the least that a waiting task wants; likewise",       \
	  rl_log8(in->other_run_avg_ns >> 10))                                                                         \
	X(task_run_avg, "mean run of the task, likewise", rl_log8(in->task_run_avg_ns >> 10))                          \
	X(task_sleep_avg, "mean sleep of the task, log2 of 16.4 us, eighths", rl_log8(in->task_sleep_avg_ns >> 14))    \
	X(since_ran, "time since the task ran (cache warmth), log2 of 16.4 us, eighths",                               \
	  rl_log8(in->since_ran_ns >> 14))                                                                             \
	X(since_moved, "time since the task changed domain, log2 of 1.05 ms, eighths",                                 \
	  rl_log8(in->since_moved_ns >> 20))                                                                           \
	X(move_cost, "what a move is expected to cost the task, log2 of 1.024 us, eighths",                            \
	  rl_log8(in->move_cost_ns >> 10))                                                                             \
	X(waker, "42 x (1 synchronous + 2 waker in the other domain)", (in->waker & 3) * 42)                           \
	X(task_want, "how long the task runs before it sleeps, log2 of 1.024 us, eighths",                             \
	  rl_log8(in->task_want_ns >> 10))                                                                             \
	X(turn, "how long the turn has lasted at TURN, 0 elsewhere, log2 of 16.4 us, eighths",                         \
	  rl_log8(in->turn_ns >> 14))

enum rl_feature {
#define RL_FEATURE_ENUM(name, desc, expr) RL_F_##name,
	RL_FEATURE_TABLE(RL_FEATURE_ENUM)
#undef RL_FEATURE_ENUM
		RL_NR_FEATURES,
};

_Static_assert((u32)RL_NR_FEATURES == (u32)RL_FEATURES, "RL_FEATURES must count the table");

/* Fill f[RL_FEATURES] from the measurements. Every value is in 0..RL_FEATURE_MAX by construction of the table. */
static inline void rl_features(const struct rl_inputs *in, u8 *f)
{
#define RL_FEATURE_EVAL(name, desc, expr) f[RL_F_##name] = (u8)(expr);
	RL_FEATURE_TABLE(RL_FEATURE_EVAL)
#undef RL_FEATURE_EVAL
}

#endif /* __SCX_RL_FEATURES_H */
