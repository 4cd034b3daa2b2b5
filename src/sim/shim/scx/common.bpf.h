/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Takes the place of scx's header of this name when src/bpf/main.bpf.c is compiled for the simulator: BPF's macros, its
 * helpers, maps, and the kernel's functions (kfuncs) for schedulers. What needs the simulated machine is declared here
 * and defined in src/sim/kfuncs.rs; what does not is done here.
 */
#ifndef __SCX_RL_SIM_COMMON_BPF_H
#define __SCX_RL_SIM_COMMON_BPF_H

#include "../kernel.h"

#define SEC(name)
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
#define __noinline __attribute__((noinline))
#define __kptr
#define __arg_trusted
#define __arg_nonnull

#define PF_EXITING 0x00000004U
#define PF_KTHREAD 0x00200000U

/* The values are those of Linux 6.17; src/sim/ffi.rs has those that the simulator itself needs. */
enum sim_scx_enums {
	SCX_TASK_QUEUED = 1 << 0,
	SCX_WAKE_FORK = 0x04,
	SCX_WAKE_TTWU = 0x08,
	SCX_WAKE_SYNC = 0x10,
	SCX_ENQ_WAKEUP = 0x01,
	SCX_ENQ_HEAD = 0x10,
	SCX_DEQ_SLEEP = 0x01,
	SCX_KICK_IDLE = 1,
	SCX_KICK_PREEMPT = 2,
	SCX_PICK_IDLE_CORE = 1,
	SCX_DSQ_ITER_REV = 1 << 16,
};
#define SCX_ENQ_PREEMPT (1ULL << 32)
#define SCX_DSQ_FLAG_BUILTIN (1ULL << 63)
#define SCX_DSQ_FLAG_LOCAL_ON (1ULL << 62)
#define SCX_DSQ_GLOBAL (SCX_DSQ_FLAG_BUILTIN | 1)
#define SCX_DSQ_LOCAL (SCX_DSQ_FLAG_BUILTIN | 2)
#define SCX_DSQ_LOCAL_ON (SCX_DSQ_FLAG_BUILTIN | SCX_DSQ_FLAG_LOCAL_ON)

extern struct sim_context sim_context;

static inline bool time_before(u64 a, u64 b)
{
	return (s64)(a - b) < 0;
}

/* As in scx's common.bpf.h: one more than the floor of the logarithm; 1 for 0. */
static inline u32 log2_u64(u64 v)
{
	return v ? 64 - __builtin_clzll(v) : 1;
}

/* Programs */

struct scx_init_task_args {
	bool fork;
};

struct scx_cpu_release_args {
	u32 reason;
	struct task_struct *task;
};

struct scx_exit_info {
	u32 kind;
};

struct sched_ext_ops {
	s32 (*select_cpu)(struct task_struct *p, s32 prev_cpu, u64 wake_flags);
	void (*enqueue)(struct task_struct *p, u64 enq_flags);
	void (*dispatch)(s32 cpu, struct task_struct *prev);
	bool (*yield)(struct task_struct *from, struct task_struct *to);
	void (*runnable)(struct task_struct *p, u64 enq_flags);
	void (*running)(struct task_struct *p);
	void (*stopping)(struct task_struct *p, bool runnable);
	void (*quiescent)(struct task_struct *p, u64 deq_flags);
	void (*tick)(struct task_struct *p);
	void (*update_idle)(s32 cpu, bool idle);
	void (*set_weight)(struct task_struct *p, u32 weight);
	void (*set_cpumask)(struct task_struct *p, const struct cpumask *cpumask);
	void (*cpu_release)(s32 cpu, struct scx_cpu_release_args *args);
	void (*cpu_offline)(s32 cpu); /* never called: the CPUs of a run stay the same */
	void (*enable)(struct task_struct *p);
	void (*disable)(struct task_struct *p);
	s32 (*init_task)(struct task_struct *p, struct scx_init_task_args *args);
	s32 (*init)(void);
	void (*exit)(struct scx_exit_info *info);
	const char *name;
};

#define BPF_STRUCT_OPS(name, args...) name(args)
#define BPF_STRUCT_OPS_SLEEPABLE(name, args...) name(args)
#define SCX_OPS_DEFINE(name, ...) struct sched_ext_ops name = { __VA_ARGS__ }
#define UEI_DEFINE(name) u32 name
#define UEI_RECORD(name, info) ((name) = (info)->kind)

