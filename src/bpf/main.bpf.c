/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * scx_rl: domains with deadlines over weighted virtual time, and a balancer between them that learns.
 *
 * - A domain (by default one last-level cache) has one DSQ, ordered by deadline; its CPUs serve it.
 * - A waking task goes to an idle CPU of its home domain. Only when there is none, and another domain is legal for it,
 *   the policy is asked whether to stay (WAKE, rl_balance_wake()).
 * - A CPU that runs out of work, or has far less than another domain, asks whether to take a task from there (PULL,
 *   rl_balance_pull()).
 * - Where the policy chooses slices, a tick asks whether the running task's turn goes on (TURN, rl_turn_goes_on()).
 * - Where tasks without a choice of CPU run is never asked: pinned tasks wait in a queue of their CPU, per-CPU kernel
 *   threads go straight to their CPU, and the kernel itself does the same with migration-disabled and exiting
 *   tasks (we do not set the flags that would hand them to us).
 * - The bound on waiting does not depend on the policy: see rl_balance_wake(), rl_balance_pull(), and rl_tick().
 *
 * Reading order: intf.h, features.h, policy.h, slots.h, state.bpf.h, order.bpf.h, place.bpf.h, event.bpf.h,
 * balance.bpf.h, turn.bpf.h, setup.bpf.h, this file.
 */
#include "balance.bpf.h"
#include "turn.bpf.h"
#include "place.bpf.h"
#include "setup.bpf.h"

char _license[] SEC("license") = "GPL";

UEI_DEFINE(uei);

/* A CPU that has work compares its queue with those of other domains at most this often. */
#define RL_COMPARE_NS 250000

/* Who preempts does so for a moment. */
static __always_inline void send_to_cpu(struct task_struct *p, struct task_ctx *tctx, u64 enq_flags)
{
	struct cpu_ctx *cctx = enq_flags & SCX_ENQ_PREEMPT ? lookup_cpu(scx_bpf_task_cpu(p)) : NULL;

	if (cctx)
		WRITE_ONCE(cctx->preempted, true);
	tctx->from_dsq = false;
	scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, slice_ns, enq_flags);
}

/* What a task that was interrupted has used of its turn, which goes on then; 0: its turn is over. */
static __always_inline u64 used_of_turn(struct task_struct *p, struct task_ctx *tctx, u64 enq_flags)
{
	s32 cpu = scx_bpf_task_cpu(p);
	u64 used = tctx->slice_used_ns;
	u32 waiting;

	if (enq_flags & SCX_ENQ_WAKEUP)
		return 0;
	waiting = waiting16(cpu, domain_of(cpu));
	if (used >= slice_ns)
		return 0;
	return used < (policy_has_turns() ? turn_limit_ns(waiting) : allowed_ns(want_ns(tctx), waiting)) ? used : 0;
}

s32 BPF_STRUCT_OPS(rl_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	struct task_ctx *tctx = lookup_task(p);
	u64 tail;
	u32 home, target;
	s32 cpu;

	if (!tctx || is_pinned(p))
		return prev_cpu;

	/* it waits from here on, and becomes runnable later where an interrupt brings it to another CPU: see ops_flags() */
	tctx->queued_at_ns = scx_bpf_now();
	tctx->sent = false;
	tail = wake_flags & SCX_WAKE_SYNC ? rl_waker_tail() : RL_NEVER;
	tctx->sync = tail < RL_BRIEF_NS;
	home = legal_home(p, tctx, prev_cpu);
	if (waker_is_faster(p, tctx, home, tail)) {
		cpu = bpf_get_smp_processor_id();
		settle(p, tctx, domain_of(cpu));
		count(sync_local);
		tctx->sent = true;
		return cpu;
	}
	cpu = rl_pick_idle(p, home, prev_cpu);
	if (cpu < 0 && nr_domains > 1) {
		tctx->asked = true;
		target = rl_balance_wake(p, tctx, home, wake_flags);
		if (target != home) {
			home = target;
			cpu = rl_pick_idle(p, home, prev_cpu);
		}
	}
	settle(p, tctx, home);
	if (cpu >= 0) {
		count(direct_dispatch);
		tctx->sent = tctx->direct = true;
		return cpu;
	}
	if (!tctx->sync && !(wake_flags & SCX_WAKE_FORK) && with(RL_WITHOUT_preempt)) {
		cpu = rl_pick_victim(p, tctx, home, prev_cpu);
		if (cpu >= 0)
			return cpu;
	}
	return any_cpu(p, home, prev_cpu);
}

