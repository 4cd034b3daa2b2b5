/* SPDX-License-Identifier: GPL-2.0-only */
/* What the scheduler knows: its configuration, the domains, the tasks, the counters, and how to look them up. */
#ifndef __SCX_RL_STATE_BPF_H
#define __SCX_RL_STATE_BPF_H

#include <scx/common.bpf.h>
#include <bpf_atomic.h>
#include "slots.h"

#define RL_NO_DOMAIN RL_MAX_DOMAINS
#define RL_NEVER (~0ULL)

/* Configuration, written by userspace before load. */
const volatile u32 nr_cpu_ids = 1; /* one more than the last CPU that is online */
const volatile u32 nr_domains = 1;
const volatile bool smt_enabled;
/* A task keeps its CPU for at most this long while others wait, and for at least slice_min_ns: see allowed_ns(). */
const volatile u64 slice_ns = 20000000;
const volatile u64 slice_min_ns = 2000000;
/* Mechanisms switched off for an ablation: enum rl_without. */
const volatile u32 without;
/* The policy chooses how long turns last, too: see turn.bpf.h. */
const volatile bool learn_slices;
/* No task waits longer than this because the policy said so. */
const volatile u64 wait_bound_ns = 20000000;
/* How often decisions may move tasks out of a domain, by enum rl_distance: one in so many ns; 0: no limit. */
const volatile u64 migration_ns[RL_NR_DISTANCES];
const volatile u16 cpu_domain[RL_MAX_CPUS];
const volatile u64 domain_cpus[RL_MAX_DOMAINS][RL_MAX_CPUS / 64];
const volatile u32 domain_nr_cpus[RL_MAX_DOMAINS];
/* enum rl_distance between two domains */
const volatile u8 domain_distance[RL_MAX_DOMAINS][RL_MAX_DOMAINS];
/* the other domains, nearest first: nr_domains - 1 entries in each row */
const volatile u16 domain_neighbours[RL_MAX_DOMAINS][RL_MAX_DOMAINS];

/* Written by userspace at any time: log a decision with probability 2^-sample_shift. */
u32 sample_shift;

/* A CPU goes offline, and the kernel is about to end this scheduler: see rl_kick_idle(). */
bool cpu_leaves;

/*
 * Queues. Each is a DSQ ordered by deadline, with a clock of virtual time: one for each domain, whose id is the domain's,
 * and one for each CPU, where tasks wait that can run nowhere else.
 */
#define RL_CPU_QUEUE RL_MAX_DOMAINS
#define RL_MAX_QUEUES (RL_MAX_DOMAINS + RL_MAX_CPUS)

struct clock {
	u64 now; /* virtual time, ns of a task of weight 100: the largest of those first in line, or RL_CRAWL */
	s64 offset; /* of a CPU's queue: its time plus this is the domain's time. See rl_align(). */
	/* What `now` was at marked_at_ns. See advance(). */
	u64 marked;
	u64 marked_at_ns;
	u64 looked_at_ns; /* somebody last looked at the first task then */
	u64 scanned_at_ns; /* and at the last ones, for who starves */
} __attribute__((aligned(64)));

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct clock);
	__uint(max_entries, RL_MAX_QUEUES);
} clocks SEC(".maps");

/* A scheduling domain: a queue, the CPUs that serve it, and what is known about them. */
struct domain_ctx {
	struct bpf_cpumask __kptr *cpumask;
	/* What follows is written all the time, the mask only read. */
	u64 run_avg_ns __attribute__((aligned(64)));
	u64 idle_wake_ns; /* running mean: from a wakeup to running, where an idle CPU was claimed */
	s64 move_extra_ns; /* running mean: service after a move into it, less the usual */
	u64 first_burst_ns; /* running mean: what new tasks run before they first sleep, or exit */
	/* The last task that left the queue had waited last_wait_ns, at last_served_ns: see domain_head_age(). */
	u64 last_wait_ns;
	u64 last_served_ns;
	u64 enqueued_at_ns; /* the last insertion was decided then; see look_again() */
	/* A hint for choosing between domains; the kernel's own idle mask decides whether a CPU can be claimed. */
	u32 nr_idle;
	u64 moves_until_ns[RL_NR_DISTANCES]; /* token buckets: see rl_too_many_moves() */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct domain_ctx);
	__uint(max_entries, RL_MAX_DOMAINS);
} domains SEC(".maps");

enum pending_state {
	PENDING_FREE,
	PENDING_FILLING, /* being written by the CPU that decided */
	PENDING_WAITING, /* the task has not run since */
	PENDING_RUNNING, /* in its first period on CPU since */
};

/* A sampled decision whose outcome is not known yet. */
struct pending {
	u32 state; /* enum pending_state, changed by compare-and-swap */
	u32 pad;
	u64 nr_runs; /* of the task when it was decided */
	struct rl_event event;
};

