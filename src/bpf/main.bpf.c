/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * scx_rl: domains with weighted virtual time, and a balancer between them that learns.
 *
 * - A domain (by default one last-level cache) has one DSQ, ordered by virtual time; its CPUs serve it.
 * - A waking task goes to an idle CPU of its home domain. Only when there is none, and another domain is legal for it,
 *   the policy is asked whether to stay (WAKE, balance_wake()).
 * - A CPU that runs out of work, or has far less than another domain, asks whether to take a task from there (PULL,
 *   balance_pull()).
 * - Tasks without a choice of CPU are never asked about: pinned tasks wait in the queue of their CPU's domain, per-CPU
 *   kernel threads go straight to their CPU, and the kernel itself does the same with migration-disabled and exiting
 *   tasks (we do not set the flags that would hand them to us).
 * - The bound on waiting does not depend on the policy: see balance_wake(), balance_pull(), and rl_tick().
 *
 * Reading order: intf.h, features.h, policy.h, slots.h, state.bpf.h, event.bpf.h, balance.bpf.h, this file.
 */
#include "balance.bpf.h"

char _license[] SEC("license") = "GPL";

UEI_DEFINE(uei);

/* From deciding an insertion to the task being in the queue, at most. */
#define RL_INSERT_NS 50000

/* vtime of a task that moves: it keeps its lag to the domain, at most a slice of it. */
static __always_inline void set_home(struct task_struct *p, struct task_ctx *tctx, u32 id)
{
	struct domain_ctx *from, *to;
	s64 lag;

	if (tctx->home == id)
		return;
	from = lookup_domain(tctx->home);
	to = lookup_domain(id);
	if (!from || !to)
		return;
	lag = (s64)(p->scx.dsq_vtime - from->vtime_now);
	if (lag > (s64)slice_ns)
		lag = slice_ns;
	if (lag < -(s64)slice_ns)
		lag = -(s64)slice_ns;
	scx_bpf_task_set_dsq_vtime(p, to->vtime_now + lag);
	tctx->home = id;
}

/* A CPU's own domain if the task may run there, else the first domain where it may. */
static __always_inline u32 legal_home(struct task_struct *p, struct task_ctx *tctx, s32 cpu)
{
	struct domain_ctx *dom = lookup_domain(tctx->home);

	if (dom && domain_allowed(dom, p))
		return tctx->home;
	if (cpu < 0 || !bpf_cpumask_test_cpu(cpu, p->cpus_ptr))
		cpu = bpf_cpumask_any_distribute(p->cpus_ptr);
	return domain_of(cpu);
}

/* Claim an idle CPU of the domain that p may use: prev_cpu if it is one, a whole idle core before a busy one's sibling. */
static __noinline s32 pick_idle(struct task_struct *p, u32 id, s32 prev_cpu)
{
	struct domain_ctx *dom = lookup_domain(id);
	struct bpf_cpumask *mask, *both;
	struct cpu_ctx *cctx = lookup_cpu(bpf_get_smp_processor_id());
	s32 cpu = -EBUSY;

	if (!dom || !cctx)
		return -EBUSY;
	if (!smt_enabled && prev_cpu >= 0 && domain_of(prev_cpu) == id && bpf_cpumask_test_cpu(prev_cpu, p->cpus_ptr) &&
	    scx_bpf_test_and_clear_cpu_idle(prev_cpu))
		return prev_cpu;

	bpf_rcu_read_lock();
	mask = dom->cpumask;
	if (!mask)
		goto out;
	if (!bpf_cpumask_subset(cast_mask(mask), p->cpus_ptr)) {
		both = cctx->mask;
		if (!both)
			goto out;
		bpf_cpumask_and(both, cast_mask(mask), p->cpus_ptr);
		mask = both;
	}
	if (smt_enabled) {
		cpu = scx_bpf_pick_idle_cpu(cast_mask(mask), SCX_PICK_IDLE_CORE);
		if (cpu < 0 && prev_cpu >= 0 && bpf_cpumask_test_cpu(prev_cpu, cast_mask(mask)) &&
		    scx_bpf_test_and_clear_cpu_idle(prev_cpu))
			cpu = prev_cpu;
	}
	if (cpu < 0)
		cpu = scx_bpf_pick_idle_cpu(cast_mask(mask), 0);
out:
	bpf_rcu_read_unlock();
	return cpu;
}

