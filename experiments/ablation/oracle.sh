#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Where costs are mixed between tasks: how much could a policy gain that knows which tasks are dear to move? Nobody can know
# it, so this is no balancer but an oracle: the fixed rule with two sets of numbers, one for cheap tasks, one for dear ones.
# The best of the grid in hindsight flatters it a little; a policy that is no such rule could still do better.
#
#     experiments/ablation/oracle.sh OUT_DIR [SEEDS]        once built; goes on where it was
set -euo pipefail

out=${1:?where results go} seeds=${2:-10}
scx_rl=${SCX_RL:-target/release/scx_rl} jobs=${JOBS:-2} seconds=${SECONDS_EACH:-10}

declare -A cheap=([0]="margin=0,numa=0" [1/4]="margin=0.25,numa=0.25" [1]="margin=1,numa=1" [2]="margin=2,numa=2")
declare -A dear=([1]="margin=1,numa=1" [2]="margin=2,numa=2" [4]="margin=4,numa=4" [7]="margin=7.5,numa=7.5"
	[idle0-2]="margin=2,numa=2,idle=0" [idle1-3]="margin=3,numa=3,idle=1" [never]="margin=7.5,numa=7.5,idle=0")

split=()
for c in "${!cheap[@]}"; do
	for d in "${!dear[@]}"; do split+=(--contender "knows-$c-$d=split:${cheap[$c]}/${dear[$d]}"); done
done
"$scx_rl" ablation run --out-dir "$out" --seeds "$seeds" --seconds "$seconds" --jobs "$jobs" --warm-up 2 \
	--regimes mixed-short-80,mixed-short-95,mixed-long-80,mixed-long-95,mixed-mixed-80,mixed-mixed-95 "${split[@]}"
"$scx_rl" ablation table "$out" > "$out/table.txt"
head -40 "$out/table.txt"
