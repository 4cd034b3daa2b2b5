/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who runs next, and for how long: virtual time, deadlines, slices, preemption.
 *
 * A task's virtual time is what it has run, over its weight. Its deadline is that plus what it usually wants before it
 * sleeps again (its request), so among tasks that got equal service the short one goes first. Queues are ordered by
 * deadline. Each queue has its own clock; that of a CPU's own queue is placed on the clock of its domain.
 *
 * Slices are long, because a switch costs throughput; and what must not wait for them preempts instead: a waking task
 * that is gone in a moment, and due earlier than a running one that is not.
 */
#ifndef __SCX_RL_ORDER_BPF_H
#define __SCX_RL_ORDER_BPF_H

#include "state.bpf.h"

/* A task that was given a CPU keeps it for this long, whoever wakes: so each pick is worth its switch. */
#define RL_MIN_RUN_NS 500000
/* A task that usually runs no longer than this is gone in a moment. */
#define RL_BRIEF_NS 1000000
/* A task that never slept is expected to run this many times as long as it has. */
#define RL_NEW_RATIO 4
/* One that has run for this many times as long as it usually does is doing something else now, and so as good as new. */
#define RL_UNUSUAL_RATIO 2
/* In a long queue, slices shrink so that each task's turn comes within this many. */
#define RL_TURN_SLICES 10
/* A yield earlier than this after a task was given its CPU is ignored, as EEVDF's run-to-parity does. */
#define RL_YIELD_NS 700000
/* No task is put farther back in a queue than that queue is expected to serve in this time. */
#define RL_STARVE_NS 1000000000ULL
/* Who has waited for this long in spite of all that runs next. Looked at every RL_STARVED_LOOK_NS in each queue. */
#define RL_STARVED_NS 4000000000ULL
#define RL_STARVED_LOOK_NS 250000000
/* Of so many of the last in line. */
#define RL_STARVED_SCAN 32
/* A queue's clock goes at least that many times slower than if all in it were of weight 100, whoever else is served. */
#define RL_CRAWL 4
/* A queue's clock is brought to its first task at least that often while tasks are taken from it. */
#define RL_LOOK_NS 500000
#define RL_NEVER_LATE ((s64)(~0ULL >> 1))

/* Time on CPU as virtual time. weight: 1..10000, 100 is nice 0. */
static __always_inline u64 weighted(u32 weight, u64 ns)
{
	return ns * 100 / (weight ?: 1);
}

/* How long a task runs before it sleeps: as usual, or what it has run already. A new one is short until it is not. */
static __always_inline u64 expected_ns(u64 burst_avg_ns, u64 burst_ns)
{
	if (!burst_avg_ns)
		return burst_ns * RL_NEW_RATIO;
	return burst_avg_ns > burst_ns ? burst_avg_ns : burst_ns;
}

static __always_inline u64 want_ns(const struct task_ctx *tctx)
{
	return expected_ns(tctx->burst_avg_ns, tctx->burst_ns);
}

/* How long what runs on a CPU has run without a sleep. */
static __always_inline u64 running_burst_ns(const struct cpu_ctx *cctx, u64 now)
{
	return READ_ONCE(cctx->burst_ns) + since(READ_ONCE(cctx->granted_at_ns), now);
}

/* How long it runs before it sleeps. */
static __always_inline u64 running_want_ns(const struct cpu_ctx *cctx, u64 now)
{
	return expected_ns(READ_ONCE(cctx->burst_avg_ns), running_burst_ns(cctx, now));
}

/* How long it has its turn, without the moments for which it was preempted; 0: nothing of ours runs. */
static __always_inline u64 turn_ns(const struct cpu_ctx *cctx, u64 now)
{
	u64 granted_at = READ_ONCE(cctx->granted_at_ns);

	return granted_at ? READ_ONCE(cctx->used_ns) + since(granted_at, now) : 0;
}

/* What it asks for now: that, within limits. Among tasks that all run for a moment, first come, first served. */
static __always_inline u64 request_ns(const struct task_ctx *tctx)
{
	u64 want = want_ns(tctx), least = slice_ns / 64;

	if (want > slice_ns || tctx->yielded || !with(RL_WITHOUT_request))
		return slice_ns;
	return want > least ? want : least;
}