/* Some CPU of the domain that p may use; prev_cpu if it is one. */
static __always_inline s32 any_cpu(struct task_struct *p, u32 id, s32 prev_cpu)
{
	struct domain_ctx *dom = lookup_domain(id);
	s32 cpu = prev_cpu;

	if (domain_of(prev_cpu) == id && bpf_cpumask_test_cpu(prev_cpu, p->cpus_ptr))
		return prev_cpu;
	if (dom && dom->cpumask)
		cpu = bpf_cpumask_any_and_distribute(cast_mask(dom->cpumask), p->cpus_ptr);
	return cpu >= 0 && cpu < nr_cpu_ids ? cpu : prev_cpu;
}

s32 BPF_STRUCT_OPS(rl_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	struct task_ctx *tctx = lookup_task(p);
	u32 home, target;
	s32 cpu;

	if (!tctx || is_pinned(p))
		return prev_cpu;

	home = legal_home(p, tctx, prev_cpu);
	cpu = pick_idle(p, home, prev_cpu);
	if (cpu < 0 && nr_domains > 1) {
		target = balance_wake(p, tctx, home, wake_flags);
		if (target != home) {
			home = target;
			cpu = pick_idle(p, home, prev_cpu);
		}
	}
	set_home(p, tctx, home);
	if (cpu < 0)
		return any_cpu(p, home, prev_cpu);

	tctx->from_dsq = false;
	count(direct_dispatch);
	scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, slice_ns, 0);
	return cpu;
}

/* Keep the domain's count of idle CPUs. Only the CPU itself, or its update_idle, changes its flag. */
static __always_inline void set_idle(s32 cpu, u32 id, u32 idle)
{
	struct cpu_ctx *cctx = lookup_cpu(cpu);
	struct domain_ctx *dom = lookup_domain(id);

	if (!cctx || !dom || cctx->idle == idle)
		return;
	cctx->idle = idle;
	__sync_fetch_and_add(&dom->nr_idle, idle ? 1 : -1);
}

/* Wake a CPU for a task that was just queued in domain id. */
static __always_inline void kick_for(struct task_struct *p, u32 id, bool pinned, u64 enq_flags)
{
	s32 cpu = scx_bpf_task_cpu(p);

	if (pinned) {
		if (scx_bpf_test_and_clear_cpu_idle(cpu))
			scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
		return;
	}
	cpu = pick_idle(p, id, cpu);
	/*
	 * Nobody at home: let an idle CPU elsewhere look at the queue and decide (PULL). Not after a wakeup, where the
	 * policy has just said that the task should stay.
	 */
	if (cpu < 0 && nr_domains > 1 && !(enq_flags & SCX_ENQ_WAKEUP))
		cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0)
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(rl_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct task_ctx *tctx = lookup_task(p);
	struct domain_ctx *dom;
	bool pinned = is_pinned(p);
	u64 vtime, behind;
	u32 id;

	if (!tctx || ((p->flags & PF_KTHREAD) && p->nr_cpus_allowed == 1)) {
		count(local_kthread);
		if (tctx)
			tctx->from_dsq = false;
		scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, slice_ns, enq_flags);
		return;
	}

	id = pinned ? domain_of(scx_bpf_task_cpu(p)) : legal_home(p, tctx, scx_bpf_task_cpu(p));
	dom = lookup_domain(id);
	if (!dom) {
		scx_bpf_error("no domain %u for %s[%d]", id, p->comm, p->pid);
		return;
	}
	set_home(p, tctx, id);

	/*
	 * A long sleeper may be ahead of the others by one slice, not by its whole sleep; and a task that had its CPU to
	 * itself for long, which the kernel does not tell, may be behind by what a slice costs it, not by all that time.
	 */
	vtime = p->scx.dsq_vtime;
	behind = slice_ns * 100 / (p->scx.weight ?: 1);
	if (time_before(vtime, dom->vtime_now - slice_ns))
		vtime = dom->vtime_now - slice_ns;
	else if (time_before(dom->vtime_now + behind, vtime))
		vtime = dom->vtime_now + behind;

	if (!tctx->queued_at_ns)
		tctx->queued_at_ns = scx_bpf_now();
	if (!nr_queued(id)) {
		/* the head of the queue begins to wait now */
		WRITE_ONCE(dom->last_wait_ns, 0);
		WRITE_ONCE(dom->last_served_ns, tctx->queued_at_ns);
	}
	tctx->from_dsq = true;
	WRITE_ONCE(dom->enqueued_at_ns, scx_bpf_now());
	scx_bpf_dsq_insert_vtime(p, id, slice_ns, vtime, enq_flags);
	kick_for(p, id, pinned, enq_flags);
}

