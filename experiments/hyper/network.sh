#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# What the network is worth: a linear one, the one that is shipped, and one with a linear part beside fewer neurons. All begin
# with random numbers and learn under the regime in which they are then measured, learning on.
#
#     experiments/hyper/network.sh OUT_DIR [SEEDS]        once built; goes on where it was
set -euo pipefail

out=${1:?where results go} seeds=${2:-5}
scx_rl=${SCX_RL:-target/release/scx_rl} jobs=${JOBS:-2} seconds=${SECONDS_EACH:-5} warm_up=${WARM_UP:-15}
regimes=none-short-95,middle-mixed-80,high-long-95,high-short-80,mixed-short-95,mixed-mixed-80
mkdir -p "$out"

for form in mlp linear residual; do
	"$scx_rl" ablation run --out-dir "$out" --seeds "$seeds" --seconds "$seconds" --warm-up "$warm_up" --jobs "$jobs" \
		--no-fixed --regimes "$regimes" --contender "$form=learn" --hyper "{\"network\":\"$form\"}"
	echo "$form done"
done
"$scx_rl" ablation table "$out" --against mlp > "$out/table.txt"
cat "$out/table.txt"
