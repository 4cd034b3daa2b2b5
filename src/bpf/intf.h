/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The one contract between the BPF side, the host build of the same C, and Rust (through bindgen): limits, the feature
 * vector, the weights, and the decision event. Everything that crosses a boundary is defined here and nowhere else.
 */
#ifndef __SCX_RL_INTF_H
#define __SCX_RL_INTF_H

#ifndef __VMLINUX_H__
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char s8;
typedef signed short s16;
typedef signed int s32;
typedef signed long long s64;
#endif

enum rl_limits {
	RL_MAX_CPUS = 1024,
	RL_MAX_DOMAINS = 64,
	/* A decision compares the home domain with the best of at most this many others, nearest first. */
	RL_MAX_CANDIDATES = 8,

	RL_FEATURES = 18,
	/* Features are unsigned and at most this, so that the packed forward pass cannot carry between lanes. */
	RL_FEATURE_MAX = 127,
	/* One hidden layer: RL_GROUPS machine words of RL_LANES neurons each. */
	RL_LANES = 3,
	RL_GROUPS = 4,
	RL_HIDDEN = RL_LANES * RL_GROUPS,
	RL_LANE_BITS = 21,
	/* int8 weights are stored with this offset, so that a lane is never negative. */
	RL_WEIGHT_OFFSET = 128,
	RL_WEIGHT_MAX = 127,

	/* Fixed point: value = integer / 2^bits. */
	RL_FEATURE_BITS = 6,
	RL_WEIGHT_BITS = 5,
	/* logit = z >> RL_LOGIT_SHIFT, in units of 1/256. */
	RL_LOGIT_BITS = 8,
	RL_LOGIT_SHIFT = RL_FEATURE_BITS + 2 * RL_WEIGHT_BITS - RL_LOGIT_BITS,
	/* Logits saturate at +-8, where sigmoid is 0.99966. */
	RL_LOGIT_MAX = 8 << RL_LOGIT_BITS,

	/* Probabilities are integers out of 2^16; certainty is RL_PROB_ONE itself. */
	RL_PROB_BITS = 16,
	RL_PROB_ONE = 1 << RL_PROB_BITS,

	RL_EVENT_VERSION = 2,
};

/* The state of a published policy, in its slot, so that mode and weights can only change together. */
enum rl_mode {
	/* The network: an action is drawn, with the propensity that is logged. */
	RL_MODE_DRAW = 0,
	/* The network, always its better action: for comparison. */
	RL_MODE_GREEDY = 1,
	/* The fixed rule in policy.h. */
	RL_MODE_HEURISTIC = 2,
	/* A fair coin: the ablation that shows what exploration alone does. */
	RL_MODE_RANDOM = 3,
	/* The fixed rule between domains, the network (drawn) at TURN. No decision has this mode, but one of those two. */
	RL_MODE_TURNS = 4,
};

enum rl_point {
	/* A waking task: its home domain has no idle CPU; stay there or go to the candidate? */
	RL_POINT_WAKE = 0,
	/* A CPU looks at another domain's waiting task: leave it there or take it? */
	RL_POINT_PULL = 1,
	/* A tick, while others wait: does the turn of the task that runs end, or go on? So slices are chosen in ticks. */
	RL_POINT_TURN = 2,
	RL_NR_POINTS = 3,
};

enum rl_action {
	RL_STAY = 0,
	RL_MIGRATE = 1,
	/* at TURN */
	RL_END_TURN = 0,
	RL_GO_ON = 1,
};

/* The nearest level of the machine that two domains share. */
enum rl_distance {
	RL_DIST_SMT = 0, /* one core (only with explicit masks) */
	RL_DIST_LLC = 1, /* one last-level cache (L2 or virtual domains) */
	RL_DIST_NODE = 2, /* one NUMA node: the LLC changes */
	RL_DIST_NUMA = 3, /* nothing: the NUMA node changes */
	RL_NR_DISTANCES = 4,
};

/* Why an event is what it is. Any RL_CENSORED bit: the outcome is not a reward. */
enum rl_event_flags {
	RL_EV_CENSOR_EXIT = 1 << 0, /* the task exited or left the scheduler before it ran */
	RL_EV_CENSOR_AFFINITY = 1 << 1, /* its affinity changed while it waited */
	RL_EV_CENSOR_DEQUEUED = 1 << 3, /* it was dequeued for another reason before it ran */
	RL_EV_CENSORED = 0xb,
	/*
	 * The service period was a whole burst: it began after a sleep, and ended as the task left the queue (it slept, mostly).
	 * At TURN: it ended so.
	 */
	RL_EV_WHOLE = 1 << 4,
	RL_EV_REDECIDED = 1 << 5, /* a later PULL or TURN decision, or the bound, had a say in what came of it */
	RL_EV_KEPT = 1 << 6, /* the turn ended, and the task got the next one, too: there was no switch */
};

