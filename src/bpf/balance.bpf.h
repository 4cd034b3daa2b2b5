/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where the policy is asked. A decision point finds a legal alternative first, applies the bound on waiting, and only
 * then asks; what the policy may choose between is always safe.
 */
#ifndef __SCX_RL_BALANCE_BPF_H
#define __SCX_RL_BALANCE_BPF_H

#include "event.bpf.h"
#include "order.bpf.h"

/* How many tasks of another domain's queue a pulling CPU looks at; more in search of one that waits past the bound. */
#define RL_PULL_SCAN 4
#define RL_PULL_SCAN_OVERDUE 32

/* A queue that is shorter by less than this part of the other is not worth a question, nor a move. */
#define RL_GAIN_PART 8

/* The nearest of the candidates are always compared; the others are a random window of those farther away. */
#define RL_NEAREST (RL_MAX_CANDIDATES / 2)

/* The i-th candidate of home, i < RL_MAX_CANDIDATES, `window` random; RL_NO_DOMAIN when there are no more. */
static __always_inline u32 candidate(u32 home, u32 i, u32 window)
{
	u32 others = nr_domains - 1, far;

	if (i >= others)
		return RL_NO_DOMAIN;
	if (others > RL_MAX_CANDIDATES && i >= RL_NEAREST) {
		far = others - RL_NEAREST;
		i = RL_NEAREST + (window + i) % far;
	}
	return domain_neighbours[home & RL_DOMAIN_MASK][i & RL_DOMAIN_MASK];
}

/* A token bucket holds what comes in this time, and at least one. */
#define RL_BUCKET_NS 100000000ULL

/*
 * A token bucket for each domain that tasks leave, and each distance, in its form as a time (GCRA, ITU-T I.371): each move
 * advances it by migration_ns, and it may not be ahead of the present by more than the bucket holds. It is looked at before
 * the policy is asked, not after that, so that what is logged is what the policy chose. What is past the bound on waiting is
 * not asked about, and does not count. Two CPUs may take the last token at the same time.
 */
__noinline bool rl_too_many_moves(u32 home, u32 other, u64 now)
{
	u32 distance = distance_between(home, other) & (RL_NR_DISTANCES - 1);
	u64 each = migration_ns[distance], most = each > RL_BUCKET_NS ? each : RL_BUCKET_NS;
	struct domain_ctx *dom = each ? lookup_domain(home) : NULL;

	if (!dom || !time_before(now + most, READ_ONCE(dom->moves_until_ns[distance]) + each))
		return false;
	count(throttled);
	return true;
}

__noinline int rl_note_decided_move(u32 home, u32 other, u64 now)
{
	u32 distance = distance_between(home, other) & (RL_NR_DISTANCES - 1);
	u64 each = migration_ns[distance], until;
	struct domain_ctx *dom = each ? lookup_domain(home) : NULL;

	if (!dom)
		return 0;
	until = READ_ONCE(dom->moves_until_ns[distance]);
	WRITE_ONCE(dom->moves_until_ns[distance], (time_before(until, now) ? now : until) + each);
	return 0;
}

static __always_inline void ask_and_count(struct task_struct *p, struct rl_ask *ask)
{
	rl_observe(ask);
	rl_decide(ask);
	if (ask->tries) {
		count_add(RL_CNT_torn_retries, ask->tries);
		if (ask->tries == RL_READ_TRIES)
			count(torn_fallbacks);
	}
}

/* What moves cost a task is a mean of that many at most, and in a domain of 2^RL_DOMAIN_MOVES_SHIFT. */
#define RL_MOVES_MEAN 64
#define RL_DOMAIN_MOVES_SHIFT 8
/* One move counts as this at most, as in the reward. */
#define RL_MOVE_CAP_NS 50000000LL

/*
 * The task's first period on CPU after a move was longer than usual by extra_ns, or shorter. The means are of both, as periods
 * vary by themselves, and what is usual is not learned from them.
 */
static __always_inline void note_move(struct task_ctx *tctx, s64 extra_ns)
{
	struct domain_ctx *dom = lookup_domain(tctx->ran_dom);
	s64 more;

	if (extra_ns > RL_MOVE_CAP_NS)
		extra_ns = RL_MOVE_CAP_NS;
	if (extra_ns < -RL_MOVE_CAP_NS)
		extra_ns = -RL_MOVE_CAP_NS;
	more = extra_ns - tctx->move_extra_ns;
	if (tctx->moves < RL_MOVES_MEAN)
		tctx->moves++;
	/* the division must be unsigned */
	tctx->move_extra_ns += more < 0 ? -(s64)((u64)-more / tctx->moves) : (s64)((u64)more / tctx->moves);
	if (dom)
		dom->move_extra_ns += (extra_ns - dom->move_extra_ns) >> RL_DOMAIN_MOVES_SHIFT;
}

