/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The scheduler as the simulator runs it: src/bpf/main.bpf.c itself, compiled for the host, with the headers in this
 * folder in the place of scx's.
 *
 * Its state is file-scope variables, as in BPF, so a process has one simulated scheduler at a time. All of them, also
 * those that somebody adds later, are put into sections of their own, which sim_reset() brings back to what they were
 * when the program started.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <scx/common.bpf.h>
#include <bpf_atomic.h>

/* "const volatile" is what userspace writes before it loads a BPF program. Here it must be writable, in a section. */
#pragma clang section bss = "sim_bss" data = "sim_data"
#define const
#include "rivals.h"
#include "main.bpf.c"
#include "rusty.h"
#undef const
#pragma clang section bss = "" data = ""

/* What userspace sets before it loads the scheduler; src/sim/ffi.rs has the same layout. */
struct sim_config {
	u64 slice_ns;
	u64 slice_min_ns;
	u64 wait_bound_ns;
	u64 migration_ns[RL_NR_DISTANCES];
	u32 nr_cpu_ids;
	u32 nr_domains;
	u32 without;
	u32 smt_enabled;
	u32 sample_shift;
	u32 learn_slices;
	u32 rival; /* enum sim_rival */
	struct rl_rule dear_rule;
	const u16 *cpu_domain; /* [nr_cpu_ids] */
	const u8 *domain_distance; /* [nr_domains][nr_domains] */
	const u16 *domain_neighbours; /* [nr_domains][nr_domains - 1] */
};

_Static_assert(sizeof(struct sim_config) == 120, "ffi.rs has the same layout");

void sim_configure(const struct sim_config *config);
bool sim_reset(void);
struct sched_ext_ops *sim_ops(void);
struct rl_policy *sim_policy(void);
void sim_set_sample_shift(u32 shift);
void sim_counters(struct rl_cpu_stats *sum);

struct sim_context sim_context;

extern char __start_sim_data[], __stop_sim_data[], __start_sim_bss[], __stop_sim_bss[];
static char *pristine;

/* Chunks of memory that sim_alloc() cuts its pieces from, chained by their first word. */
#define CHUNK_BYTES (1UL << 20)
#define CHUNK_HEAD 64
static char *chunks;
static u64 chunk_left;

static char *chunk_new(u64 bytes)
{
	char *chunk = aligned_alloc(64, CHUNK_HEAD + bytes);

	if (!chunk)
		return NULL;
	memset(chunk, 0, CHUNK_HEAD + bytes);
	*(char **)chunk = chunks;
	chunks = chunk;
	return chunk + CHUNK_HEAD;
}

void *sim_alloc(u64 bytes)
{
	static char *at;

	bytes = (bytes + 63) & ~63UL;
	if (!chunks || bytes > chunk_left) {
		u64 size = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;

		at = chunk_new(size);
		if (!at) {
			chunk_left = 0;
			sim_error("out of memory");
			return NULL;
		}
		chunk_left = size;
	}
	at += bytes;
	chunk_left -= bytes;
	return at - bytes;
}

/* Bring everything back to the state at the program's start. Return: false, if there is no memory for that. */
bool sim_reset(void)
{
	u64 bytes = __stop_sim_data - __start_sim_data;

	if (!pristine) {
		pristine = malloc(bytes);
		if (!pristine)
			return false;
		memcpy(pristine, __start_sim_data, bytes);
	}
	memcpy(__start_sim_data, pristine, bytes);
	memset(__start_sim_bss, 0, __stop_sim_bss - __start_sim_bss);
	while (chunks) {
		char *next = *(char **)chunks;

		free(chunks);
		chunks = next;
	}
	chunk_left = 0;
	memset(&sim_context, 0, sizeof(sim_context));
	return true;
}

void sim_configure(const struct sim_config *config)
{
	u32 i, j, n = config->nr_domains;

	sim_context.nr_cpu_ids = config->nr_cpu_ids;
	nr_cpu_ids = config->nr_cpu_ids;
	nr_domains = n;
	smt_enabled = config->smt_enabled;
	slice_ns = config->slice_ns;
	slice_min_ns = config->slice_min_ns;
	learn_slices = config->learn_slices;
	without = config->without;
	wait_bound_ns = config->wait_bound_ns;
	for (i = 0; i < RL_NR_DISTANCES; i++)
		migration_ns[i] = config->migration_ns[i];
	sample_shift = config->sample_shift;
	rival = config->rival;
	dear_rule = config->dear_rule;
	for (i = 0; i < config->nr_cpu_ids; i++) {
		cpu_domain[i] = config->cpu_domain[i];
		domain_cpus[config->cpu_domain[i]][i / 64] |= 1ULL << (i % 64);
		domain_nr_cpus[config->cpu_domain[i]]++;
	}
	for (i = 0; i < n; i++) {
		for (j = 0; j < n; j++)
			domain_distance[i][j] = config->domain_distance[i * n + j];
		for (j = 0; j + 1 < n; j++)
			domain_neighbours[i][j] = config->domain_neighbours[i * (n - 1) + j];
	}
}

struct sched_ext_ops *sim_ops(void)
{
	static struct sched_ext_ops ops;

	ops = rl_ops;
	if (rival == SIM_RUSTY)
		rusty_hook(&ops);
	return &ops;
}

struct rl_policy *sim_policy(void)
{
	return &policy;
}

void sim_set_sample_shift(u32 shift)
{
	sample_shift = shift;
}

/* Sums over all CPUs. */
void sim_counters(struct rl_cpu_stats *sum)
{
	u32 cpu, i;

	memset(sum, 0, sizeof(*sum));
	for (cpu = 0; stats.value && cpu < nr_cpu_ids; cpu++) {
		for (i = 0; i < RL_NR_COUNTERS; i++)
			sum->counters[i] += stats.value[cpu].counters[i];
		for (i = 0; i < RL_HIST_BUCKETS; i++)
			sum->wait_hist[i] += stats.value[cpu].wait_hist[i];
	}
}

void scx_bpf_error(const char *format, ...)
{
	char message[256];
	va_list args;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	sim_error(message);
}