/*
 * Functions that are not static, here and in what follows, are proven by the verifier once, and not again on every path
 * that calls them.
 */

/* Bring the task's virtual time to the clock of `queue`: it keeps its lag, within a slice of its weight. */
__noinline int rl_join(struct task_ctx *tctx __arg_nonnull, u32 queue)
{
	u64 *from, *to;
	s64 lag, most;

	if (tctx->queue == queue)
		return 0;
	from = clock_of(tctx->queue);
	to = clock_of(queue);
	if (!from || !to)
		return 0;
	most = weighted(tctx->weight, slice_ns);
	lag = (s64)(tctx->vtime - READ_ONCE(*from));
	if (lag > most)
		lag = most;
	if (lag < -most)
		lag = -most;
	tctx->vtime = READ_ONCE(*to) + lag;
	tctx->queue = queue;
	return 0;
}

/*
 * A task may be ahead of the others by a slice of its weight; if it wakes, by half of that, not by its whole sleep. So those of
 * great weight stay near the clock, which advance() counts on.
 */
__noinline int rl_limit_lead(struct task_ctx *tctx __arg_nonnull, u32 weight, bool wakes)
{
	u64 *now = clock_of(tctx->queue);
	u64 lead = weighted(weight, !wakes ? slice_ns : with(RL_WITHOUT_credit) ? slice_ns / 2 : 0);
	u64 least = now ? READ_ONCE(*now) - lead : tctx->vtime;

	if (time_before(tctx->vtime, least))
		tctx->vtime = least;
	return 0;
}

/* What a task gets of ns of time if it shares nr_cpus with those queued and with as many as run, all of the same weight. */
static __always_inline u64 fair_ns(u64 ns, u32 queued, u32 nr_cpus)
{
	return ns * nr_cpus / (queued + (nr_cpus ?: 1));
}

/* What a queue is expected to serve in RL_STARVE_NS. */
static __always_inline u64 served_soon(u32 queued, u32 nr_cpus)
{
	return fair_ns(RL_STARVE_NS, queued, nr_cpus);
}

/* The running task pays for what it has run since it last did, and has not paid in advance. */
static __always_inline void charge(struct task_ctx *tctx, u32 weight, u64 now)
{
	u64 ran = since(tctx->charged_at_ns, now), prepaid;

	if (ran == RL_NEVER)
		return;
	tctx->charged_at_ns = now;
	tctx->burst_ns += ran;
	prepaid = ran < tctx->prepaid_ns ? ran : tctx->prepaid_ns;
	tctx->prepaid_ns -= prepaid;
	tctx->vtime += weighted(weight, ran - prepaid);
}

/*
 * A new task pays in advance for what new tasks here usually run before they first sleep or exit. Nobody can be charged
 * after its exit: without this a chain of short-lived ones, each of which begins at the clock, would leave a hog the rest.
 */
static __always_inline void prepay(struct task_ctx *tctx, u32 weight)
{
	struct domain_ctx *dom = lookup_domain(tctx->home);

	if (!dom || tctx->nr_runs)
		return;
	tctx->prepaid_ns = dom->first_burst_ns;
	tctx->vtime += weighted(weight, tctx->prepaid_ns);
}

/* A task's first burst ends: it gets back what it did not use, and the next new ones pay accordingly. */
static __always_inline void settle_first_burst(struct task_ctx *tctx, u32 weight)
{
	struct domain_ctx *dom = lookup_domain(tctx->home);

	tctx->vtime -= weighted(weight, tctx->prepaid_ns);
	tctx->prepaid_ns = 0;
	/* a hog that ends at last must not make all others pay for as much */
	if (dom)
		dom->first_burst_ns = mean8(dom->first_burst_ns, tctx->burst_ns < slice_ns ? tctx->burst_ns : slice_ns);
}

/*
 * A task is never put farther back than that: in a long queue, one of small weight would wait for minutes. Return: that place,
 * which no deadline may be after, either.
 */