/*
 * A period on CPU is over. What is usual, and what moves cost, is learned from those that are a whole burst: how long others
 * last is up to who else wants the CPU.
 */
static __always_inline void note_period(struct task_ctx *tctx, u64 used_ns, bool whole)
{
	if (!tctx->moved || !tctx->run_avg_ns)
		tctx->run_avg_ns = mean8(tctx->run_avg_ns, used_ns);
	if (!whole)
		return;
	if (tctx->moved && tctx->whole_avg_ns)
		note_move(tctx, (s64)(used_ns - tctx->whole_avg_ns));
	else
		tctx->whole_avg_ns = mean8(tctx->whole_avg_ns, used_ns);
}

/* What moves to the same domain have cost, by whoever, counts as so many of the task's own. */
#define RL_OTHERS_MOVES 4

/*
 * What a move is expected to cost a task: the mean of what its moves have cost, and while it has had few, of what moves to
 * that domain have. (Shrinkage: as in a credibility estimate, Buehlmann 1967. The mean is over tasks of all kinds, and over
 * all distances.) Not negative.
 */
static __always_inline u64 move_cost_ns(const struct task_ctx *tctx, const struct domain_ctx *to)
{
	s64 sum = tctx->move_extra_ns * tctx->moves + to->move_extra_ns * RL_OTHERS_MOVES;

	return sum > 0 ? (u64)sum / (tctx->moves + RL_OTHERS_MOVES) : 0;
}

struct ask_args {
	struct arm_args arm;
	u32 waker;
	u32 extra_idle; /* idle CPUs at `other` that its counter does not show: the CPU that pulls */
};

/* Measure, ask the policy, count, and start to follow the decision. Return: migrate? */
static __noinline bool ask_policy(struct task_struct *p, struct task_ctx *tctx, struct ask_args *args)
{
	struct domain_ctx *home = lookup_domain(args->arm.home);
	struct domain_ctx *other = lookup_domain(args->arm.other);
	u32 zero = 0;
	struct rl_ask *ask = bpf_map_lookup_elem(&asks, &zero);
	struct rl_inputs *in;
	u64 now = args->arm.now;

	if (!home || !other || !ask)
		return false;
	in = &ask->in;
	in->home_queued = nr_queued(args->arm.home);
	in->other_queued = nr_queued(args->arm.other);
	in->home_cpus = nr_cpus_of(args->arm.home);
	in->other_cpus = nr_cpus_of(args->arm.other);
	in->home_idle = READ_ONCE(home->nr_idle);
	in->other_idle = READ_ONCE(other->nr_idle) + args->extra_idle;
	in->home_head_age_ns = domain_head_age(home, in->home_queued, now);
	in->other_head_age_ns = domain_head_age(other, in->other_queued, now);
	in->home_run_avg_ns = home->run_avg_ns;
	in->other_run_avg_ns = other->run_avg_ns;
	in->task_run_avg_ns = tctx->run_avg_ns;
	in->task_sleep_avg_ns = tctx->sleep_avg_ns;
	in->since_ran_ns = since(tctx->stopped_at_ns, now);
	in->since_moved_ns = since(tctx->moved_at_ns, now);
	in->move_cost_ns = move_cost_ns(tctx, other);
	in->point = args->arm.point;
	in->distance = distance_between(args->arm.home, args->arm.other);
	in->waker = args->waker;
	in->task_want_ns = want_ns(tctx);
	in->turn_ns = 0;
	in->weight = p->scx.weight;
	ask->rnd = args->arm.rnd;
	ask_and_count(p, ask);
	if (args->arm.point == RL_POINT_PULL) {
		count(pull_decisions);
		if (ask->decision.action == RL_MIGRATE)
			count(pull_migrated);
	} else {
		count(wake_decisions);
		if (ask->decision.action == RL_MIGRATE)
			count(wake_migrated);
	}
	if (ask->decision.action == RL_MIGRATE)
		rl_note_decided_move(args->arm.home, args->arm.other, now);
	/* who has never had a whole burst has little to compare with, and seldom needs it: see reward.rs */
	args->arm.usual_ns = tctx->whole_avg_ns ?: tctx->run_avg_ns;
	event_arm(p, tctx, &args->arm, &ask->decision, ask->features);
	return ask->decision.action == RL_MIGRATE;
}