/*
 * A waking task may take the CPU it is sent to from what runs there, if that does not run since just now; else at the next
 * tick. Not if its waker is about to leave a CPU anyway.
 */
static __always_inline bool may_preempt(struct task_struct *p, struct task_ctx *tctx, u64 enq_flags)
{
	s32 cpu = scx_bpf_task_cpu(p);
	struct cpu_ctx *cctx = lookup_cpu(cpu);
	u64 now = scx_bpf_now();

	if (!with(RL_WITHOUT_preempt) || !(enq_flags & SCX_ENQ_WAKEUP) || tctx->sync || !cctx ||
	    rl_advantage(tctx, p->scx.weight, cpu, now) <= 0)
		return false;
	if (has_run(cpu, now))
		return true;
	cctx->wanted = true;
	return false;
}

/*
 * Has a CPU not asked for a task for longer than any turn lasts? Then, most likely, its local DSQ never was empty: kernel
 * threads that wake each other there. As long as others wait, they wait like them. (Or it idled, or a higher class had it: the
 * thread waits in its queue once, to which it comes as soon as it is free.)
 */
static __always_inline bool held_up(struct cpu_ctx *cctx, s32 cpu)
{
	return cctx && (nr_queued(RL_CPU_QUEUE + cpu) || nr_queued(domain_of(cpu))) &&
	       since(cctx->dispatched_at_ns, scx_bpf_now()) > 2 * slice_ns;
}

void BPF_STRUCT_OPS(rl_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct task_ctx *tctx = lookup_task(p);
	struct cpu_ctx *cctx;
	struct domain_ctx *dom;
	bool pinned, stays;
	u32 home, queue, queued;
	u64 place, last;

	if (!tctx) {
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, slice_ns, enq_flags);
		return;
	}
	/* rl_select_cpu() leaves it to us: before 7e0ffb72de8a the kernel warns if a task leaves sched_ext between the two. */
	if (tctx->sent) {
		tctx->sent = false;
		send_to_cpu(p, tctx, enq_flags);
		return;
	}
	pinned = is_pinned(p);
	cctx = lookup_cpu(scx_bpf_task_cpu(p));
	/* Once: a kernel thread that keeps running waits for its turn like others. */
	if ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1 && (enq_flags & SCX_ENQ_WAKEUP) &&
	    !held_up(cctx, scx_bpf_task_cpu(p))) {
		count(local_kthread);
		send_to_cpu(p, tctx, want_ns(tctx) < RL_BRIEF_NS ? enq_flags | SCX_ENQ_PREEMPT : enq_flags);
		return;
	}

	tctx->direct = false;
	home = pinned ? domain_of(scx_bpf_task_cpu(p)) : legal_home(p, tctx, scx_bpf_task_cpu(p));
	queue = pinned ? RL_CPU_QUEUE + scx_bpf_task_cpu(p) : home;
	dom = lookup_domain(home);
	if (!dom) {
		scx_bpf_error("no domain %u for %s[%d]", home, p->comm, p->pid);
		return;
	}
	tctx->home = home;
	rl_join(tctx, queue);
	rl_limit_lead(tctx, p->scx.weight, enq_flags & SCX_ENQ_WAKEUP);
	queued = nr_queued(queue);
	last = rl_limit_debt(tctx, queued, pinned ? 1 : nr_cpus_of(home));
	if (pinned)
		rl_align(tctx, home, p->scx.weight);
	/* its CPU has gone idle since rl_select_cpu(), or that was left out: see ops_flags() */
	if (!queued && !pinned && (enq_flags & SCX_ENQ_WAKEUP) &&
	    scx_bpf_test_and_clear_cpu_idle(scx_bpf_task_cpu(p))) {
		send_to_cpu(p, tctx, enq_flags);
		return;
	}
	if (may_preempt(p, tctx, enq_flags)) {
		count(preemptions);
		send_to_cpu(p, tctx, enq_flags | SCX_ENQ_PREEMPT);
		return;
	}

	if (!tctx->queued_at_ns)
		tctx->queued_at_ns = scx_bpf_now();
	tctx->slice_used_ns = used_of_turn(p, tctx, enq_flags);
	if (!queued && !pinned) {
		/* the head of the queue begins to wait now */
		WRITE_ONCE(dom->last_wait_ns, 0);
		WRITE_ONCE(dom->last_served_ns, tctx->queued_at_ns);
	}
	tctx->from_dsq = true;
	/* a full barrier, before idle CPUs are looked for: see look_again() */
	__sync_lock_test_and_set(&dom->enqueued_at_ns, scx_bpf_now());
	place = turn_deadline(tctx, p->scx.weight);
	scx_bpf_dsq_insert_vtime(p, queue, slice_ns - tctx->slice_used_ns, time_before(last, place) ? last : place,
				 enq_flags);
	tctx->yielded = false;
	/*
	 * It was preempted for a moment; or the policy has just said so (or was not asked, see Known gaps), and its CPU runs tasks
	 * of ours: where a higher class has it, nobody ticks, and nobody else would look after the task.
	 */
	stays = cctx && ((tctx->slice_used_ns && cctx->preempted) || (tctx->asked && READ_ONCE(cctx->granted_at_ns)));
	tctx->asked = false;
	rl_kick_for(p, home, pinned, stays);
}