/* Loops and iterators */

#define bpf_for(i, start, end) for ((i) = (start); (i) < (end); (i)++)

struct bpf_iter_scx_dsq {
	u64 dsq;
	u64 flags;
	u64 next; /* index of what comes next; one more than that in reverse */
	u64 last; /* pid of the task that was returned last; 0: none */
	u64 seq;  /* of the youngest task in the queue when the iteration began */
};

s32 bpf_iter_scx_dsq_new(struct bpf_iter_scx_dsq *it, u64 dsq, u64 flags);
struct task_struct *bpf_iter_scx_dsq_next(struct bpf_iter_scx_dsq *it);

static inline void sim_iter_end(struct bpf_iter_scx_dsq *it)
{
	it->last = 0;
}

#define BPF_FOR_EACH_ITER (&___it)
#define bpf_for_each(type, cur, args...)                                                                               \
	for (struct bpf_iter_##type ___it __attribute__((cleanup(sim_iter_end))),                                      \
	     *___p __attribute__((unused)) = (bpf_iter_##type##_new(&___it, ##args), (void *)0);                       \
	     ((cur) = bpf_iter_##type##_next(&___it));)

/*
 * Maps. The scheduler declares them as for libbpf, whose macros put numbers and types into the types of pointers. On
 * the host the pointer `value` points to the map's memory, which is got at its first use.
 */

#define BPF_MAP_TYPE_ARRAY 2
#define BPF_MAP_TYPE_PERCPU_ARRAY 6
#define BPF_MAP_TYPE_RINGBUF 27
#define BPF_MAP_TYPE_TASK_STORAGE 29
#define BPF_F_NO_PREALLOC 1
#define BPF_LOCAL_STORAGE_GET_F_CREATE 1
#define BPF_RB_NO_WAKEUP 1

#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#define sim_number(field) (sizeof(*(field)) / sizeof(int))

/* Zeroed memory that lives until the next sim_reset(); NULL, and an error, if there is none. */
void *sim_alloc(u64 bytes);

static __always_inline void *sim_element(void **memory, u32 type, u32 entries, u64 bytes, u32 key)
{
	u64 copies = type == BPF_MAP_TYPE_PERCPU_ARRAY ? RL_MAX_CPUS : 1;

	if (key >= entries)
		return NULL;
	if (!*memory) {
		*memory = sim_alloc(copies * entries * bytes);
		if (!*memory)
			return NULL;
	}
	if (type == BPF_MAP_TYPE_PERCPU_ARRAY)
		key += entries * (u32)sim_context.cpu;
	return (char *)*memory + key * bytes;
}

#define bpf_map_lookup_elem(map, key)                                                                                  \
	((typeof((map)->value))sim_element((void **)&(map)->value, sim_number((map)->type),                            \
					   sim_number((map)->max_entries), sizeof(*(map)->value), *(u32 *)(key)))

/* There is one task storage map; its elements hang on the tasks. */
static __always_inline void *sim_task_element(struct task_struct *p, u64 bytes, u64 flags)
{
	if (!p)
		return NULL;
	if (!p->storage && (flags & BPF_LOCAL_STORAGE_GET_F_CREATE))
		p->storage = sim_alloc(bytes);
	return p->storage;
}

#define bpf_task_storage_get(map, p, init, flags)                                                                      \
	((typeof((map)->value))sim_task_element((p), sizeof(*(map)->value), (flags)))

/* One record at a time is reserved, as nothing interrupts the scheduler's code. Both are in kfuncs.rs. */
void *sim_ring_reserve(u64 bytes);
void sim_ring_submit(void *record);

#define bpf_ringbuf_reserve(ring, bytes, flags) ((void)(ring), sim_ring_reserve(bytes))
#define bpf_ringbuf_submit(record, flags) sim_ring_submit(record)

/* Helpers */

u32 bpf_get_prandom_u32(void);
struct task_struct *bpf_get_current_task_btf(void);
void sim_error(const char *message);
__attribute__((format(printf, 1, 2))) void scx_bpf_error(const char *format, ...);
#define scx_bpf_exit(code, args...) scx_bpf_error(args)

#define bpf_get_smp_processor_id() (sim_context.cpu)
#define scx_bpf_now() (sim_context.now_ns)
#define bpf_rcu_read_lock() ((void)0)
#define bpf_rcu_read_unlock() ((void)0)
#define bpf_kptr_xchg(where, new)                                                                                      \
	({                                                                                                             \
		typeof(*(where)) ___old = *(where);                                                                    \
		*(where) = (new);                                                                                      \
		___old;                                                                                                \
	})

/* Sets of CPUs */

static inline u32 sim_words(void)
{
	return (sim_context.nr_cpu_ids + 63) / 64;
}

static __always_inline struct cpumask *cast_mask(struct bpf_cpumask *mask)
{
	return (struct cpumask *)mask;
}

static inline struct bpf_cpumask *bpf_cpumask_create(void)
{
	return sim_alloc(sizeof(struct bpf_cpumask));
}

#define bpf_cpumask_release(mask) ((void)(mask))

static inline bool bpf_cpumask_test_cpu(u32 cpu, const struct cpumask *mask)
{
	return cpu < sim_context.nr_cpu_ids && (mask->bits[cpu / 64] >> (cpu % 64) & 1);
}

static inline void bpf_cpumask_set_cpu(u32 cpu, struct bpf_cpumask *mask)
{
	if (cpu < sim_context.nr_cpu_ids)
		mask->cpumask.bits[cpu / 64] |= 1ULL << (cpu % 64);
}

static inline bool bpf_cpumask_and(struct bpf_cpumask *dst, const struct cpumask *a, const struct cpumask *b)
{
	u64 any = 0;

	for (u32 i = 0; i < sim_words(); i++)
		any |= dst->cpumask.bits[i] = a->bits[i] & b->bits[i];
	return any;
}

static inline bool bpf_cpumask_intersects(const struct cpumask *a, const struct cpumask *b)
{
	for (u32 i = 0; i < sim_words(); i++)
		if (a->bits[i] & b->bits[i])
			return true;
	return false;
}

static inline bool bpf_cpumask_subset(const struct cpumask *a, const struct cpumask *b)
{
	for (u32 i = 0; i < sim_words(); i++)
		if (a->bits[i] & ~b->bits[i])
			return false;
	return true;
}

static inline bool bpf_cpumask_empty(const struct cpumask *a)
{
	return !bpf_cpumask_intersects(a, a);
}

u32 bpf_cpumask_any_and_distribute(const struct cpumask *a, const struct cpumask *b);

static inline u32 bpf_cpumask_any_distribute(const struct cpumask *a)
{
	return bpf_cpumask_any_and_distribute(a, a);
}

/* What sched_ext offers */

#define is_migration_disabled(p) ((p)->migration_disabled != 0)

static inline s32 scx_bpf_task_cpu(const struct task_struct *p)
{
	return p->cpu;
}

static inline bool scx_bpf_task_set_slice(struct task_struct *p, u64 slice)
{
	p->scx.slice = slice;
	return true;
}

#define scx_bpf_nr_cpu_ids() (sim_context.nr_cpu_ids)
s32 scx_bpf_create_dsq(u64 dsq, s32 node);
s32 scx_bpf_dsq_nr_queued(u64 dsq);
void scx_bpf_dsq_insert(struct task_struct *p, u64 dsq, u64 slice, u64 enq_flags);
void scx_bpf_dsq_insert_vtime(struct task_struct *p, u64 dsq, u64 slice, u64 vtime, u64 enq_flags);
bool scx_bpf_dsq_move(struct bpf_iter_scx_dsq *it, struct task_struct *p, u64 dsq, u64 enq_flags);
bool scx_bpf_dsq_move_to_local(u64 dsq, u64 enq_flags);
u32 scx_bpf_reenqueue_local(void);
/* Nothing leaves the class here. */
static inline bool __COMPAT_has_generic_reenq(void)
{
	return false;
}
static inline void scx_bpf_dsq_reenq(u64 dsq, u64 flags)
{
}
void scx_bpf_kick_cpu(s32 cpu, u64 flags);
bool scx_bpf_test_and_clear_cpu_idle(s32 cpu);
s32 scx_bpf_pick_idle_cpu(const struct cpumask *allowed, u64 flags);
struct cpumask *scx_bpf_get_idle_cpumask(void);
#define scx_bpf_put_idle_cpumask(mask) ((void)(mask))

#endif /* __SCX_RL_SIM_COMMON_BPF_H */