/*
 * WAKE: home has no idle CPU for p. Find the best other domain: the nearest one with an idle CPU, else the one with the
 * shortest queue per CPU, nearest first, if it is shorter than the one at home. Return: the domain to go to (home, if to stay).
 */
__noinline u32 rl_balance_wake(struct task_struct *p __arg_trusted, struct task_ctx *tctx __arg_nonnull, u32 home,
			       u64 wake_flags)
{
	struct ask_args args = {};
	u32 best = RL_NO_DOMAIN, best_load = ~0U, window = bpf_get_prandom_u32(), i, load;
	u32 waker = domain_of(bpf_get_smp_processor_id());
	struct domain_ctx *dom;

	bpf_for(i, 0, RL_MAX_CANDIDATES) {
		u32 id = candidate(home, i, window);

		if (id == RL_NO_DOMAIN)
			break;
		dom = lookup_domain(id);
		if (!dom || !domain_allowed(dom, p))
			continue;
		if (READ_ONCE(dom->nr_idle)) {
			best = id;
			best_load = 0;
			break;
		}
		load = 1 + load16(nr_queued(id), nr_cpus_of(id));
		if (load < best_load) {
			best = id;
			best_load = load;
		}
	}
	/* nothing to gain anywhere: no question */
	load = load16(nr_queued(home), nr_cpus_of(home));
	if (best == RL_NO_DOMAIN || best_load + load / RL_GAIN_PART > load)
		return home;

	args.arm.now = scx_bpf_now();
	dom = lookup_domain(home);
	if (dom && !best_load && domain_head_age(dom, nr_queued(home), args.arm.now) > wait_bound_ns) {
		/* tasks at home wait past the bound while a CPU idles: no choice */
		count(overrides);
		return best;
	}
	if (rl_too_many_moves(home, best, args.arm.now)) {
		/* an idle CPU at another distance may still look at it */
		tctx->asked = false;
		return home;
	}
	args.arm.nr_runs = tctx->nr_runs;
	args.arm.point = RL_POINT_WAKE;
	args.arm.home = home;
	args.arm.other = best;
	args.arm.rnd = bpf_get_prandom_u32(); /* not the one that chose the candidate: propensities are exact */
	args.waker = (wake_flags & SCX_WAKE_SYNC ? 1 : 0) | (waker == best ? 2 : 0);
	return ask_policy(p, tctx, &args) ? best : home;
}

struct peer {
	u32 id;
	bool overdue; /* somebody there waits past the bound */
};

/*
 * The domain that a CPU of `own` should look at: the one with most tasks queued per CPU, if above `floor` (16ths of a
 * task per CPU), nearest first. A CPU that would idle looks first where somebody waits past the bound.
 */
static __always_inline struct peer find_peer(u32 own, u32 floor, bool would_idle, u64 now)
{
	struct peer best = { .id = RL_NO_DOMAIN };
	u32 window = bpf_get_prandom_u32(), i;

	bpf_for(i, 0, RL_MAX_CANDIDATES) {
		u32 id = candidate(own, i, window), queued, load;
		struct domain_ctx *dom;

		if (id == RL_NO_DOMAIN)
			break;
		queued = nr_queued(id);
		dom = lookup_domain(id);
		if (!queued || !dom)
			continue;
		if (would_idle && domain_head_age(dom, queued, now) > wait_bound_ns) {
			best.id = id;
			best.overdue = true;
			break;
		}
		load = load16(queued, nr_cpus_of(id));
		if (load > floor) {
			best.id = id;
			floor = load;
		}
	}
	return best;
}

/* May a CPU of another domain take p, which waits in a queue? Fills what the decision needs to know of it. */
static __always_inline bool movable(struct task_struct *p, struct task_ctx *tctx, s32 cpu, struct arm_args *arm)
{
	u64 queued_at;

	if (is_pinned(p) || !bpf_cpumask_test_cpu(cpu, p->cpus_ptr))
		return false;
	/* rl_running() clears queued_at_ns before it advances nr_runs */
	arm->nr_runs = READ_ONCE(tctx->nr_runs);
	smp_rmb();
	queued_at = READ_ONCE(tctx->queued_at_ns);
	arm->waited_ns = queued_at ? since(queued_at, arm->now) : 0;
	return queued_at;
}