__noinline u64 rl_limit_debt(struct task_ctx *tctx __arg_nonnull, u32 queued, u32 nr_cpus)
{
	u64 *now = clock_of(tctx->queue);
	u64 most = (now ? READ_ONCE(*now) : tctx->vtime) + served_soon(queued, nr_cpus);

	if (time_before(most, tctx->vtime))
		tctx->vtime = most;
	return most;
}

/* The task's weight changes. What it owes, or is owed, is time on CPU, so its lag in virtual time changes with the weight. */
static __always_inline void reweight(struct task_ctx *tctx, u32 weight)
{
	u64 *clock = clock_of(tctx->queue);
	u32 before = tctx->weight ?: weight;
	u64 now;

	tctx->weight = weight;
	if (!clock || !weight)
		return;
	/* it has slept for long, maybe */
	rl_limit_lead(tctx, before, false);
	now = READ_ONCE(*clock);
	/* the division must be unsigned */
	if (time_before(tctx->vtime, now))
		tctx->vtime = now - (now - tctx->vtime) * before / weight;
	else
		tctx->vtime = now + (tctx->vtime - now) * before / weight;
}

/*
 * A task runs. If nobody waits in its queue, what it has over others costs nobody anything, and is forgiven: else a task
 * that had a CPU to itself for long would then be far behind. A CPU's own queue is for one CPU, so who runs while nobody
 * waits there is all of it, and its clock follows. Whether that costs others, see rl_align().
 */
__noinline int rl_alone(struct task_ctx *tctx __arg_nonnull)
{
	u64 *now = clock_of(tctx->queue);

	if (!now || nr_queued(tctx->queue) || !time_before(READ_ONCE(*now), tctx->vtime))
		return 0;
	if (tctx->queue < RL_CPU_QUEUE) {
		tctx->vtime = READ_ONCE(*now);
		tctx->prepaid_ns = 0;
	} else {
		WRITE_ONCE(*now, tctx->vtime);
	}
	return 0;
}

static __always_inline u64 deadline(const struct task_ctx *tctx, u32 weight)
{
	return tctx->vtime + weighted(weight, request_ns(tctx));
}

/* The same as of when its turn began: whose turn goes on is where it was in line, before others who wait for a turn. */
static __always_inline u64 turn_deadline(const struct task_ctx *tctx, u32 weight)
{
	return deadline(tctx, weight) - weighted(weight, tctx->slice_used_ns);
}

/*
 * A CPU's own queue is placed on its domain's clock by an offset, so that tasks of both are compared on one scale. It keeps
 * the queue's lag, and so each task's share does not depend on which queue it is in. But not without limits: where more
 * tasks are pinned to the CPU than it can serve, their clock falls behind for good, and where the domain was idle, ahead.
 */
__noinline int rl_align(struct task_ctx *tctx __arg_nonnull, u32 domain, u32 weight)
{
	struct clock *own = bpf_map_lookup_elem(&clocks, &tctx->queue);
	u64 *shared = clock_of(domain);
	u32 queued = nr_queued(domain);
	s64 late, most, least = -(s64)weighted(weight, slice_ns);

	if (!own || !shared)
		return 0;
	late = (s64)(tctx->vtime + own->offset - READ_ONCE(*shared));
	most = queued ? served_soon(queued, nr_cpus_of(domain)) : 0;
	if (most > -least)
		most = -least;
	if (late > most)
		own->offset -= late - most;
	if (late < least)
		own->offset += least - late;
	return 0;
}

/* A deadline relative to the domain's clock: comparable between queues. */
static __always_inline s64 lateness(u64 deadline, u32 queue)
{
	struct clock *clock = bpf_map_lookup_elem(&clocks, &queue);
	u64 *now = clock_of(queue < RL_CPU_QUEUE ? queue : domain_of(queue - RL_CPU_QUEUE));

	return clock && now ? (s64)(deadline + clock->offset - READ_ONCE(*now)) : 0;
}

/* A task of `queue` begins to run, or goes on with a new slice. */
static __always_inline void grant(struct task_struct *p, struct task_ctx *tctx, struct cpu_ctx *cctx, u64 now)
{
	WRITE_ONCE(cctx->queue, tctx->queue);
	WRITE_ONCE(cctx->deadline, turn_deadline(tctx, p->scx.weight));
	WRITE_ONCE(cctx->burst_ns, tctx->burst_ns);
	WRITE_ONCE(cctx->burst_avg_ns, tctx->burst_avg_ns);
	WRITE_ONCE(cctx->used_ns, tctx->slice_used_ns);
	WRITE_ONCE(cctx->granted_at_ns, now);
	cctx->preempted = false;
	cctx->wanted = false;
}

