/* SPDX-License-Identifier: GPL-2.0-only */
/* What the choice after scx_rusty (rivals.h) must know of tasks: the scheduler's operations, with notes taken. */
#ifndef __SCX_RL_SIM_RUSTY_H
#define __SCX_RL_SIM_RUSTY_H

static void rusty_enable(struct task_struct *p)
{
	struct rusty_task *task = rusty_of(p);

	rl_enable(p);
	if (!task) {
		scx_bpf_error("more than %d tasks", RUSTY_TASKS);
		return;
	}
	task->p = p;
	task->domain = domain_of(scx_bpf_task_cpu(p));
	if ((u32)p->pid >= rusty_nr_tasks)
		rusty_nr_tasks = p->pid + 1;
}

/* It begins at its own domain, or where it last ran, if that CPU idles and its domain helps others. */
static s32 rusty_select_cpu(struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	struct rusty_task *task = rusty_of(p);
	struct task_ctx *tctx = lookup_task(p);
	u32 prev = domain_of(prev_cpu);

	if (task && tctx) {
		bool lingers = rusty_domains[prev].greedy && bpf_cpumask_test_cpu(prev_cpu, scx_bpf_get_idle_cpumask());

		tctx->home = lingers ? prev : task->domain;
	}
	return rl_select_cpu(p, prev_cpu, wake_flags);
}

/* It waits at its own domain, and an idle CPU elsewhere is always woken to look. */
static void rusty_enqueue(struct task_struct *p, u64 enq_flags)
{
	struct rusty_task *task = rusty_of(p);
	struct task_ctx *tctx = lookup_task(p);

	if (task && tctx) {
		tctx->home = task->domain;
		tctx->asked = false;
	}
	rl_enqueue(p, enq_flags);
}

static void rusty_runnable(struct task_struct *p, u64 enq_flags)
{
	struct rusty_task *task = rusty_of(p);

	rl_runnable(p, enq_flags);
	if (task)
		task->runnable_at_ns = scx_bpf_now();
}

static void rusty_quiescent(struct task_struct *p, u64 deq_flags)
{
	struct rusty_task *task = rusty_of(p);

	rl_quiescent(p, deq_flags);
	if (task && task->runnable_at_ns) {
		task->runnable_ns += scx_bpf_now() - task->runnable_at_ns;
		task->runnable_at_ns = 0;
	}
}

/* What it has run since that was last noted. */
static void rusty_note_busy(struct task_struct *p, struct rusty_task *task, u64 now)
{
	struct task_ctx *tctx = lookup_task(p);
	u64 from = tctx ? tctx->running_at_ns : 0;

	if (!from)
		return;
	if (time_before(from, task->noted_at_ns))
		from = task->noted_at_ns;
	rusty_domains[domain_of(scx_bpf_task_cpu(p))].busy_ns += now - from;
	task->noted_at_ns = now;
}

static void rusty_stopping(struct task_struct *p, bool runnable)
{
	struct rusty_task *task = rusty_of(p);

	if (task)
		rusty_note_busy(p, task, scx_bpf_now());
	rl_stopping(p, runnable);
}

static void rusty_tick(struct task_struct *curr)
{
	struct rusty_task *task = rusty_of(curr);
	u64 now = scx_bpf_now();

	rl_tick(curr);
	if (task)
		rusty_note_busy(curr, task, now);
	if (!rusty_balanced_at_ns) {
		rusty_tuned_at_ns = now;
		rusty_balanced_at_ns = now;
	}
	if (now - rusty_tuned_at_ns >= RUSTY_TUNE_NS)
		rusty_tune(now);
	if (now - rusty_balanced_at_ns >= RUSTY_BALANCE_NS)
		rusty_balance(now);
}

static void rusty_hook(struct sched_ext_ops *ops)
{
	ops->enable = rusty_enable;
	ops->select_cpu = rusty_select_cpu;
	ops->enqueue = rusty_enqueue;
	ops->runnable = rusty_runnable;
	ops->quiescent = rusty_quiescent;
	ops->stopping = rusty_stopping;
	ops->tick = rusty_tick;
}

#endif /* __SCX_RL_SIM_RUSTY_H */