struct task_ctx {
	u32 home;     /* the domain that it is queued in, or was last */
	u32 ran_dom;  /* the domain that it last ran in; RL_NO_DOMAIN: never ran */
	u64 queued_at_ns;  /* it waits for a CPU since then; 0: it does not wait */
	u64 running_at_ns; /* it runs since then; 0: it does not run */
	u64 charged_at_ns; /* vtime and burst_ns have what it ran until then; 0: it does not run */
	u64 stopped_at_ns; /* it last left a CPU; 0: never ran */
	u64 slept_at_ns;   /* it sleeps since then; 0: it does not sleep */
	u64 moved_at_ns;   /* it last changed domain; 0: never */
	u64 vtime;         /* virtual time on the clock of `queue` */
	u64 burst_ns;      /* time on CPU since it last slept */
	u64 slice_used_ns; /* of the slice that it was given when it last left a queue */
	u64 burst_avg_ns;  /* running mean of that: how much it usually wants */
	u64 prepaid_ns;    /* of a new task: what of its first burst is in vtime already; see rl_enable() */
	u64 woke_at_ns;    /* it first woke another then, in this period on CPU; 0: it did not */
	u64 wake_tail_ns;  /* running mean: from there to the end of the period */
	u64 run_avg_ns; /* running mean of a period on CPU, but for those after a move */
	u64 whole_avg_ns; /* the same, of periods that were a whole burst */
	u64 sleep_avg_ns;
	s64 move_extra_ns; /* mean: service after a move, less the usual */
	u32 moves;    /* it is of so many moves, RL_MOVES_MEAN at most */
	u64 nr_runs;
	u32 queue;     /* whose clock its vtime is on */
	u32 weight;    /* as of the last change; 0: not known yet */
	bool from_dsq; /* it waited in a queue, so its wait says something about that queue */
	bool direct;   /* it was sent to an idle CPU */
	bool sent;     /* rl_select_cpu() has found its CPU, rl_enqueue() puts it there */
	bool asked;    /* since it last ran, a wakeup may have asked the policy */
	bool sync;     /* its waker is about to sleep */
	bool yielded;  /* it asked to be last in line */
	bool moved;    /* this period on CPU is the first in another domain */
	struct pending pending[RL_NR_POINTS];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_ctx);
} tasks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, u32);
	__type(value, struct rl_cpu_stats);
	__uint(max_entries, 1);
} stats SEC(".maps");

struct cpu_ctx {
	/* scratch: the intersection of a domain and a task's affinity */
	struct bpf_cpumask __kptr *mask;
	/* counted in its domain's nr_idle */
	u32 idle;
	/* a tick sent it to this domain, plus one, for a waiter past the bound */
	u32 rescue;
	/* its last dispatch took a task from elsewhere ahead of its own queue */
	u32 pulled;
	/* in a row, it found nothing and looked again at once, last at looked_at_ns: see look_again() */
	u32 looks;
	/* somebody is about to run here instead of the task that does */
	u32 preempted;
	/* somebody would have preempted it, had it not just begun: at the next tick, then */
	u32 wanted;
	/* What runs here, for those who consider to preempt it: since when, with which deadline on the clock of `queue`. */
	u32 queue;
	u64 granted_at_ns; /* 0: nothing of ours */
	u64 used_ns; /* of its slice before that: it was preempted for a moment */
	u64 deadline;
	u64 burst_ns; /* of that task, then */
	u64 burst_avg_ns; /* likewise */
	u64 compared_at_ns; /* it looked at other domains then */
	u64 looked_at_ns;
	u64 dispatched_at_ns; /* it asked for a task then, so its local DSQ was empty */
} __attribute__((aligned(64)));

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct cpu_ctx);
	__uint(max_entries, RL_MAX_CPUS);
} cpus SEC(".maps");