/*
 * How much later the deadline of what runs on the CPU is than that of a waking task; not positive: no reason to preempt.
 * That costs a switch, and much more if a lock is held. So it must not happen among tasks that sleep soon by themselves,
 * but only where the running one wants more than a slice, and the waking one is gone in a moment.
 */
__noinline s64 rl_advantage(struct task_ctx *tctx __arg_nonnull, u32 weight, s32 cpu, u64 now)
{
	struct cpu_ctx *cctx = lookup_cpu(cpu);
	u64 usual, burst, want;

	if (!cctx || !READ_ONCE(cctx->granted_at_ns))
		return 0;
	usual = READ_ONCE(cctx->burst_avg_ns);
	burst = running_burst_ns(cctx, now);
	want = expected_ns(burst < usual * RL_UNUSUAL_RATIO ? usual : 0, burst);
	if (want < slice_ns || want_ns(tctx) >= RL_BRIEF_NS)
		return 0;
	return lateness(READ_ONCE(cctx->deadline), READ_ONCE(cctx->queue)) -
	       lateness(deadline(tctx, weight), tctx->queue);
}

/* Has what runs on the CPU run for long enough to be preempted? */
static __always_inline bool has_run(s32 cpu, u64 now)
{
	struct cpu_ctx *cctx = lookup_cpu(cpu);
	u64 granted_at = cctx ? READ_ONCE(cctx->granted_at_ns) : 0;

	return granted_at && since(granted_at, now) >= RL_MIN_RUN_NS;
}

/* What of a turn of ns is left in a long queue, so that each one's comes. */
static __always_inline u64 in_line_ns(u64 ns, u32 queued16)
{
	if (queued16 > 16 * RL_TURN_SLICES)
		ns = ns * 16 * RL_TURN_SLICES / queued16;
	return ns > slice_min_ns ? ns : slice_min_ns;
}

/*
 * How long the turn of a task that wants want_ns may be while `queued16` sixteenths of a task per CPU wait. A whole slice,
 * if it is going to sleep within one: a switch would only delay it. Less, if it is not, or if the turn of others would
 * take too long.
 */
static __always_inline u64 allowed_ns(u64 want_ns, u32 queued16)
{
	if (!with(RL_WITHOUT_depth))
		return slice_ns;
	return in_line_ns(queued16 && want_ns >= slice_ns ? slice_ns / 4 : slice_ns, queued16);
}

/* The most that any turn may be, whatever the policy says. */
static __always_inline u64 turn_limit_ns(u32 queued16)
{
	return in_line_ns(slice_ns, queued16);
}

/* Tasks that wait for the CPU, in 16ths of a task per CPU. */
static __always_inline u32 waiting16(s32 cpu, u32 domain)
{
	return load16(nr_queued(domain), nr_cpus_of(domain)) + 16 * nr_queued(RL_CPU_QUEUE + cpu);
}

/*
 * Bring the queue's clock to its first task. Not to the one that leaves the queue: some CPUs may take only later ones, and
 * those who wake would then be behind all that wait.
 *
 * Among tasks of great weight the first hardly moves, and one of nice 0 could wait for minutes until they have had their
 * share. So the clock goes on at RL_CRAWL times less than its usual speed at least. As rl_limit_lead() keeps all near
 * to it, each one's turn comes.
 */
static __always_inline void advance(struct clock *clock, u64 first, u32 queued, u32 nr_cpus)
{
	u64 now = READ_ONCE(clock->now), at = scx_bpf_now(), span = since(clock->marked_at_ns, at);

	if (time_before(now, first))
		now = first;
	if (span >= slice_ns) {
		/* an empty queue has no time */
		u64 passed = span < 2 * slice_ns ? span : 2 * slice_ns;
		u64 least = clock->marked + fair_ns(passed, queued, nr_cpus) / RL_CRAWL;

		if (time_before(now, least))
			now = least;
		clock->marked = now;
		clock->marked_at_ns = at;
	}
	if (now != READ_ONCE(clock->now))
		WRITE_ONCE(clock->now, now);
}

