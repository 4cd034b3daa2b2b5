#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# The same three loads of the locality workload under the same balancers, on a real kernel (a VM) and in the simulator: does
# the simulator tell which balancer is better, how much it moves, and how long tasks wait?
#
#     experiments/sim-vs-kernel/run.sh OUT_DIR [ROUNDS]        once built, with perf on PATH; about six minutes for each round
#
# The simulator runs twice: with its own costs, which are those of a server, and with costs measured in the VM (measure.py
# makes them out of what is measured at the start). In each round the kernel gets other arrivals; the simulator has twenty
# seeds.
#
# Two CPUs, each with a cache of its own: with emulation that is what two cores can really run at the same time. Bursts and
# costs are long (5 ms, and half of that) against what an emulated switch takes.
set -euo pipefail

out=$(realpath -m "${1:?where results go}") rounds=${2:-3} seeds=20
scx_rl=$(realpath "${SCX_RL:-target/release/scx_rl}") seconds=${SECONDS_EACH:-12}
here=$(dirname "$(realpath "$0")")
# shellcheck disable=SC1091
. "$here/../vm.sh"
mkdir -p "$out"
balancers=(stay greedy random heuristic) nominal_us=5000
command -v perf > /dev/null || { echo "perf is missing: apt install linux-perf" >&2; exit 1; }

# Bursts of another length arrive as often: they are the same work, on a machine that takes longer for it.
options() { # SCENARIO BURST_US
	local load all
	load=$(awk "BEGIN { print 0.75 * $2 / $nominal_us }")
	all="--workers 12 --burst-us $2 --load $load --seconds $seconds"
	case $1 in
	free) echo "$all --cost-us 0" ;;
	dear) echo "$all --cost-us $(($2 / 2))" ;;
	half) echo "$all --cost-us $(($2 / 2)) --costly 0.5" ;;
	esac
}

if [ "${IN_VM:-}" ]; then
	declare -A how=([stay]="--heuristic --rule margin=7.5,numa=7.5,idle=0" [greedy]="--heuristic --rule margin=0,numa=0"
		[random]=--random [heuristic]=--heuristic)
	speed=$(loop_speed "$scx_rl")
	under() { # NAME BALANCER COMMAND...: run it under that balancer
		local name=$1 balancer=$2 scheduler
		shift 2
		# shellcheck disable=SC2086
		"$scx_rl" ${how[$balancer]} --summary "$name.summary.json" 2> "$name.log" &
		scheduler=$!
		attached "$name.log"
		"$@"
		kill -INT $scheduler
		wait $scheduler
	}
	# What the machine costs: a pair that wakes each other on one CPU; how long a task waits for a CPU that sleeps; and how
	# much work all CPUs do when each has always some.
	under "$out/cost-pair" heuristic taskset -c 0 perf bench -f simple sched pipe -l 20000 > "$out/cost-pair.txt"
	under "$out/cost-idle" heuristic "$scx_rl" locality --workers 2 --burst-us 200 --load 0.02 --cost-us 0 --seconds 10 \
		--iterations-per-us "$speed" --out "$out/cost-idle.json"
	under "$out/cost-full" stay "$scx_rl" locality --workers 12 --burst-us $nominal_us --load 3 --cost-us 0 --seconds 10 \
		--iterations-per-us "$speed" --out "$out/cost-full.json"
	echo "costs measured"
	for ((round = 1; round <= rounds; round++)); do
		for scenario in free dear half; do
			for balancer in "${balancers[@]}"; do
				name=$out/kernel-$scenario-$balancer-$round
				# shellcheck disable=SC2046
				under "$name" "$balancer" "$scx_rl" locality $(options $scenario $nominal_us) --seed "$round" \
					--iterations-per-us "$speed" --out "$name.json"
				echo "round $round: $scenario, $balancer"
			done
		done
	done
	exit
fi

"$scx_rl" vm --cpus 2 --llcs 2 --rwdir "$out" --timeout $((rounds * 12 * (seconds + 20) + 240)) -- \
	env IN_VM=1 SCX_RL="$scx_rl" SECONDS_EACH="$seconds" bash "$(realpath "$0")" "$out" "$rounds"
simulate() { # NAME BURST_US OPTIONS...
	local name=$1 burst_us=$2
	shift 2
	for scenario in free dear half; do
		for balancer in "${balancers[@]}"; do
			for ((seed = 1; seed <= seeds; seed++)); do
				# shellcheck disable=SC2046
				"$scx_rl" locality $(options $scenario "$burst_us") --simulate 2/2 --balancer "$balancer" --seed "$seed" "$@" \
					--out "$out/$name-$scenario-$balancer-$seed.json"
			done
		done
	done
}
read -r burst_there_us costs < <(python3 "$here/measure.py" "$out" $nominal_us)
simulate sim $nominal_us
simulate sim-there "$burst_there_us" --costs "$costs"
{
	echo "costs measured: bursts of $burst_there_us us, $costs"
	python3 "$here/table.py" "$out"
} | tee "$out/table.txt"
