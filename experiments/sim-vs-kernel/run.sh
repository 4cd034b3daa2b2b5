#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# The same three loads of the locality workload under the same balancers, on a real kernel (a VM) and in the simulator: does
# the simulator tell which balancer is better, how much it moves, and how long tasks wait?
#
#     experiments/sim-vs-kernel/run.sh OUT_DIR [ROUNDS]        once built; about six minutes for each round
#
# Two CPUs, each with a cache of its own: with emulation that is what two cores can really run at the same time. Bursts and
# costs are long (5 ms, and half of that) against what an emulated switch takes.
set -euo pipefail

out=$(realpath -m "${1:?where results go}") rounds=${2:-3}
scx_rl=$(realpath "${SCX_RL:-target/release/scx_rl}") seconds=${SECONDS_EACH:-12}
# shellcheck disable=SC1091
. "$(dirname "$(realpath "$0")")/../vm.sh"
mkdir -p "$out"
balancers=(stay greedy random heuristic)

options() { # SCENARIO
	local all="--workers 12 --burst-us 5000 --load 0.75 --seconds $seconds --seed 1"
	case $1 in
	free) echo "$all --cost-us 0" ;;
	dear) echo "$all --cost-us 2500" ;;
	half) echo "$all --cost-us 2500 --costly 0.5" ;;
	esac
}

if [ "${IN_VM:-}" ]; then
	declare -A how=([stay]="--heuristic --rule margin=7.5,numa=7.5,idle=0" [greedy]="--heuristic --rule margin=0,numa=0"
		[random]=--random [heuristic]=--heuristic)
	speed=$(loop_speed "$scx_rl")
	for ((round = 1; round <= rounds; round++)); do
		for scenario in free dear half; do
			for balancer in "${balancers[@]}"; do
				name=$out/kernel-$scenario-$balancer-$round
				# shellcheck disable=SC2086
				"$scx_rl" ${how[$balancer]} --summary "$name.summary.json" 2> "$name.log" &
				scheduler=$!
				attached "$name.log"
				# shellcheck disable=SC2046
				"$scx_rl" locality $(options $scenario) --iterations-per-us "$speed" --out "$name.json"
				kill -INT $scheduler
				wait $scheduler
				echo "round $round: $scenario, $balancer"
			done
		done
	done
	exit
fi

for scenario in free dear half; do
	for balancer in "${balancers[@]}"; do
		# shellcheck disable=SC2046
		"$scx_rl" locality $(options $scenario) --simulate 2/2 --balancer "$balancer" --out "$out/sim-$scenario-$balancer.json"
	done
done
"$scx_rl" vm --cpus 2 --llcs 2 --rwdir "$out" --timeout $((rounds * 12 * (seconds + 20) + 120)) -- \
	env IN_VM=1 SCX_RL="$scx_rl" SECONDS_EACH="$seconds" bash "$(realpath "$0")" "$out" "$rounds"
python3 "$(dirname "$0")/table.py" "$out" | tee "$out/table.txt"
