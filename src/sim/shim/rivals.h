/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How others choose between domains, in the place of the policy: what it is measured against. Only that choice is theirs;
 * queues, slices, and where a task goes within a domain are the scheduler's own, so that nothing else is compared.
 */
#ifndef __SCX_RL_SIM_RIVALS_H
#define __SCX_RL_SIM_RIVALS_H

#include "event.bpf.h"

/* src/sim/rival.rs has the same numbers. */
enum sim_rival {
	SIM_POLICY,
	SIM_TWO_CHOICES,
	SIM_RUSTY,
	SIM_SPLIT,
};

static u32 rival;
/* SIM_SPLIT: the rule for tasks that have a working set; the published one is for the others. */
static struct rl_rule dear_rule;

/* An oracle: what a move costs a task is known, and not guessed from what it did. */
static int sim_decide(struct task_struct *p, struct rl_ask *ask)
{
	struct rl_decision *d = &ask->decision;

	rl_decide(ask);
	if (rival != SIM_SPLIT || !p->working_set_kib)
		return 0;
	d->action = rl_heuristic(&dear_rule, ask->features);
	d->p_migrate_q16 = d->action == RL_MIGRATE ? RL_PROB_ONE : 0;
	return 0;
}

#define rl_decide(ask) sim_decide(p, ask)
#define rl_balance_wake policy_balance_wake
#define rl_balance_pull policy_balance_pull
#include "balance.bpf.h"
#undef rl_decide
#undef rl_balance_wake
#undef rl_balance_pull

/* Tasks of a domain per CPU, in 16ths, with those that run. */
static u32 sim_load16(u32 id)
{
	struct domain_ctx *dom = lookup_domain(id);
	u32 cpus = nr_cpus_of(id), idle = dom ? dom->nr_idle : 0;

	return load16(nr_queued(id) + cpus - (idle < cpus ? idle : cpus), cpus);
}

/* Take the first task of the domain's queue that may run on the CPU. */
static bool take_first(s32 cpu, u32 id)
{
	struct arm_args arm = { .now = scx_bpf_now() };
	struct task_struct *p;
	u32 scanned = 0;
	bool taken = false;

	bpf_for_each(scx_dsq, p, id, 0) {
		struct task_ctx *tctx = lookup_task(p);

		if (scanned++ >= RL_PULL_SCAN)
			break;
		if (!tctx || !movable(p, tctx, cpu, &arm))
			continue;
		taken = scx_bpf_dsq_move(BPF_FOR_EACH_ITER, p, SCX_DSQ_LOCAL, 0);
		break;
	}
	return taken;
}

/*
 * Two choices: of two domains at random, the less loaded, if it is less loaded than home; and a CPU that would idle takes
 * from the more loaded of two. (Mitzenmacher 2001, "The Power of Two Choices in Randomized Load Balancing"; scx_p2dq.)
 */
static u32 two_choices_wake(struct task_struct *p, u32 home)
{
	u32 best = home, i;

	for (i = 0; i < 2; i++) {
		u32 id = bpf_get_prandom_u32() % nr_domains;
		struct domain_ctx *dom = lookup_domain(id);

		if (dom && domain_allowed(dom, p) && sim_load16(id) < sim_load16(best))
			best = id;
	}
	return best;
}

static bool two_choices_pull(s32 cpu, u32 own)
{
	u32 a = bpf_get_prandom_u32() % nr_domains, b = bpf_get_prandom_u32() % nr_domains;

	if (a == own || (b != own && nr_queued(b) > nr_queued(a)))
		a = b;
	return a != own && nr_queued(a) && take_first(cpu, a);
}

/*
 * After scx_rusty 1.1 with its defaults, between the domains of a NUMA node. A task belongs to a domain, wherever it
 * happens to run:
 * - it wakes up there, or on an idle CPU elsewhere, if the domain of that was busy for less than 90 % (direct greedy; there
 *   of a CPU): where it last ran, first
 * - a CPU that would idle takes the first task of another domain's queue (greedy threshold 1), which still belongs there
 * - every 2 s load is moved from domains above the mean to those below it. Load is weight times the share of time in which
 *   a task is runnable, over the last second. Moved is what is next to half of the smaller of the two differences, if any
 *   makes them smaller, until half of a domain's difference has gone; differences within 5 % are let be.
 * Simpler than there: weight counts on a machine that is not full, too; if nothing can be moved to the least loaded domain,
 * the next one is not tried; an affinity that excludes a task's own domain does not give it another.
 */