void BPF_STRUCT_OPS(rl_dispatch, s32 cpu, struct task_struct *prev)
{
	u32 own = domain_of(cpu);
	u32 queued = nr_queued(own);
	bool busy = queued || (prev && (prev->scx.flags & SCX_TASK_QUEUED));
	struct cpu_ctx *cctx = lookup_cpu(cpu);

	if (!cctx)
		return;
	/* a CPU serves its own queue at least every second time, whatever the policy says */
	if (busy && nr_domains > 1 && !cctx->pulled &&
	    balance_pull(cpu, own, rl_ratio16(queued, nr_cpus_of(own)), false)) {
		cctx->pulled = queued > 0;
		return;
	}
	cctx->pulled = false;
	if (queued && scx_bpf_dsq_move_to_local(own, 0))
		return;
	if (prev && (prev->scx.flags & SCX_TASK_QUEUED)) {
		/* nothing better to run */
		scx_bpf_task_set_slice(prev, slice_ns);
		return;
	}
	if (nr_domains > 1)
		balance_pull(cpu, own, 0, true);
}

void BPF_STRUCT_OPS(rl_runnable, struct task_struct *p, u64 enq_flags)
{
	struct task_ctx *tctx = lookup_task(p);
	u64 now = scx_bpf_now();

	if (!tctx)
		return;
	if (tctx->slept_at_ns)
		tctx->sleep_avg_ns = mean8(tctx->sleep_avg_ns, since(tctx->slept_at_ns, now));
	tctx->slept_at_ns = 0;
	tctx->queued_at_ns = now;
}

static __always_inline void count_wait(u64 wait_ns)
{
	u32 zero = 0, bucket;
	struct rl_cpu_stats *s = bpf_map_lookup_elem(&stats, &zero);

	if (!s)
		return;
	bucket = log2_u64(wait_ns / 1000 + 1) - 1;
	if (bucket >= RL_HIST_BUCKETS)
		bucket = RL_HIST_BUCKETS - 1;
	s->wait_hist[bucket]++;
	s->counters[RL_CNT_runs]++;
	s->counters[RL_CNT_wait_sum_ns] += wait_ns;
}

void BPF_STRUCT_OPS(rl_running, struct task_struct *p)
{
	struct task_ctx *tctx = lookup_task(p);
	s32 cpu = scx_bpf_task_cpu(p);
	u32 id = domain_of(cpu);
	struct domain_ctx *dom = lookup_domain(id);
	u64 now = scx_bpf_now(), wait_ns = 0;

	if (!tctx || !dom)
		return;
	/* CPUs start out counted as idle, and one that was busy all along never says otherwise */
	set_idle(cpu, id, false);
	if (tctx->queued_at_ns) {
		wait_ns = since(tctx->queued_at_ns, now);
		tctx->queued_at_ns = 0;
		count_wait(wait_ns);
		if (tctx->from_dsq) {
			struct domain_ctx *queue = lookup_domain(tctx->home);

			if (queue) {
				WRITE_ONCE(queue->last_wait_ns, wait_ns);
				WRITE_ONCE(queue->last_served_ns, now);
			}
		}
	}
	tctx->from_dsq = false;
	tctx->moved = tctx->ran_dom != RL_NO_DOMAIN && tctx->ran_dom != id;
	if (tctx->moved) {
		tctx->moved_at_ns = now;
		count_add(RL_CNT_migrated_smt + distance_between(tctx->ran_dom, id), 1);
	}
	set_home(p, tctx, id);
	tctx->ran_dom = id;
	tctx->running_at_ns = now;
	if (time_before(dom->vtime_now, p->scx.dsq_vtime))
		dom->vtime_now = p->scx.dsq_vtime;
	event_ran(tctx, id, now);
	tctx->nr_runs++;
}