/* sched_yield(): to the end of the line, but not before it has run for a moment, as a switch costs more than that. */
bool BPF_STRUCT_OPS(rl_yield, struct task_struct *from, struct task_struct *to)
{
	struct task_ctx *tctx = lookup_task(from);
	struct cpu_ctx *cctx = lookup_cpu(scx_bpf_task_cpu(from));

	if (to || !tctx || !cctx)
		return false;
	if (with(RL_WITHOUT_yield) && since(cctx->granted_at_ns, scx_bpf_now()) < RL_YIELD_NS) {
		count(yields_kept);
		return false;
	}
	tctx->yielded = true;
	scx_bpf_task_set_slice(from, 0);
	return false;
}

/* The task whose slice has ended gets another. In a function of its own, as the stack of rl_dispatch() is nearly full. */
__noinline int rl_go_on(struct task_struct *prev __arg_trusted, bool alone)
{
	struct task_ctx *tctx = lookup_task(prev);
	struct cpu_ctx *cctx = lookup_cpu(scx_bpf_task_cpu(prev));
	u64 now = scx_bpf_now();

	if (tctx && cctx) {
		tctx->yielded = false;
		tctx->slice_used_ns = 0;
		charge(tctx, prev->scx.weight, now);
		event_turn_over(tctx, now, RL_EV_KEPT);
		if (alone)
			rl_alone(tctx);
		grant(prev, tctx, cctx, now);
	}
	scx_bpf_task_set_slice(prev, slice_ns);
	return 0;
}

void BPF_STRUCT_OPS(rl_dispatch, s32 cpu, struct task_struct *prev)
{
	u32 own = domain_of(cpu), queue;
	u32 queued = nr_queued(own), pinned = nr_queued(RL_CPU_QUEUE + cpu);
	bool goes_on = prev && (prev->scx.flags & SCX_TASK_QUEUED);
	bool waiting = queued || pinned;
	struct cpu_ctx *cctx = lookup_cpu(cpu);
	s64 late = 0;

	if (!cctx)
		return;
	cctx->dispatched_at_ns = scx_bpf_now();
	/* a CPU serves its own queues at least every second time, whatever the policy says */
	if ((waiting || goes_on) && nr_domains > 1 && !cctx->pulled &&
	    since(cctx->compared_at_ns, scx_bpf_now()) > RL_COMPARE_NS &&
	    rl_balance_pull(cpu, own, load16(queued, nr_cpus_of(own)), false)) {
		cctx->pulled = waiting;
		return;
	}
	cctx->pulled = false;
	if ((queued && unscanned(own, scx_bpf_now()) && rl_serve_starved(cpu, own)) ||
	    (pinned && unscanned(RL_CPU_QUEUE + cpu, scx_bpf_now()) && rl_serve_starved(cpu, RL_CPU_QUEUE + cpu)))
		return;
	if (waiting) {
		queue = own;
		if (goes_on || pinned || unwatched(own, scx_bpf_now()))
			queue = rl_next_queue(cpu, own, pinned, queued, &late);
		if (!goes_on || !rl_keeps_turn(prev, late)) {
			if (scx_bpf_dsq_move_to_local(queue, 0) ||
			    scx_bpf_dsq_move_to_local(queue == own ? RL_CPU_QUEUE + cpu : own, 0))
				return;
		} else {
			count(turns_kept);
		}
	}
	if (goes_on) {
		rl_go_on(prev, !waiting);
		return;
	}
	if (nr_domains > 1 && rl_balance_pull(cpu, own, 0, true))
		return;
	look_again(cpu, own, cctx);
}

