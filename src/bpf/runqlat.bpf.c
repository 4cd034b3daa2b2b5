/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Runqueue latency of every task, whichever scheduler runs: the yardstick all schedulers are compared by.
 *
 * A wait begins at sched_wakeup / sched_wakeup_new (the task is queued: ttwu_do_wakeup, so an IPI on the way there is
 * not part of it), or at sched_switch when the task that leaves the CPU could go on running (preemption, yield). It
 * ends at the sched_switch that puts the task on a CPU. The same switch counts the migration, by the nearest level of
 * the machine that the CPU shares with the one the task ran on before.
 *
 * Counters only ever grow, so that userspace can take differences without a race; a maximum cannot be subtracted, so it
 * belongs to an epoch that userspace advances. The layout of struct rq_cpu is repeated in src/runqlat/counts.rs.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

char _license[] SEC("license") = "GPL";

enum rq_limits {
	RQ_MAX_CPUS = 1024,
	/* Each power of two of microseconds has this many linear buckets; below 1 us they are 1/16 us wide. */
	RQ_SUB_BITS = 4,
	RQ_SUB = 1 << RQ_SUB_BITS,
	/* 2^32 us is 71 minutes; longer waits are counted in the last bucket. */
	RQ_OCTAVES = 32,
	RQ_BUCKETS = RQ_SUB * (1 + RQ_OCTAVES),
};

enum rq_kind { RQ_WAKEUP = 0, RQ_PREEMPT = 1, RQ_NR_KINDS = 2 };

/* The nearest level two CPUs share. */
enum rq_distance { RQ_CORE = 0, RQ_LLC = 1, RQ_NODE = 2, RQ_NUMA = 3, RQ_NR_DISTANCES = 4 };

struct rq_hist {
	u64 buckets[RQ_BUCKETS];
	u64 sum_ns;
	u64 max_ns;
	u64 max_epoch;
};

struct rq_cpu {
	struct rq_hist hist[RQ_NR_KINDS];
	u64 migrations[RQ_NR_DISTANCES];
	u64 missed; /* waits whose begin or end was not seen, or that there was no room to record */
};

/* Who waited longest; src/runqlat/longest.rs repeats the layout. Waits of less are not worth the look. */
#define RQ_LONGEST_NS 1000000
#define RQ_PRIO_NICE_0 120
enum rq_longest_of { RQ_USUAL = 0, RQ_NICED = 1, RQ_NR_LONGEST = 2 };

struct rq_longest {
	u64 wait_ns;
	u64 epoch;
	s32 pid;
	s32 prio;
	char comm[16];
};

struct rq_task {
	u64 since_ns; /* 0: not waiting */
	u32 kind;     /* enum rq_kind */
	u32 last_cpu; /* plus one; 0: not known yet */
};

struct rq_place {
	u16 core;
	u16 llc;
	u16 node;
	u16 known;
};

/* Filled from the topology before the programs are loaded. */
const volatile struct rq_place places[RQ_MAX_CPUS];

u64 epoch = 1;
/* What the iterator found: tasks that are waiting now, and since how long. A starved task is in no histogram. */
u64 waiting_tasks;
u64 waiting_oldest_ns;

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct rq_task);
} tasks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct rq_cpu);
} cpus SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, RQ_NR_LONGEST);
	__type(key, u32);
	__type(value, struct rq_longest);
} longest SEC(".maps");

static __always_inline struct rq_cpu *this_cpu(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&cpus, &zero);
}

