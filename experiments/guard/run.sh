#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# What learners cost that are broken on purpose, with the guard and without, against the fixed rule, in the simulator.
#
#     experiments/guard/run.sh OUT_DIR [SEEDS]        once built; goes on where it was
set -euo pipefail

out=${1:?where results go} seeds=${2:-5}
scx_rl=${SCX_RL:-target/release/scx_rl} jobs=${JOBS:-2} seconds=${SECONDS_EACH:-300}
regimes=none-short-80,none-mixed-95,middle-short-95,high-short-80,high-long-95,mixed-mixed-95

run() { "$scx_rl" ablation run --no-fixed --seeds "$seeds" --seconds "$seconds" --jobs "$jobs" --regimes "$regimes" "$@"; }
for how in sign rate nan foreign; do wrecks+=(--contender "$how=wreck:$how"); done
for guard in with without; do
	options=()
	[ $guard = without ] || options=(--guard)
	run --out-dir "$out/$guard" --contender rule=rule:margin=1 --contender learning=learn:rule "${wrecks[@]}" "${options[@]}"
	"$scx_rl" ablation table "$out/$guard" --against rule > "$out/$guard.txt"
done