void BPF_STRUCT_OPS(rl_stopping, struct task_struct *p, bool runnable)
{
	struct task_ctx *tctx = lookup_task(p);
	u32 weight = p->scx.weight ?: 1;
	struct domain_ctx *dom;
	u64 now = scx_bpf_now(), used;

	if (!tctx || !tctx->running_at_ns)
		return;
	used = since(tctx->running_at_ns, now);
	tctx->running_at_ns = 0;
	scx_bpf_task_set_dsq_vtime(p, p->scx.dsq_vtime + used * 100 / weight);

	event_stopped(tctx, used, !runnable);
	if (tctx->moved && tctx->run_avg_ns)
		tctx->move_penalty_ns =
			mean8(tctx->move_penalty_ns, used > tctx->run_avg_ns ? used - tctx->run_avg_ns : 0);
	tctx->run_avg_ns = mean8(tctx->run_avg_ns, used);
	tctx->stopped_at_ns = now;
	tctx->queued_at_ns = runnable ? now : 0;
	tctx->slept_at_ns = runnable ? 0 : now;

	dom = lookup_domain(tctx->ran_dom);
	if (dom)
		dom->run_avg_ns = mean8(dom->run_avg_ns, used);
}

void BPF_STRUCT_OPS(rl_quiescent, struct task_struct *p, u64 deq_flags)
{
	struct task_ctx *tctx = lookup_task(p);

	if (!tctx)
		return;
	tctx->queued_at_ns = 0;
	event_censor(tctx, RL_EV_CENSOR_DEQUEUED);
}

/* Is any CPU idle at all? */
static __always_inline bool any_idle(void)
{
	const struct cpumask *idle = scx_bpf_get_idle_cpumask();
	bool any = !bpf_cpumask_empty(idle);

	scx_bpf_put_idle_cpumask(idle);
	return any;
}

/*
 * Tasks only wait where every CPU is busy, and busy CPUs tick: so this is where an idle CPU elsewhere is sent for a
 * waiter past the bound, whatever the policy said. It looks at the tasks themselves, from the end of the queue, where
 * those are that wait longest.
 */
void BPF_STRUCT_OPS(rl_tick, struct task_struct *curr)
{
	u32 id = domain_of(scx_bpf_task_cpu(curr)), scanned = 0;
	struct task_struct *p;
	u64 now = scx_bpf_now();

	if (nr_domains < 2 || !nr_queued(id) || !any_idle())
		return;
	bpf_for_each(scx_dsq, p, id, SCX_DSQ_ITER_REV) {
		struct task_ctx *tctx;
		struct cpu_ctx *cctx;
		u64 queued_at;
		s32 cpu;

		if (scanned++ >= RL_PULL_SCAN_OVERDUE)
			break;
		tctx = lookup_task(p);
		queued_at = tctx ? READ_ONCE(tctx->queued_at_ns) : 0;
		if (!queued_at || is_pinned(p) || since(queued_at, now) <= wait_bound_ns)
			continue;
		cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
		if (cpu < 0)
			continue;
		cctx = lookup_cpu(cpu);
		if (cctx)
			cctx->rescue = id + 1;
		count(tick_rescues);
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
		break;
	}
}

