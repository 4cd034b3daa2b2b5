#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# The base scheduler without one of its mechanisms at a time, beside EEVDF, in one boot of a VM.
#
#     experiments/core/run.sh OUT_DIR [ROUNDS]        once built, with schbench on PATH; about 5 minutes for each round
set -euo pipefail

out=$(realpath -m "${1:?where results go}") rounds=${2:-5}
scx_rl=$(realpath "${SCX_RL:-target/release/scx_rl}")
mkdir -p "$out"

schedulers=()
for mechanism in preempt sync yield depth request credit queued; do
	schedulers+=(--scheduler "no-$mechanism=$scx_rl --heuristic --without $mechanism")
done
"$scx_rl" vm --cpus 4 --llcs 2 --memory 4G --rwdir "$out" --timeout $((rounds * 900 + 600)) -- env PATH="$PATH" \
	"$scx_rl" suite --out-dir "$out" --rounds "$rounds" --baseline heuristic --schedulers eevdf,heuristic "${schedulers[@]}" \
	--workloads compile,hackbench-thread,stress-switch,sysbench-threads,cyclictest,schbench,schbench-hogs