void BPF_STRUCT_OPS(rl_runnable, struct task_struct *p, u64 enq_flags)
{
	struct task_ctx *tctx = lookup_task(p);
	u64 now = scx_bpf_now();

	if (!tctx)
		return;
	if (tctx->slept_at_ns)
		tctx->sleep_avg_ns = mean8(tctx->sleep_avg_ns, since(tctx->slept_at_ns, tctx->queued_at_ns ?: now));
	tctx->slept_at_ns = 0;
	/* else it waits since rl_select_cpu(), or was taken out of a queue for a moment, and has waited since before that */
	if (!tctx->queued_at_ns)
		tctx->queued_at_ns = now;
}

/* The wait of a task ends: what it says about where it waited. */
static __always_inline void note_wait(struct task_ctx *tctx, u64 wait_ns, u64 now)
{
	struct domain_ctx *dom = lookup_domain(tctx->home);

	count_wait(wait_ns);
	if (!dom)
		return;
	if (tctx->direct)
		dom->idle_wake_ns = mean8(dom->idle_wake_ns, wait_ns < RL_BRIEF_NS ? wait_ns : RL_BRIEF_NS);
	if (!tctx->from_dsq)
		return;
	if (tctx->queue == tctx->home) {
		WRITE_ONCE(dom->last_wait_ns, wait_ns);
		WRITE_ONCE(dom->last_served_ns, now);
	}
}

void BPF_STRUCT_OPS(rl_running, struct task_struct *p)
{
	struct task_ctx *tctx = lookup_task(p);
	s32 cpu = scx_bpf_task_cpu(p);
	u32 id = domain_of(cpu);
	struct domain_ctx *dom = lookup_domain(id);
	struct cpu_ctx *cctx = lookup_cpu(cpu);
	u64 now = scx_bpf_now();

	if (!tctx || !dom || !cctx)
		return;
	/* CPUs start out counted as idle, and one that was busy all along never says otherwise */
	set_idle(cpu, id, false);
	cctx->looks = 0;
	cctx->rescue = 0;
	if (tctx->queued_at_ns) {
		note_wait(tctx, since(tctx->queued_at_ns, now), now);
		tctx->queued_at_ns = 0;
	}
	if (tctx->queue != RL_CPU_QUEUE + cpu)
		rl_join(tctx, id);
	if (!nr_queued(RL_CPU_QUEUE + cpu))
		rl_alone(tctx);
	tctx->home = id;
	tctx->sync = false;
	tctx->from_dsq = false;
	tctx->direct = tctx->sent = false; /* the kernel may have bypassed rl_enqueue() */
	tctx->asked = false;
	tctx->moved = tctx->ran_dom != RL_NO_DOMAIN && tctx->ran_dom != id;
	if (tctx->moved) {
		tctx->moved_at_ns = now;
		count_add(RL_CNT_migrated_smt + distance_between(tctx->ran_dom, id), 1);
	}
	tctx->ran_dom = id;
	tctx->running_at_ns = now;
	tctx->charged_at_ns = now;
	grant(p, tctx, cctx, now);
	event_ran(tctx, id, now);
	tctx->nr_runs++;
}