/*
 * One sampled decision with its outcome. Emitted when the service period after the decision has ended, or when the
 * outcome is censored. At TURN the task runs already: there is no wait, and the period is the rest of its turn. 96 bytes,
 * no padding.
 */
struct rl_event {
	u64 decided_at_ns; /* scx_bpf_now() at the decision */
	u64 generation; /* of the weights that decided */
	u64 wait_ns; /* decision -> the task runs (or is censored) */
	u64 service_ns; /* the first period on CPU after that */
	u64 usual_service_ns; /* the task's running mean of those that are whole; at TURN, the least that a waiting task wants */
	u64 waited_before_ns; /* how long it had been queued when the decision was taken (PULL) */
	s32 logit_q8; /* network output, 1/256; 0 where the mode does not use the network */
	u32 p_migrate_q16; /* of action 1: the integer that the sampler compared with, of RL_PROB_ONE */
	u32 tid;
	u16 home_dom;
	u16 other_dom;
	u16 ran_dom; /* where it ran in the end */
	u8 version; /* RL_EVENT_VERSION */
	u8 point; /* enum rl_point */
	u8 action; /* enum rl_action */
	u8 distance; /* enum rl_distance */
	u8 mode; /* enum rl_mode */
	u8 sample_shift; /* this decision was logged with probability 2^-sample_shift */
	u32 flags; /* enum rl_event_flags */
	u8 features[RL_FEATURES];
	u8 reserved[2];
};

/*
 * The network, quantised and packed: 18 features -> 12 ReLU -> 1 logit.
 * Word w1[g][f] holds the weights of feature f for the neurons 3g, 3g+1, 3g+2 in lanes of 21 bits, each weight plus
 * RL_WEIGHT_OFFSET. A lane of sum(x * w) is at most 18 * 127 * 255 < 2^20, so one multiplication serves three neurons.
 */
struct rl_weights {
	u64 w1[RL_GROUPS][RL_FEATURES];
	s32 b1[RL_HIDDEN]; /* 1 / 2^(FEATURE_BITS + WEIGHT_BITS) */
	s32 w2[RL_HIDDEN]; /* 1 / 2^WEIGHT_BITS, within +-RL_WEIGHT_MAX */
	s64 b2; /* 1 / 2^(FEATURE_BITS + 2 * WEIGHT_BITS) */
};

/*
 * The fixed rule of RL_MODE_HEURISTIC, in numbers of the same scale as the features: migrate where the queue per CPU is
 * shorter by a margin, and the task that waits longest at home waits long enough.
 */
struct rl_rule {
	u8 margin; /* by this, in 16ths of a task per CPU */
	u8 numa_margin; /* by this, if the NUMA node changes */
	u8 hot_margin; /* by this, if the task is hot: it left its CPU less than hot_since ago */
	u8 hot_since; /* as feature since_ran; 0: no task is hot */
	u8 idle_gain; /* an idle CPU there, and none at home, counts as a queue shorter by this */
	u8 head_age; /* as feature home_head_age: the least age, unless a CPU is idle there */
	u8 reserved[2];
};

/* Go where a CPU is idle, or the queue is shorter by a task per CPU (two across NUMA nodes). */
#define RL_RULE_DEFAULT ((struct rl_rule){ .margin = 16, .numa_margin = 32, .idle_gain = 255 })

/* A published policy. seq is odd while userspace writes (a sequence lock of one writer). */
struct rl_slot {
	u64 seq;
	u64 generation;
	u32 mode; /* enum rl_mode */
	u32 floor_q16; /* both actions keep at least this probability in RL_MODE_DRAW: exploration */
	struct rl_rule rule;
	struct rl_weights weights;
};

/* Userspace writes the slot that is not active, then switches. */
struct rl_policy {
	u64 active; /* 0 or 1 */
	struct rl_slot slots[2];
};

/* What one decision came to. */
struct rl_decision {
	u64 generation;
	s32 logit_q8;
	u32 p_migrate_q16;
	u32 mode;
	u32 action; /* enum rl_action */
};