void BPF_STRUCT_OPS(rl_update_idle, s32 cpu, bool idle)
{
	u32 id = domain_of(cpu);
	struct domain_ctx *dom = lookup_domain(id);

	set_idle(cpu, id, idle);
	/*
	 * A task queued after this CPU last looked, and before the kernel marked it idle, found nobody to kick. The mark
	 * is set by now: look again. The kernel inserts only after rl_enqueue() has returned, so one that was just
	 * decided counts as well.
	 */
	if (idle && dom && (nr_queued(id) || since(READ_ONCE(dom->enqueued_at_ns), scx_bpf_now()) < RL_INSERT_NS))
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

void BPF_STRUCT_OPS(rl_set_cpumask, struct task_struct *p, const struct cpumask *cpumask)
{
	struct task_ctx *tctx = lookup_task(p);

	/* where the task may wait is checked at each wakeup and enqueue; here, only what was decided before is void */
	if (tctx)
		event_censor(tctx, RL_EV_CENSOR_AFFINITY);
}

void BPF_STRUCT_OPS(rl_cpu_release, s32 cpu, struct scx_cpu_release_args *args)
{
	/* a higher class took the CPU: what waits in its local DSQ must not wait for that to end */
	scx_bpf_reenqueue_local();
}

void BPF_STRUCT_OPS(rl_enable, struct task_struct *p)
{
	struct task_ctx *tctx = lookup_task(p);
	struct domain_ctx *dom;

	if (!tctx)
		return;
	dom = lookup_domain(tctx->home);
	if (dom)
		scx_bpf_task_set_dsq_vtime(p, dom->vtime_now);
}

void BPF_STRUCT_OPS(rl_disable, struct task_struct *p)
{
	struct task_ctx *tctx = lookup_task(p);

	if (tctx)
		event_censor(tctx, RL_EV_CENSOR_EXIT);
}

s32 BPF_STRUCT_OPS(rl_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	struct task_ctx *tctx = bpf_task_storage_get(&tasks, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!tctx)
		return -ENOMEM;
	tctx->home = domain_of(scx_bpf_task_cpu(p));
	tctx->ran_dom = RL_NO_DOMAIN;
	return 0;
}

static s32 init_cpu(s32 cpu)
{
	struct cpu_ctx *cctx = lookup_cpu(cpu);
	struct bpf_cpumask *mask;

	if (!cctx)
		return -EINVAL;
	mask = bpf_cpumask_create();
	if (!mask)
		return -ENOMEM;
	mask = bpf_kptr_xchg(&cctx->mask, mask);
	if (mask)
		bpf_cpumask_release(mask);
	return 0;
}

static s32 init_domain(u32 id)
{
	struct domain_ctx *dom = lookup_domain(id);
	struct bpf_cpumask *mask;
	u32 cpu;
	s32 err;

	if (!dom || id >= RL_MAX_DOMAINS)
		return -EINVAL;
	err = scx_bpf_create_dsq(id, -1);
	if (err)
		return err;
	mask = bpf_cpumask_create();
	if (!mask)
		return -ENOMEM;
	bpf_for(cpu, 0, nr_cpu_ids) {
		if (cpu >= RL_MAX_CPUS)
			break;
		if (domain_cpus[id][cpu / 64] & (1ULL << (cpu % 64))) {
			bpf_cpumask_set_cpu(cpu, mask);
			/* the kernel, too, takes every CPU for idle at first */
			set_idle(cpu, id, true);
		}
	}
	mask = bpf_kptr_xchg(&dom->cpumask, mask);
	if (mask)
		bpf_cpumask_release(mask);
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
	bpf_for(i, 0, nr_cpu_ids) {
		err = init_cpu(i);
		if (err)
			return err;
	}
	return 0;
}

void BPF_STRUCT_OPS(rl_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

/* No cpu_online / cpu_offline: on hotplug the kernel ends the scheduler and asks for a restart, which userspace does. */
SCX_OPS_DEFINE(rl_ops,
	       .select_cpu = (void *)rl_select_cpu,
	       .enqueue = (void *)rl_enqueue,
	       .dispatch = (void *)rl_dispatch,
	       .runnable = (void *)rl_runnable,
	       .running = (void *)rl_running,
	       .stopping = (void *)rl_stopping,
	       .quiescent = (void *)rl_quiescent,
	       .tick = (void *)rl_tick,
	       .update_idle = (void *)rl_update_idle,
	       .set_cpumask = (void *)rl_set_cpumask,
	       .cpu_release = (void *)rl_cpu_release,
	       .enable = (void *)rl_enable,
	       .disable = (void *)rl_disable,
	       .init_task = (void *)rl_init_task,
	       .init = (void *)rl_init,
	       .exit = (void *)rl_exit,
	       .name = "rl");