void BPF_STRUCT_OPS(rl_stopping, struct task_struct *p, bool runnable)
{
	struct task_ctx *tctx = lookup_task(p);
	struct cpu_ctx *cctx = lookup_cpu(scx_bpf_task_cpu(p));
	struct domain_ctx *dom;
	u64 now = scx_bpf_now(), used, turn = 0;
	bool whole;

	if (cctx) {
		turn = turn_ns(cctx, now);
		WRITE_ONCE(cctx->granted_at_ns, 0);
	}
	if (!tctx || !tctx->running_at_ns)
		return;
	used = since(tctx->running_at_ns, now);
	tctx->running_at_ns = 0;
	charge(tctx, p->scx.weight, now);
	tctx->charged_at_ns = 0;
	if (tctx->woke_at_ns) {
		note_tail(tctx, since(tctx->woke_at_ns, now));
		tctx->woke_at_ns = 0;
	}

	/* the burst was served in this one period, from its begin to its end */
	whole = !runnable && tctx->burst_ns <= used;
	event_stopped(tctx, used, whole);
	/* If it does not sleep: see rl_quiescent(). An interrupted turn goes on later, and nobody knows what it would have been. */
	if (runnable)
		event_turn_over(tctx, now, p->scx.slice || (cctx && cctx->preempted) ? RL_EV_CENSOR_DEQUEUED : 0);
	note_period(tctx, used, whole);
	/* a turn that is over is not taken up again; one that somebody preempts for a moment is */
	tctx->slice_used_ns = p->scx.slice || (cctx && cctx->preempted) ? turn : 0;
	tctx->stopped_at_ns = now;
	tctx->queued_at_ns = runnable ? now : 0;

	dom = lookup_domain(tctx->ran_dom);
	if (dom)
		dom->run_avg_ns = mean8(dom->run_avg_ns, used);
}

void BPF_STRUCT_OPS(rl_quiescent, struct task_struct *p, u64 deq_flags)
{
	struct task_ctx *tctx = lookup_task(p);

	if (!tctx)
		return;
	event_turn_over(tctx, scx_bpf_now(), deq_flags & SCX_DEQ_SLEEP ? RL_EV_WHOLE : RL_EV_CENSOR_DEQUEUED);
	/* else its nice value, affinity or cgroup changes, and it goes on, or goes on waiting */
	if (deq_flags & SCX_DEQ_SLEEP) {
		tctx->queued_at_ns = 0;
		if (!tctx->burst_avg_ns)
			settle_first_burst(tctx, p->scx.weight);
		count(bursts);
		count_add(RL_CNT_burst_sum_ns, tctx->burst_ns);
		tctx->burst_avg_ns = mean8(tctx->burst_avg_ns, tctx->burst_ns);
		tctx->burst_ns = 0;
		tctx->slice_used_ns = 0;
		tctx->slept_at_ns = scx_bpf_now();
		event_censor(tctx, RL_EV_CENSOR_DEQUEUED);
	}
}

/*
 * Tasks only wait where every CPU is busy, and busy CPUs tick. So here the running task's time ends when others' turn has
 * come, and here an idle CPU is sent for a waiter past the bound, whatever the policy said.
 */
void BPF_STRUCT_OPS(rl_tick, struct task_struct *curr)
{
	s32 cpu = scx_bpf_task_cpu(curr);
	u32 id = domain_of(cpu), waiting = waiting16(cpu, id);
	struct cpu_ctx *cctx = lookup_cpu(cpu);
	u64 now = scx_bpf_now(), turn;
	bool promised, goes_on;

	if (!cctx)
		return;
	/* who waits in the local DSQ was promised this CPU in a moment, and no other CPU can help */
	promised = nr_queued(SCX_DSQ_LOCAL_ON | cpu) || (waiting && cctx->wanted);
	if (!promised && !waiting)
		return;
	turn = turn_ns(cctx, now);
	if (promised)
		goes_on = turn < slice_min_ns;
	else if (policy_has_turns()) /* a slice that is used up ends in any case: no question */
		goes_on = turn < slice_min_ns || !curr->scx.slice ||
			  (turn < turn_limit_ns(waiting) && rl_turn_goes_on(curr, cpu, id, turn, now));
	else
		goes_on = turn < allowed_ns(running_want_ns(cctx, now), waiting);
	if (!goes_on)
		scx_bpf_task_set_slice(curr, 0);
	if (nr_queued(id) && any_idle())
		rl_rescue(id, now);
}

/* Not called where a kick finds nothing to do, from idle to idle: so rl_dispatch() looks again by itself, too. */
void BPF_STRUCT_OPS(rl_update_idle, s32 cpu, bool idle)
{
	u32 id = domain_of(cpu);
	struct cpu_ctx *cctx = lookup_cpu(cpu);

	set_idle(cpu, id, idle);
	if (idle && cctx)
		look_again(cpu, id, cctx);
}

void BPF_STRUCT_OPS(rl_set_cpumask, struct task_struct *p, const struct cpumask *cpumask)
{
	struct task_ctx *tctx = lookup_task(p);

	/* where the task may wait is checked at each wakeup and enqueue; here, only what was decided before is void */
	if (tctx)
		event_censor(tctx, RL_EV_CENSOR_AFFINITY);
}