static __always_inline struct rq_task *task_of(struct task_struct *p)
{
	return bpf_task_storage_get(&tasks, p, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
}

/* floor(log2(v)) of v > 0 without a loop. */
static __always_inline u32 log2_floor(u64 v)
{
	u32 log = 0;

	if (v >> 32) {
		log += 32;
		v >>= 32;
	}
	if (v >> 16) {
		log += 16;
		v >>= 16;
	}
	if (v >> 8) {
		log += 8;
		v >>= 8;
	}
	if (v >> 4) {
		log += 4;
		v >>= 4;
	}
	if (v >> 2) {
		log += 2;
		v >>= 2;
	}
	return log + (v >> 1);
}

/* runqlat::hist::bucket_of is the same function. */
static __always_inline u64 bucket_of(u64 wait_ns)
{
	u64 sixteenths_us = wait_ns * 2 / 125, octave, bucket;

	if (sixteenths_us < RQ_SUB)
		return sixteenths_us;
	octave = log2_floor(sixteenths_us) - RQ_SUB_BITS;
	bucket = (octave + 1) * RQ_SUB + ((sixteenths_us >> octave) & (RQ_SUB - 1));
	return bucket < RQ_BUCKETS ? bucket : RQ_BUCKETS - 1;
}

static __always_inline void record(struct rq_cpu *c, u32 kind, u64 wait_ns)
{
	struct rq_hist *h = &c->hist[kind == RQ_PREEMPT ? RQ_PREEMPT : RQ_WAKEUP];
	u64 bucket = bucket_of(wait_ns);

	/* Always true. The barrier keeps the test, which tells the verifier, on the register that is used. */
	barrier_var(bucket);
	if (bucket < RQ_BUCKETS)
		h->buckets[bucket]++;
	h->sum_ns += wait_ns;
	if (h->max_epoch != epoch) {
		h->max_epoch = epoch;
		h->max_ns = 0;
	}
	if (wait_ns > h->max_ns)
		h->max_ns = wait_ns;
}

static __always_inline void record_longest(struct task_struct *p, u64 wait_ns)
{
	u32 of = p->prio > RQ_PRIO_NICE_0 ? RQ_NICED : RQ_USUAL;
	struct rq_longest *l = bpf_map_lookup_elem(&longest, &of);

	if (!l || (l->epoch == epoch && l->wait_ns >= wait_ns))
		return;
	l->epoch = epoch;
	l->wait_ns = wait_ns;
	l->pid = p->pid;
	l->prio = p->prio;
	bpf_probe_read_kernel_str(l->comm, sizeof(l->comm), p->comm);
}

static __always_inline void record_migration(struct rq_cpu *c, u32 from, u32 to)
{
	/* Userspace refuses machines with more CPUs; the mask tells the verifier. */
	const volatile struct rq_place *a = &places[from & (RQ_MAX_CPUS - 1)];
	const volatile struct rq_place *b = &places[to & (RQ_MAX_CPUS - 1)];

	/* A CPU that came online after the start has no place in the table. */
	if (!a->known || !b->known)
		return;
	if (a->core == b->core)
		c->migrations[RQ_CORE]++;
	else if (a->llc == b->llc)
		c->migrations[RQ_LLC]++;
	else if (a->node == b->node)
		c->migrations[RQ_NODE]++;
	else
		c->migrations[RQ_NUMA]++;
}

static __always_inline void missed(void)
{
	struct rq_cpu *c = this_cpu();

	if (c)
		c->missed++;
}

static __always_inline void wait_begins(struct task_struct *p, u32 kind, u64 now)
{
	struct rq_task *t = task_of(p);

	/* No memory: counted at the end of the wait, where it is known that a sample was lost. */
	if (!t || t->since_ns)
		return;
	t->kind = kind;
	t->since_ns = now;
}

/* Kernels differ in the width of the field; this reads whichever it is. (The macro has a `p` of its own.) */
static __always_inline bool on_cpu(struct task_struct *task)
{
	return BPF_CORE_READ_BITFIELD(task, on_cpu);
}

static __always_inline int wakeup(struct task_struct *p)
{
	/*
	 * A task that is woken on its way to sleep is still on its CPU: it waits for nothing. One that was preempted on
	 * its way to sleep is waiting already, and wait_begins() keeps the earlier time.
	 */
	if (on_cpu(p) || !p->pid)
		return 0;
	wait_begins(p, RQ_WAKEUP, bpf_ktime_get_ns());
	return 0;
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(rq_wakeup, struct task_struct *p)
{
	return wakeup(p);
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(rq_wakeup_new, struct task_struct *p)
{
	return wakeup(p);
}

static __always_inline void wait_ends(struct task_struct *p, u64 now)
{
	u32 cpu = bpf_get_smp_processor_id();
	struct rq_task *t = task_of(p);
	struct rq_cpu *c = this_cpu();

	if (!t) {
		missed();
		return;
	}
	if (!c)
		return;
	if (t->since_ns) {
		/* The clocks of two CPUs may differ by a little. */
		u64 wait_ns = now > t->since_ns ? now - t->since_ns : 0;

		record(c, t->kind, wait_ns);
		if (wait_ns > RQ_LONGEST_NS)
			record_longest(p, wait_ns);
		t->since_ns = 0;
	} else if (t->last_cpu) {
		/* Not the first sight of the task, and yet it runs without having waited. */
		c->missed++;
	}
	if (t->last_cpu && t->last_cpu != cpu + 1)
		record_migration(c, t->last_cpu - 1, cpu);
	t->last_cpu = cpu + 1;
}

/*
 * A task goes to sleep. If a wait of its is still open, the switch that ended it was not seen; the next wakeup must not
 * take that wait for its own.
 */
static __always_inline void sleeps(struct task_struct *p)
{
	struct rq_task *t = bpf_task_storage_get(&tasks, p, NULL, 0);

	if (t && t->since_ns) {
		t->since_ns = 0;
		missed();
	}
}

SEC("tp_btf/sched_switch")
int BPF_PROG(rq_switch, bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int prev_state)
{
	u64 now = bpf_ktime_get_ns();

	/* A preempted task is runnable whatever its state says: it may have been about to sleep. */
	if (prev->pid) {
		if (preempt || !prev_state)
			wait_begins(prev, RQ_PREEMPT, now);
		else
			sleeps(prev);
	}
	if (next->pid)
		wait_ends(next, now);
	return 0;
}

/* Read by userspace at a snapshot: one pass over all threads. */
SEC("iter/task")
int rq_waiting(struct bpf_iter__task *ctx)
{
	struct task_struct *p = ctx->task;
	u64 now = bpf_ktime_get_ns(), since_ns;
	struct rq_task *t;

	if (!p)
		return 0;
	t = bpf_task_storage_get(&tasks, p, NULL, 0);
	if (!t)
		return 0;
	since_ns = *(volatile u64 *)&t->since_ns;
	if (!since_ns || since_ns >= now)
		return 0;
	waiting_tasks++;
	if (now - since_ns > waiting_oldest_ns)
		waiting_oldest_ns = now - since_ns;
	return 0;
}
