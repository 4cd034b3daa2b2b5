/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The policy's arithmetic as programs that test_run executes on any kernel with BPF, without sched_ext: for the parity
 * with the host, the benchmark, and the publication test.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include <bpf_atomic.h>
#include "slots.h"
#include "probe.h"

char _license[] SEC("license") = "GPL";

struct rl_probe_batch batch SEC(".data.batch");

/* Plain int8 weights, for the naive loop that the packed one is compared with. */
s8 naive_w1[RL_HIDDEN][RL_FEATURES] SEC(".data.naive");
s32 naive_b1[RL_HIDDEN] SEC(".data.naive");
s32 naive_w2[RL_HIDDEN] SEC(".data.naive");
s64 naive_b2 SEC(".data.naive");

/* One item of the batch; global functions, so that the loops below verify quickly. */
__noinline int features_of(u32 i)
{
	struct rl_ask ask = {};

	if (i >= RL_PROBE_BATCH)
		return 0;
	ask.in = batch.inputs[i];
	rl_observe(&ask);
	__builtin_memcpy(batch.features[i], ask.features, RL_FEATURES);
	return 0;
}

__noinline int decide_on(u32 i)
{
	struct rl_ask ask = {};

	if (i >= RL_PROBE_BATCH)
		return 0;
	__builtin_memcpy(ask.features, batch.features[i], RL_FEATURES);
	ask.rnd = batch.rnd[i];
	batch.z[i] = rl_forward(&policy.slots[policy.active & 1].weights, ask.features);
	rl_decide(&ask);
	batch.decisions[i] = ask.decision;
	return 0;
}

/* Features of every input of the batch. */
SEC("syscall")
int probe_features(struct rl_probe_args *args)
{
	u32 i;

	bpf_for(i, 0, RL_PROBE_BATCH)
		features_of(i);
	return 0;
}

/* Raw output and decision for every feature vector of the batch. */
SEC("syscall")
int probe_decide(struct rl_probe_args *args)
{
	u32 i;

	bpf_for(i, 0, RL_PROBE_BATCH)
		decide_on(i);
	return 0;
}

/* Decide as fast as possible while userspace publishes; see rl_test_logit(). */
SEC("syscall")
int probe_publication(struct rl_probe_args *args)
{
	u64 n = args->n, last = 0;
	struct rl_ask ask = {};
	u32 i;

	__builtin_memset(ask.features, 1, RL_FEATURES);
	bpf_for(i, 0, n) {
		rl_decide(&ask);
		args->retries += ask.tries;
		if (ask.tries == RL_READ_TRIES) {
			args->fallbacks++;
			continue;
		}
		if (ask.decision.logit_q8 != rl_test_logit(ask.decision.generation))
			args->mixed++;
		args->generations += ask.decision.generation != last;
		last = ask.decision.generation;
	}
	return 0;
}

/* Features + forward pass + action, as at a decision point. */
SEC("syscall")
int probe_bench_policy(struct rl_probe_args *args)
{
	u64 n = args->n, start = bpf_ktime_get_ns();
	struct rl_ask ask = {};
	u32 i;

	bpf_for(i, 0, n) {
		ask.in = batch.inputs[i & (RL_PROBE_BATCH - 1)];
		ask.rnd = i * 40503;
		rl_observe(&ask);
		rl_decide(&ask);
		args->mixed += ask.decision.action;
	}
	args->ns = bpf_ktime_get_ns() - start;
	return 0;
}

/* The network with one multiplication per weight, as one would write it first. */
__noinline int naive_decide(struct rl_ask *ask __arg_nonnull)
{
	s64 z = naive_b2;
	u32 n, i;

#pragma clang loop unroll(disable)
	for (n = 0; n < RL_HIDDEN; n++) {
		s32 h = naive_b1[n];

#pragma clang loop unroll(disable)
		for (i = 0; i < RL_FEATURES; i++)
			h += ask->features[i] * naive_w1[n][i];
		z += rl_relu(h) * naive_w2[n];
	}
	ask->decision.logit_q8 = rl_logit(z);
	ask->decision.p_migrate_q16 = rl_sigmoid_q16(ask->decision.logit_q8);
	ask->decision.action = (ask->rnd & (RL_PROB_ONE - 1)) < ask->decision.p_migrate_q16;
	return 0;
}

SEC("syscall")
int probe_bench_naive(struct rl_probe_args *args)
{
	u64 n = args->n, start = bpf_ktime_get_ns();
	struct rl_ask ask = {};
	u32 i;

	bpf_for(i, 0, n) {
		ask.in = batch.inputs[i & (RL_PROBE_BATCH - 1)];
		ask.rnd = i * 40503;
		rl_observe(&ask);
		naive_decide(&ask);
		args->mixed += ask.decision.action;
	}
	args->ns = bpf_ktime_get_ns() - start;
	return 0;
}

/* The floor: the same loop and input, and a call that does nothing. */
__noinline int empty_call(struct rl_ask *ask __arg_nonnull)
{
	ask->decision.action = ask->rnd & 1;
	return 0;
}

SEC("syscall")
int probe_bench_empty(struct rl_probe_args *args)
{
	u64 n = args->n, start = bpf_ktime_get_ns();
	struct rl_ask ask = {};
	u32 i;

	bpf_for(i, 0, n) {
		ask.in = batch.inputs[i & (RL_PROBE_BATCH - 1)];
		ask.rnd = i * 40503;
		empty_call(&ask);
		args->mixed += ask.decision.action;
	}
	args->ns = bpf_ktime_get_ns() - start;
	return 0;
}