void BPF_STRUCT_OPS(rl_set_weight, struct task_struct *p, u32 weight)
{
	struct task_ctx *tctx = lookup_task(p);

	if (tctx)
		reweight(tctx, weight);
}

void BPF_STRUCT_OPS(rl_cpu_release, s32 cpu, struct scx_cpu_release_args *args)
{
	/* a higher class took the CPU: what waits in its local DSQ must not wait for that to end */
	scx_bpf_reenqueue_local();
}

void BPF_STRUCT_OPS(rl_enable, struct task_struct *p)
{
	struct task_ctx *tctx = lookup_task(p);
	u64 *now = tctx ? clock_of(tctx->queue) : NULL;

	if (!now)
		return;
	if (tctx->nr_runs) {
		/* back from a higher class, where its sleeps were not seen: neither debt nor a long credit is forgotten */
		tctx->slice_used_ns = 0;
		tctx->yielded = false;
		rl_limit_lead(tctx, p->scx.weight, false);
		return;
	}
	tctx->vtime = READ_ONCE(*now);
	prepay(tctx, p->scx.weight);
}

void BPF_STRUCT_OPS(rl_disable, struct task_struct *p)
{
	struct task_ctx *tctx = lookup_task(p);
	u64 local = SCX_DSQ_LOCAL_ON | scx_bpf_task_cpu(p);

	if (!tctx)
		return;
	tctx->queued_at_ns = 0;
	/* it may have been between rl_select_cpu() and rl_enqueue() */
	tctx->asked = tctx->sync = tctx->sent = tctx->direct = tctx->from_dsq = false;
	event_censor(tctx, RL_EV_CENSOR_EXIT);
	/*
	 * A running task goes to a higher class: no cpu_release() tells, and who is next on its CPU must not wait for its sleep.
	 * Before 7.1 nothing can be done for them; they are few and were promised the CPU for a moment later.
	 */
	if (__COMPAT_has_generic_reenq() && !(p->flags & PF_EXITING) && nr_queued(local))
		scx_bpf_dsq_reenq(local, 0);
}

s32 BPF_STRUCT_OPS(rl_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	struct task_ctx *tctx = bpf_task_storage_get(&tasks, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!tctx)
		return -ENOMEM;
	__builtin_memset(tctx, 0, sizeof(*tctx)); /* the map outlives a restart, see Scheduler::attach() */
	tctx->home = domain_of(scx_bpf_task_cpu(p));
	tctx->queue = tctx->home;
	tctx->ran_dom = RL_NO_DOMAIN;
	return 0;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(rl_init)
{
	u32 i;
	s32 err;

	bpf_for(i, 0, nr_domains) {
		err = init_domain(i);
		if (err) {
			scx_bpf_error("cannot set up domain %u: %d", i, err);
			return err;
		}
	}
	return init_cpus();
}

void BPF_STRUCT_OPS(rl_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

/* The kernel does the same when a CPU comes, and would when one goes. This is for what must be known before it is gone. */
void BPF_STRUCT_OPS(rl_cpu_offline, s32 cpu)
{
	WRITE_ONCE(cpu_leaves, true);
	scx_bpf_exit(SCX_ECODE_ACT_RESTART | SCX_ECODE_RSN_HOTPLUG, "CPU %d goes offline, restarting", cpu);
}

SCX_OPS_DEFINE(rl_ops,
	       .select_cpu = (void *)rl_select_cpu,
	       .enqueue = (void *)rl_enqueue,
	       .dispatch = (void *)rl_dispatch,
	       .yield = (void *)rl_yield,
	       .runnable = (void *)rl_runnable,
	       .running = (void *)rl_running,
	       .stopping = (void *)rl_stopping,
	       .quiescent = (void *)rl_quiescent,
	       .tick = (void *)rl_tick,
	       .update_idle = (void *)rl_update_idle,
	       .set_weight = (void *)rl_set_weight,
	       .set_cpumask = (void *)rl_set_cpumask,
	       .cpu_release = (void *)rl_cpu_release,
	       .cpu_offline = (void *)rl_cpu_offline,
	       .enable = (void *)rl_enable,
	       .disable = (void *)rl_disable,
	       .init_task = (void *)rl_init_task,
	       .init = (void *)rl_init,
	       .exit = (void *)rl_exit,
	       .name = "rl");
