/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The life of a logged decision: armed when it is taken (if sampled), completed when the task has run, written to the
 * ring buffer when that period on CPU ends. Sampling comes before that work, so an unsampled decision costs a branch; at PULL
 * also a look at whether an earlier one about the task is in the log.
 *
 * A PULL decision is taken by a CPU that does not own the task, while another CPU may start it: so the state changes by
 * compare-and-swap, and nr_runs, read when the decision began, tells whether the task has run in between. A MIGRATE that
 * another CPU made impossible stays in the log like any other decision: it was drawn with its propensity, its wait is
 * real, and ran_dom shows where the task went. Deleting it would make logging depend on the action.
 */
#ifndef __SCX_RL_EVENT_BPF_H
#define __SCX_RL_EVENT_BPF_H

#include "state.bpf.h"

static __always_inline bool pending_move(struct pending *pend, u32 from, u32 to)
{
	return READ_ONCE(pend->state) == from && __sync_val_compare_and_swap(&pend->state, from, to) == from;
}

static __always_inline void event_emit(struct pending *pend)
{
	struct rl_event *out = bpf_ringbuf_reserve(&events, sizeof(*out), 0);

	if (out) {
		__builtin_memcpy(out, &pend->event, sizeof(*out));
		bpf_ringbuf_submit(out, BPF_RB_NO_WAKEUP);
		count(events_emitted);
		if (pend->event.flags & RL_EV_CENSORED)
			count(events_censored);
	} else {
		count(events_dropped);
	}
	WRITE_ONCE(pend->state, PENDING_FREE);
}

struct arm_args {
	u64 nr_runs; /* of the task, when the decision began */
	u32 point;
	u32 home;
	u32 other;
	u32 rnd;
	u64 now;
	u64 waited_ns;
	u64 usual_ns; /* service to compare with; 0: none is known, and the decision is not logged */
};

/* Of decisions in flight about the same wait: their outcome is no longer only their own. */
static __always_inline void event_redecided(struct task_ctx *tctx)
{
	tctx->pending[RL_POINT_WAKE].event.flags |= RL_EV_REDECIDED;
	tctx->pending[RL_POINT_PULL].event.flags |= RL_EV_REDECIDED;
}

/*
 * Start to follow a decision, if it is sampled. The upper half of rnd samples; the lower half chose the action. A task
 * that never ran has no usual service time to compare with, and is left out. At TURN every second one at most is sampled:
 * while one is followed, later ones of the same turn cannot be.
 */
static __always_inline void event_arm(struct task_struct *p, struct task_ctx *tctx, const struct arm_args *args,
				      const struct rl_decision *d, const u8 *features)
{
	u32 shift = READ_ONCE(sample_shift) + (args->point == RL_POINT_TURN);
	struct pending *pend;
	struct rl_event *ev;

	if (shift > 16)
		shift = 16;
	if (args->point == RL_POINT_PULL)
		event_redecided(tctx);
	if (!args->usual_ns || ((args->rnd >> 16) & ((1U << shift) - 1)))
		return;
	count(events_sampled);

	pend = &tctx->pending[args->point < RL_NR_POINTS ? args->point : RL_POINT_WAKE];
	if (!pending_move(pend, PENDING_FREE, PENDING_FILLING)) {
		count(events_busy);
		return;
	}
	pend->nr_runs = args->nr_runs;
	ev = &pend->event;
	ev->decided_at_ns = args->now;
	ev->generation = d->generation;
	ev->wait_ns = 0;
	ev->service_ns = 0;
	ev->usual_service_ns = args->usual_ns;
	ev->waited_before_ns = args->waited_ns;
	ev->logit_q8 = d->logit_q8;
	ev->p_migrate_q16 = d->p_migrate_q16;
	ev->tid = p->pid;
	ev->home_dom = args->home;
	ev->other_dom = args->other;
	ev->ran_dom = args->point == RL_POINT_TURN ? args->home : RL_NO_DOMAIN;
	ev->version = RL_EVENT_VERSION;
	ev->point = args->point;
	ev->action = d->action;
	ev->distance = distance_between(args->home, args->other);
	ev->mode = d->mode;
	ev->sample_shift = shift;
	ev->flags = 0;
	__builtin_memcpy(ev->features, features, RL_FEATURES);
	smp_wmb();
	WRITE_ONCE(pend->state, args->point == RL_POINT_TURN ? PENDING_RUNNING : PENDING_WAITING);
}

/* The task starts to run; call before nr_runs is advanced. */
static __always_inline void event_ran(struct task_ctx *tctx, u32 dom, u64 now)
{
	u32 i;

	for (i = 0; i < RL_POINT_TURN; i++) {
		struct pending *pend = &tctx->pending[i];

		if (!pending_move(pend, PENDING_WAITING, PENDING_RUNNING))
			continue;
		if (pend->nr_runs != tctx->nr_runs) {
			count(events_raced);
			WRITE_ONCE(pend->state, PENDING_FREE);
			continue;
		}
		pend->event.wait_ns = since(pend->event.decided_at_ns, now);
		pend->event.ran_dom = dom;
	}
}

/* The turn of the task is over: it sleeps (RL_EV_WHOLE), begins another one, waits (0), or nobody can say (censored). */
static __always_inline void event_turn_over(struct task_ctx *tctx, u64 now, u32 flags)
{
	struct pending *pend = &tctx->pending[RL_POINT_TURN];

	if (READ_ONCE(pend->state) != PENDING_RUNNING)
		return;
	pend->event.service_ns = since(pend->event.decided_at_ns, now);
	pend->event.flags |= flags;
	event_emit(pend);
}

/* The task leaves the CPU after service_ns. */
static __always_inline void event_stopped(struct task_ctx *tctx, u64 service_ns, bool whole)
{
	u32 i;

	for (i = 0; i < RL_POINT_TURN; i++) {
		struct pending *pend = &tctx->pending[i];

		if (READ_ONCE(pend->state) != PENDING_RUNNING)
			continue;
		pend->event.service_ns = service_ns;
		if (whole)
			pend->event.flags |= RL_EV_WHOLE;
		event_emit(pend);
	}
}

/* The task will not run as decided: its outcome says nothing about the decision. */
static __always_inline void event_censor(struct task_ctx *tctx, u32 flag)
{
	u64 now = scx_bpf_now();
	u32 i;

	for (i = 0; i < RL_POINT_TURN; i++) {
		struct pending *pend = &tctx->pending[i];

		if (!pending_move(pend, PENDING_WAITING, PENDING_RUNNING))
			continue;
		pend->event.wait_ns = since(pend->event.decided_at_ns, now);
		pend->event.flags |= flag;
		event_emit(pend);
	}
}

#endif /* __SCX_RL_EVENT_BPF_H */