/* How late the first task of the queue is due, with the queue's clock brought to it; RL_NEVER_LATE: the queue is empty. */
static __always_inline s64 head_late(u32 queue, u32 queued, u32 nr_cpus)
{
	struct clock *clock = bpf_map_lookup_elem(&clocks, &queue);
	struct task_struct *p;
	s64 late = RL_NEVER_LATE;

	if (!clock)
		return late;
	WRITE_ONCE(clock->looked_at_ns, scx_bpf_now());
	bpf_for_each(scx_dsq, p, queue, 0) {
		struct task_ctx *tctx = lookup_task(p);

		if (tctx)
			advance(clock, tctx->vtime, queued, nr_cpus);
		late = lateness(p->scx.dsq_vtime, queue);
		break;
	}
	return late;
}

/*
 * The queue that the CPU serves next: its own or the domain's, whose first task is due earlier. `late`: when that is.
 * pinned, queued: how many wait in them.
 */
__noinline u32 rl_next_queue(s32 cpu, u32 domain, u32 pinned, u32 queued, s64 *late __arg_nonnull)
{
	s64 own = pinned ? head_late(RL_CPU_QUEUE + cpu, pinned, 1) : RL_NEVER_LATE;
	s64 shared = head_late(domain, queued, nr_cpus_of(domain));

	*late = own < shared ? own : shared;
	return own < shared ? RL_CPU_QUEUE + cpu : domain;
}

/*
 * Has nobody looked at the first task of the queue for a while? To look takes the queue's lock, for which all its CPUs
 * compete, and where only one queue has tasks it serves the clock alone.
 */
static __always_inline bool unwatched(u32 queue, u64 now)
{
	struct clock *clock = bpf_map_lookup_elem(&clocks, &queue);

	return !clock || since(READ_ONCE(clock->looked_at_ns), now) > RL_LOOK_NS;
}

/* Is it time to look for who starves in the queue? */
static __always_inline bool unscanned(u32 queue, u64 now)
{
	struct clock *clock = bpf_map_lookup_elem(&clocks, &queue);

	return clock && since(READ_ONCE(clock->scanned_at_ns), now) > RL_STARVED_LOOK_NS;
}

/*
 * Take one who starves to this CPU. A task is put in its place by how long its queue is then; should the queue grow a lot
 * after that, its turn would come as much later. Return: was there one?
 */
__noinline bool rl_serve_starved(s32 cpu, u32 queue)
{
	struct clock *clock = bpf_map_lookup_elem(&clocks, &queue);
	u64 now = scx_bpf_now();
	struct task_struct *p;
	bool taken = false;
	u32 scanned = 0;

	if (!clock)
		return false;
	WRITE_ONCE(clock->scanned_at_ns, now);
	bpf_for_each(scx_dsq, p, queue, SCX_DSQ_ITER_REV) {
		struct task_ctx *tctx;
		u64 queued_at;

		if (scanned++ >= RL_STARVED_SCAN)
			break;
		tctx = lookup_task(p);
		queued_at = tctx ? READ_ONCE(tctx->queued_at_ns) : 0;
		if (!queued_at || since(queued_at, now) <= RL_STARVED_NS || !bpf_cpumask_test_cpu(cpu, p->cpus_ptr))
			continue;
		taken = scx_bpf_dsq_move(BPF_FOR_EACH_ITER, p, SCX_DSQ_LOCAL, 0);
		if (taken) {
			count(starved);
			break;
		}
	}
	return taken;
}

/* The task whose slice has ended goes on, if it is still first in line. */
__noinline bool rl_keeps_turn(struct task_struct *prev __arg_trusted, s64 late)
{
	struct task_ctx *tctx = lookup_task(prev);
	u32 weight = prev->scx.weight;

	if (!tctx || tctx->yielded)
		return false;
	charge(tctx, weight, scx_bpf_now());
	rl_limit_lead(tctx, weight, false);
	return lateness(deadline(tctx, weight), tctx->queue) < late;
}

#endif /* __SCX_RL_ORDER_BPF_H */
