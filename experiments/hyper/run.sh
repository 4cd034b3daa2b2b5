#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# What each hyper-parameter of the learner is worth: one at a time is changed, up and down, and the learner is measured under
# six regimes that want different things. Ratios are to the learner with the defaults.
#
#     experiments/hyper/run.sh OUT_DIR [SEEDS]        once built; goes on where it was
set -euo pipefail

out=${1:?where results go} seeds=${2:-5}
scx_rl=${SCX_RL:-target/release/scx_rl} jobs=${JOBS:-2} seconds=${SECONDS_EACH:-8} warm_up=${WARM_UP:-8}
regimes=none-short-95,middle-mixed-80,high-long-95,high-short-80,mixed-short-95,mixed-mixed-80
mkdir -p "$out"

learn() { # NAME JSON
	"$scx_rl" ablation run --out-dir "$out" --seeds "$seeds" --seconds "$seconds" --warm-up "$warm_up" --jobs "$jobs" \
		--no-fixed --regimes "$regimes" --contender "$1=learn:rule" --hyper "$2"
	echo "$1 done"
}

learn default '{}'
learn batch-128 '{"batch_events":128}'
learn batch-2048 '{"batch_events":2048}'
learn epochs-1 '{"epochs":1}'
learn epochs-4 '{"epochs":4}'
learn actor-0.001 '{"actor_learning_rate":0.001}'
learn actor-0.01 '{"actor_learning_rate":0.01}'
learn critic-0.003 '{"critic_learning_rate":0.003}'
learn critic-0.03 '{"critic_learning_rate":0.03}'
learn clip-0.1 '{"clip":0.1}'
learn clip-0.4 '{"clip":0.4}'
learn importance-1 '{"importance_max":1}'
learn importance-16 '{"importance_max":16}'
learn entropy-0 '{"entropy_start":0,"entropy_end":0}'
learn entropy-0.01 '{"entropy_start":0.01,"entropy_end":0.01}'
learn entropy-0.05 '{"entropy_start":0.05,"entropy_end":0.005}'
learn reward-clip-3 '{"reward_clip":3}'
learn reward-clip-30 '{"reward_clip":30}'
"$scx_rl" ablation table "$out" --against default > "$out/table.txt"
sed -n 1,25p "$out/table.txt"