/* The question being asked on this CPU: off the stack, of which the forward pass needs most. Interrupts are off. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, u32);
	__type(value, struct rl_ask);
	__uint(max_entries, 1);
} asks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

static __always_inline void count_add(enum rl_counter counter, u64 n)
{
	u32 zero = 0;
	struct rl_cpu_stats *s = bpf_map_lookup_elem(&stats, &zero);

	if (s && counter < RL_NR_COUNTERS)
		s->counters[counter] += n;
}

#define count(name) count_add(RL_CNT_##name, 1)

static __always_inline void count_wait(u64 wait_ns)
{
	u32 zero = 0, bucket;
	struct rl_cpu_stats *s = bpf_map_lookup_elem(&stats, &zero);

	if (!s)
		return;
	bucket = wait_ns < 2000 ? 0 : log2_u64(wait_ns / 1000) - 1;
	if (bucket >= RL_HIST_BUCKETS)
		bucket = RL_HIST_BUCKETS - 1;
	s->wait_hist[bucket]++;
	s->counters[RL_CNT_runs]++;
	s->counters[RL_CNT_wait_sum_ns] += wait_ns;
}

static __always_inline struct task_ctx *lookup_task(struct task_struct *p)
{
	return bpf_task_storage_get(&tasks, p, 0, 0);
}

static __always_inline struct cpu_ctx *lookup_cpu(s32 cpu)
{
	return bpf_map_lookup_elem(&cpus, &cpu);
}

/*
 * Kick a CPU if it is idle. Not once a CPU leaves: a kick is an irq_work of the CPU that kicks, and after the last steps before it
 * is gone, its local APIC off and its list of irq_work run once more, the interrupt for it is lost. From then on the kernel takes
 * that list for one that is on its way, and runs none of it when the CPU is back: no kicks, no memory for BPF, no end of a
 * scheduler. (The flag is set by cpu_offline; a CPU that fails to come up leaves without it.) Until the kernel bypasses us, which
 * is the first thing it then does, tasks may wait beside an idle CPU.
 */
static __always_inline void rl_kick_idle(s32 cpu)
{
	if (!READ_ONCE(cpu_leaves))
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

static __always_inline struct domain_ctx *lookup_domain(u32 id)
{
	return bpf_map_lookup_elem(&domains, &id);
}

/* The domain of a CPU. Every CPU that is online has one, but for a moment: when one comes, until that restarts the scheduler. */
static __always_inline u32 domain_of(s32 cpu)
{
	u32 id = cpu >= 0 && cpu < RL_MAX_CPUS ? cpu_domain[cpu] : 0;

	return id < nr_domains ? id : 0;
}

/* Domain ids are valid wherever they come from; the mask is for the verifier, which clang's merged tests confuse. */
#define RL_DOMAIN_MASK (RL_MAX_DOMAINS - 1)

static __always_inline u32 distance_between(u32 a, u32 b)
{
	return domain_distance[a & RL_DOMAIN_MASK][b & RL_DOMAIN_MASK];
}

static __always_inline u32 nr_cpus_of(u32 id)
{
	return domain_nr_cpus[id & RL_DOMAIN_MASK];
}

static __always_inline u64 *clock_of(u32 queue)
{
	struct clock *clock = bpf_map_lookup_elem(&clocks, &queue);

	return clock ? &clock->now : NULL;
}

static __always_inline u32 nr_queued(u64 dsq)
{
	s32 n = scx_bpf_dsq_nr_queued(dsq);

	return n > 0 ? n : 0;
}

/* Never asked, never explored: the task has no choice of CPU. */
static __always_inline bool is_pinned(const struct task_struct *p)
{
	return p->nr_cpus_allowed == 1 || is_migration_disabled(p);
}

/* Can the task run in the domain? */
static __always_inline bool domain_allowed(struct domain_ctx *dom, const struct task_struct *p)
{
	struct bpf_cpumask *mask = dom->cpumask;

	return mask && bpf_cpumask_intersects(cast_mask(mask), p->cpus_ptr);
}

/*
 * How long tasks wait in a queue now, estimated without its lock: the one that was served last had waited last_wait_ns
 * then, and most of those behind it have waited on since. The queue is ordered by virtual time, so a task far behind may
 * have waited longer: the tick, which enforces the bound, looks at the tasks themselves.
 */
static __always_inline u64 domain_head_age(struct domain_ctx *dom, u32 queued, u64 now)
{
	u64 served = READ_ONCE(dom->last_served_ns);

	if (!queued)
		return 0;
	return READ_ONCE(dom->last_wait_ns) + (time_before(served, now) ? now - served : 0);
}

/* Is a mechanism part of the scheduler? All are, but in ablations. */
static __always_inline bool with(u32 mechanism)
{
	return !(without & mechanism);
}

/* Load of a queue: tasks per CPU that serves it, in 16ths, rounded up: among many CPUs a single waiter is not nothing. */
static __always_inline u32 load16(u32 queued, u32 nr_cpus)
{
	return nr_cpus ? (queued * 16 + nr_cpus - 1) / nr_cpus : queued * 16;
}

/* Running mean with weight 1/8 for the newest value. */
static __always_inline u64 mean8(u64 mean, u64 value)
{
	return mean ? mean - (mean >> 3) + (value >> 3) : value;
}

/* The part of span since then, RL_NEVER if it never was. */
static __always_inline u64 since(u64 then, u64 now)
{
	if (!then)
		return RL_NEVER;
	return time_before(then, now) ? now - then : 0;
}

#endif /* __SCX_RL_STATE_BPF_H */
