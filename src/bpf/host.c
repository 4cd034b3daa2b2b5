/* SPDX-License-Identifier: GPL-2.0-only */
/* The same headers, compiled for the host: what Rust calls for parity tests, replay and inspection. */
#include "policy.h"

const char *rl_host_feature_name(u32 i);
const char *rl_host_feature_doc(u32 i);
const char *rl_host_feature_expr(u32 i);
const char *rl_host_counter_name(u32 i);
const char *rl_host_counter_doc(u32 i);
void rl_host_features(const struct rl_inputs *in, u8 *f);
void rl_host_act(const struct rl_slot *slot, const u8 *f, u32 rnd, struct rl_decision *d);
s64 rl_host_forward(const struct rl_weights *w, const u8 *f);
struct rl_rule rl_host_rule(void);

#define NAME(name, desc, expr) #name,
#define DOC(name, desc, expr) desc,
#define EXPR(name, desc, expr) #expr,
static const char *const names[] = { RL_FEATURE_TABLE(NAME) };
static const char *const docs[] = { RL_FEATURE_TABLE(DOC) };
static const char *const exprs[] = { RL_FEATURE_TABLE(EXPR) };

#define COUNTER(name, desc) #name,
static const char *const counters[] = { RL_COUNTERS(COUNTER) };
#define COUNTER_DOC(name, desc) desc,
static const char *const counter_docs[] = { RL_COUNTERS(COUNTER_DOC) };

const char *rl_host_counter_name(u32 i)
{
	return i < RL_NR_COUNTERS ? counters[i] : "";
}

const char *rl_host_counter_doc(u32 i)
{
	return i < RL_NR_COUNTERS ? counter_docs[i] : "";
}

const char *rl_host_feature_name(u32 i)
{
	return i < RL_FEATURES ? names[i] : "";
}

const char *rl_host_feature_doc(u32 i)
{
	return i < RL_FEATURES ? docs[i] : "";
}

const char *rl_host_feature_expr(u32 i)
{
	return i < RL_FEATURES ? exprs[i] : "";
}

void rl_host_features(const struct rl_inputs *in, u8 *f)
{
	rl_features(in, f);
}

void rl_host_act(const struct rl_slot *slot, const u8 *f, u32 rnd, struct rl_decision *d)
{
	rl_act(slot, f, rnd, d);
}

s64 rl_host_forward(const struct rl_weights *w, const u8 *f)
{
	return rl_forward(w, f);
}

struct rl_rule rl_host_rule(void)
{
	return RL_RULE_DEFAULT;
}