/* Take a task that waits past the bound from the queue of args->arm.home, without asking: the latest in line first. */
static __noinline bool pull_overdue(s32 cpu, struct ask_args *args)
{
	struct task_struct *p;
	bool taken = false;
	u32 scanned = 0;

	bpf_for_each(scx_dsq, p, args->arm.home, SCX_DSQ_ITER_REV) {
		struct task_ctx *tctx;

		if (scanned++ >= RL_PULL_SCAN_OVERDUE)
			break;
		tctx = lookup_task(p);
		if (!tctx || !movable(p, tctx, cpu, &args->arm) || args->arm.waited_ns <= wait_bound_ns)
			continue;
		taken = scx_bpf_dsq_move(BPF_FOR_EACH_ITER, p, SCX_DSQ_LOCAL, 0);
		if (taken) {
			event_redecided(tctx);
			count(overrides);
			break;
		}
	}
	return taken;
}

/* Ask about the first movable task in the queue of args->arm.home, and take it if the policy says so. */
static __always_inline bool pull_asked(s32 cpu, struct ask_args *args)
{
	struct task_struct *p;
	bool taken = false;
	u32 scanned = 0;

	if (rl_too_many_moves(args->arm.home, args->arm.other, args->arm.now))
		return false;
	bpf_for_each(scx_dsq, p, args->arm.home, 0) {
		struct task_ctx *tctx;

		if (scanned++ >= RL_PULL_SCAN)
			break;
		tctx = lookup_task(p);
		if (!tctx || !movable(p, tctx, cpu, &args->arm))
			continue;
		/* fails if another CPU was faster */
		if (ask_policy(p, tctx, args))
			taken = scx_bpf_dsq_move(BPF_FOR_EACH_ITER, p, SCX_DSQ_LOCAL, 0);
		break;
	}
	return taken;
}

/*
 * PULL: a CPU of `own` looks at a task that waits in another domain, and takes it or not. would_idle: it has nothing
 * else to run; then a waiter past the bound is taken without asking. Return: was a task taken?
 */
__noinline bool rl_balance_pull(s32 cpu, u32 own, u32 own_load, bool would_idle)
{
	struct cpu_ctx *cctx = lookup_cpu(cpu);
	struct ask_args args = {};
	struct peer peer;

	args.arm.now = scx_bpf_now();
	args.arm.point = RL_POINT_PULL;
	args.arm.other = own;
	args.extra_idle = would_idle;
	if (cctx) {
		cctx->compared_at_ns = args.arm.now;
		args.arm.home = would_idle && cctx->rescue ? cctx->rescue - 1 : own;
		if (would_idle)
			cctx->rescue = 0;
		if (args.arm.home != own && pull_overdue(cpu, &args))
			return true;
	}
	/* with work of its own, a CPU only looks at a queue that is longer by more than a task per CPU, and that by a part */
	peer = find_peer(own, would_idle ? 0 : own_load + 16 + own_load / RL_GAIN_PART, would_idle, args.arm.now);
	if (peer.id == RL_NO_DOMAIN)
		return false;
	args.arm.home = peer.id;
	args.arm.rnd = bpf_get_prandom_u32();
	if (peer.overdue && pull_overdue(cpu, &args))
		return true;
	return pull_asked(cpu, &args);
}

/* Is any CPU idle at all? */
static __always_inline bool any_idle(void)
{
	const struct cpumask *idle = scx_bpf_get_idle_cpumask();
	bool any = !bpf_cpumask_empty(idle);

	scx_bpf_put_idle_cpumask(idle);
	return any;
}

/* Send an idle CPU for a waiter of the domain past the bound: from the end of the queue, the longest waits. */
__noinline int rl_rescue(u32 id, u64 now)
{
	struct task_struct *p;
	u32 scanned = 0;

	bpf_for_each(scx_dsq, p, id, SCX_DSQ_ITER_REV) {
		struct task_ctx *tctx;
		struct cpu_ctx *cctx;
		u64 queued_at;
		s32 cpu;

		if (scanned++ >= RL_PULL_SCAN_OVERDUE)
			break;
		tctx = lookup_task(p);
		queued_at = tctx ? READ_ONCE(tctx->queued_at_ns) : 0;
		if (!queued_at || since(queued_at, now) <= wait_bound_ns)
			continue;
		cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
		if (cpu < 0)
			continue;
		cctx = lookup_cpu(cpu);
		/* one of the domain itself finds it without being told */
		if (cctx && domain_of(cpu) != id)
			cctx->rescue = id + 1;
		count(tick_rescues);
		rl_kick_idle(cpu);
		break;
	}
	return 0;
}

#endif /* __SCX_RL_BALANCE_BPF_H */
