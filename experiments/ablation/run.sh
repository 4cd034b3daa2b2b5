#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Fixed and learned balancers under 36 regimes, in the simulator.
#
# A learned policy is judged under a combination of a cost and a burst that it was not trained under: for each, one is trained
# under all others (and other seeds), and measured there as it is (`frozen`), taking the better action always
# (`frozen-greedy`), and learning on (`learned`). `novice` learns, too, but begins with an imitation of the fixed rule. They
# have WARM_UP seconds before they are measured; the fixed ones, which have nothing to find out, 2.
#
# Training goes round the regimes in short turns, with small steps: long turns make a policy for the last one.
#
#     experiments/ablation/run.sh OUT_DIR [SEEDS]        once built; about 40 minutes on two CPUs; goes on where it was, so
# OUT_DIR must not be of another version
set -euo pipefail

out=${1:?where results go} seeds=${2:-10}
scx_rl=${SCX_RL:-target/release/scx_rl} jobs=${JOBS:-2} seconds=${SECONDS_EACH:-10} warm_up=${WARM_UP:-40}
mkdir -p "$out"

groups=()
for cost in none middle high mixed; do
	for burst in short long mixed; do groups+=("$cost-$burst"); done
done

export out scx_rl all="${groups[*]}"
train() { # GROUP: under all others
	local others=() other
	for other in $all; do [ "$other" = "$1" ] || others+=("$other-80" "$other-95"); done
	[ -s "$out/$1.safetensors" ] ||
		"$scx_rl" ablation train --out "$out/$1.safetensors" --imitate --rounds "${ROUNDS:-20}" --seconds 1 \
			--regimes "$(IFS=,; echo "${others[*]}")" --hyper "${TRAIN_HYPER:-{\"actor_learning_rate\":0.001\}}" 2> "$out/$1.log"
}
export -f train

printf '%s\n' "${groups[@]}" | xargs -P "$jobs" -I {} bash -c 'train {}'

run() { "$scx_rl" ablation run --out-dir "$out" --seeds "$seeds" --seconds "$seconds" --jobs "$jobs" "$@"; }
run --warm-up 2
run --warm-up "$warm_up" --no-fixed --contender novice=learn:rule --hyper "${HYPER:-{\}}"
for group in "${groups[@]}"; do
	file=$out/$group.safetensors
	run --warm-up "$warm_up" --no-fixed --regimes "$group" --contender "frozen=frozen:$file" \
		--contender "frozen-greedy=greedy:$file" --contender "learned=learn:$file"
done
"$scx_rl" ablation table "$out" > "$out/table.txt"
"$scx_rl" ablation table "$out" --json > "$out/table.json"
