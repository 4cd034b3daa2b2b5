#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# What exploration costs where nothing changes, and what it is worth where something does: the probability floor, and the
# bonus for entropy in the long run.
#
#     experiments/hyper/explore.sh OUT_DIR [SEEDS]        once built; goes on where it was
set -euo pipefail

out=${1:?where results go} seeds=${2:-3}
scx_rl=${SCX_RL:-target/release/scx_rl} seconds=${SECONDS_EACH:-6} warm_up=${WARM_UP:-6} jobs=${JOBS:-2}
regimes=none-short-95,middle-mixed-80,high-long-95,high-short-80,mixed-short-95,mixed-mixed-80
mkdir -p "$out"

options() { # FLOOR ENTROPY
	options=(--seeds "$seeds" --explore-floor "$1" --hyper "{\"entropy_start\":$2,\"entropy_end\":$2}")
}

adapt() { # NAME: and after a change of regime?
	[ -s "$out/$1.txt" ] || "$scx_rl" ablation adapt "${options[@]}" --seconds 5 --windows 10 --warm-up 5 \
		--before none-short-95 --regime high-short-95 > "$out/$1.new"
	[ -s "$out/$1.txt" ] || mv "$out/$1.new" "$out/$1.txt"
	echo "$1: $(tail -n 1 "$out/$1.txt")"
}

running=0
for entropy in 0.001 0.01 0.03 0.1; do
	for floor in 0.001 0.005 0.02; do
		name=floor-$floor-entropy-$entropy
		options $floor $entropy
		"$scx_rl" ablation run "${options[@]}" --out-dir "$out" --seconds "$seconds" --warm-up "$warm_up" --jobs "$jobs" \
			--no-fixed --regimes "$regimes" --contender "$name=learn:rule"
		echo "$name"
	done
done
for entropy in 0.001 0.01 0.03 0.1; do
	for floor in 0.001 0.005 0.02; do
		options $floor $entropy
		adapt floor-$floor-entropy-$entropy &
		if ((++running >= jobs)); then
			wait -n
			((running -= 1))
		fi
	done
done
wait
"$scx_rl" ablation table "$out" --against floor-0.001-entropy-0.001 > "$out/table.txt"
sed -n 1,25p "$out/table.txt"