#pragma STDC FP_CONTRACT OFF
#define RUSTY_TUNE_NS 100000000ULL
#define RUSTY_BALANCE_NS 2000000000ULL
#define RUSTY_BUSY 0.9
#define RUSTY_UNEQUAL 0.05
#define RUSTY_MOVE 0.5
/* Of what was before, this remains after RUSTY_BALANCE_NS: a half-life of 1 s. */
#define RUSTY_DECAY 0.25
#define RUSTY_TASKS (1 << 16)

struct rusty_task {
	struct task_struct *p; /* none: no such task */
	u32 domain;
	u64 runnable_at_ns; /* 0: it sleeps */
	u64 runnable_ns;    /* before that, since the last balancing */
	u64 noted_at_ns;    /* until then what it ran is in its domains' busy_ns */
	double load;
	bool moved; /* in this balancing */
};

struct rusty_domain {
	u64 busy_ns; /* since the last tuning */
	bool greedy; /* its idle CPUs take tasks of others as they wake */
	double load;
	bool pushed; /* in this balancing */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, u32);
	__type(value, struct rusty_task);
	__uint(max_entries, RUSTY_TASKS);
} rusty_tasks SEC(".maps");

static struct rusty_domain rusty_domains[RL_MAX_DOMAINS];
static u64 rusty_tuned_at_ns, rusty_balanced_at_ns;
static u32 rusty_nr_tasks; /* pids are below this */

static struct rusty_task *rusty_of(struct task_struct *p)
{
	u32 pid = p->pid;

	return bpf_map_lookup_elem(&rusty_tasks, &pid);
}

static bool same_node(u32 a, u32 b)
{
	return distance_between(a, b) < RL_DIST_NUMA;
}

static u32 rusty_wake(struct task_struct *p, u32 home)
{
	u32 i;

	for (i = 0; i + 1 < nr_domains; i++) {
		u32 id = domain_neighbours[home][i];
		struct domain_ctx *dom = lookup_domain(id);

		if (dom && dom->nr_idle && rusty_domains[id].greedy && same_node(home, id) && domain_allowed(dom, p))
			return id;
	}
	return home;
}

static bool rusty_pull(s32 cpu, u32 own)
{
	u32 i;

	for (i = 0; i + 1 < nr_domains; i++) {
		u32 id = domain_neighbours[own][i];

		if (same_node(own, id) && nr_queued(id) && take_first(cpu, id))
			return true;
	}
	return false;
}

static void rusty_tune(u64 now)
{
	u32 id;

	for (id = 0; id < nr_domains; id++) {
		struct rusty_domain *dom = &rusty_domains[id];

		dom->greedy = dom->busy_ns < RUSTY_BUSY * (now - rusty_tuned_at_ns) * nr_cpus_of(id);
		dom->busy_ns = 0;
	}
	rusty_tuned_at_ns = now;
}

/* Bring the tasks' loads, and from them the domains', to the present. */
static void rusty_weigh(u64 now)
{
	u64 passed = now - rusty_balanced_at_ns;
	u32 pid, id;

	for (id = 0; id < nr_domains; id++) {
		rusty_domains[id].load = 0;
		rusty_domains[id].pushed = false;
	}
	for (pid = 1; pid < rusty_nr_tasks; pid++) {
		struct rusty_task *task = bpf_map_lookup_elem(&rusty_tasks, &pid);
		double share;

		if (!task || !task->p)
			continue;
		if (task->runnable_at_ns) {
			task->runnable_ns += now - task->runnable_at_ns;
			task->runnable_at_ns = now;
		}
		share = (double)task->runnable_ns / passed;
		task->runnable_ns = 0;
		task->load = RUSTY_DECAY * task->load + (1 - RUSTY_DECAY) * share * task->p->scx.weight;
		task->moved = false;
		rusty_domains[task->domain].load += task->load;
	}
}