/* Mechanisms of the base scheduler that an ablation can switch off: X(name, what is switched off) */
#define RL_MECHANISMS(X)                                                                                               \
	X(preempt, "a waking task that is gone in a moment takes a CPU from one that is not")                          \
	X(sync, "a wakee waits for its waker's CPU when that is faster than an idle one")                              \
	X(yield, "a yield just after a task began to run is ignored")                                                  \
	X(depth, "slices are shorter for tasks that do not sleep, and in long queues")                                 \
	X(request, "deadlines: short bursts go first among tasks with equal service")                                  \
	X(credit, "a sleeper comes back ahead of those that ran meanwhile")                                            \
	X(queued, "wakeups get to other CPUs by interrupts; a flag of the ops, BPF never asks")

enum rl_without {
#define RL_WITHOUT_SHIFT(name, desc) RL_WITHOUT_SHIFT_##name,
	RL_MECHANISMS(RL_WITHOUT_SHIFT)
#undef RL_WITHOUT_SHIFT
#define RL_WITHOUT_BIT(name, desc) RL_WITHOUT_##name = 1 << RL_WITHOUT_SHIFT_##name,
		RL_MECHANISMS(RL_WITHOUT_BIT)
#undef RL_WITHOUT_BIT
};

/* Counters, per CPU, in the order of this table. X(name, description) */
#define RL_COUNTERS(X)                                                                                                 \
	X(wake_decisions, "WAKE decisions: home has no idle CPU, and a candidate is legal")                            \
	X(pull_decisions, "PULL decisions: a CPU looked at a task that waits in another domain")                       \
	X(wake_migrated, "WAKE decisions that chose to migrate")                                                       \
	X(pull_migrated, "PULL decisions that chose to migrate")                                                       \
	X(turn_decisions, "TURN decisions: a tick while others wait, and the policy chooses slices")                   \
	X(turns_ended, "TURN decisions that ended the task's turn")                                                    \
	X(events_sampled, "decisions picked for logging")                                                              \
	X(events_emitted, "events written to the ring buffer")                                                         \
	X(events_dropped, "events lost because the ring buffer was full")                                              \
	X(events_censored, "events whose outcome was censored")                                                        \
	X(events_busy, "decisions not logged: the task still had one in flight")                                       \
	X(events_raced, "decisions not logged: the task started to run while it was being decided")                    \
	X(overrides, "decisions that the waiting bound took out of the policy's hands")                                \
	X(torn_retries, "policy reads retried because a publication overtook them")                                    \
	X(torn_fallbacks, "decisions by the fixed rule after repeated retries")                                        \
	X(direct_dispatch, "wakeups sent straight to an idle CPU")                                                     \
	X(local_kthread, "per-CPU kernel threads sent straight to their CPU")                                          \
	X(migrated_smt, "tasks that ran in another domain of the same core")                                           \
	X(migrated_llc, "tasks that ran in another domain of the same last-level cache")                               \
	X(migrated_node, "tasks that ran in another last-level cache of the same NUMA node")                           \
	X(migrated_numa, "tasks that ran on another NUMA node")                                                        \
	X(runs, "times a task was put on a CPU")                                                                       \
	X(wait_sum_ns, "sum of runqueue waits, ns")                                                                    \
	X(bursts, "times a task fell asleep after it had run")                                                         \
	X(burst_sum_ns, "time on CPU between two sleeps, summed, ns")                                                  \
	X(tick_rescues, "idle CPUs woken by the tick for a waiter past the bound")                                     \
	X(preemptions, "wakeups that took a CPU from a running task")                                                  \
	X(sync_local, "wakeups left to the waker's CPU, which is about to be free")                                    \
	X(yields_kept, "yields ignored: the task had just begun to run")                                               \
	X(turns_kept, "slices that ended while the task was still first in line")                                      \
	X(starved, "tasks served out of turn because they had waited for 4 s")                                         \
	X(throttled, "decisions not asked for: too many tasks have left the domain just now")

enum rl_counter {
#define RL_COUNTER_ENUM(name, desc) RL_CNT_##name,
	RL_COUNTERS(RL_COUNTER_ENUM)
#undef RL_COUNTER_ENUM
		RL_NR_COUNTERS,
};

/* log2 histogram of runqueue waits: bucket i counts waits in [2^i, 2^(i+1)) us; bucket 0 also those below 1 us. */
enum rl_hist { RL_HIST_BUCKETS = 32 };

struct rl_cpu_stats {
	u64 counters[RL_NR_COUNTERS];
	u64 wait_hist[RL_HIST_BUCKETS];
};

_Static_assert(sizeof(struct rl_event) == 96, "the event layout is versioned: change RL_EVENT_VERSION with it");
_Static_assert((1 << RL_LANE_BITS) > RL_FEATURES * RL_FEATURE_MAX * (RL_WEIGHT_OFFSET + RL_WEIGHT_MAX),
	       "a lane must hold the largest sum");

#endif /* __SCX_RL_INTF_H */