static double distance_of(double a, double b)
{
	return a < b ? b - a : a - b;
}

/* The task of `from` whose load is next to `wanted`, and may run in `to`. */
static struct rusty_task *rusty_candidate(u32 from, u32 to, double wanted)
{
	struct rusty_task *best = NULL;
	u32 pid;

	for (pid = 1; pid < rusty_nr_tasks; pid++) {
		struct rusty_task *task = bpf_map_lookup_elem(&rusty_tasks, &pid);

		if (!task || !task->p || task->domain != from || task->moved || !task->load ||
		    !domain_allowed(lookup_domain(to), task->p))
			continue;
		if (!best || distance_of(task->load, wanted) < distance_of(best->load, wanted))
			best = task;
	}
	return best;
}

/* Move load from a domain above the mean of its node to those below it. */
static void rusty_push(u32 from, double mean)
{
	double most = RUSTY_MOVE * (rusty_domains[from].load - mean), pushed = 0;

	while (pushed < most) {
		double over = rusty_domains[from].load - mean, under, wanted;
		struct rusty_task *task;
		u32 to = from, id;

		for (id = 0; id < nr_domains; id++) {
			if (same_node(from, id) && rusty_domains[id].load < rusty_domains[to].load)
				to = id;
		}
		under = mean - rusty_domains[to].load;
		if (under <= RUSTY_UNEQUAL * mean)
			return;
		wanted = RUSTY_MOVE * (over < under ? over : under);
		task = rusty_candidate(from, to, wanted);
		if (!task || distance_of(over, task->load) + distance_of(under, task->load) > over + under)
			return;
		task->moved = true;
		task->domain = to;
		rusty_domains[from].load -= task->load;
		rusty_domains[to].load += task->load;
		pushed += task->load;
	}
}

static void rusty_balance(u64 now)
{
	u32 turn;

	rusty_weigh(now);
	for (turn = 0; turn < nr_domains; turn++) {
		u32 from = RL_NO_DOMAIN, id, in_node = 0;
		double mean = 0;

		for (id = 0; id < nr_domains; id++) {
			if (!rusty_domains[id].pushed &&
			    (from == RL_NO_DOMAIN || rusty_domains[id].load > rusty_domains[from].load))
				from = id;
		}
		for (id = 0; id < nr_domains; id++) {
			if (same_node(from, id)) {
				mean += rusty_domains[id].load;
				in_node++;
			}
		}
		mean /= in_node;
		if (rusty_domains[from].load > (1 + RUSTY_UNEQUAL) * mean)
			rusty_push(from, mean);
		rusty_domains[from].pushed = true;
	}
	rusty_balanced_at_ns = now;
}

u32 rl_balance_wake(struct task_struct *p, struct task_ctx *tctx, u32 home, u64 wake_flags)
{
	u32 to;

	if (rival != SIM_TWO_CHOICES && rival != SIM_RUSTY)
		return policy_balance_wake(p, tctx, home, wake_flags);
	to = rival == SIM_RUSTY ? rusty_wake(p, home) : two_choices_wake(p, home);
	count(wake_decisions);
	if (to != home)
		count(wake_migrated);
	return to;
}

bool rl_balance_pull(s32 cpu, u32 own, u32 own_load, bool would_idle)
{
	struct cpu_ctx *cctx = lookup_cpu(cpu);
	u32 rescue = cctx ? cctx->rescue : 0;

	if (rival != SIM_TWO_CHOICES && rival != SIM_RUSTY)
		return policy_balance_pull(cpu, own, own_load, would_idle);
	if (!would_idle)
		return false;
	/* the bound on waiting is not a choice */
	if (rescue) {
		cctx->rescue = 0;
		if (take_first(cpu, rescue - 1))
			return true;
	}
	return rival == SIM_RUSTY ? rusty_pull(cpu, own) : two_choices_pull(cpu, own);
}

#endif /* __SCX_RL_SIM_RIVALS_H */
