#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Balancers where moves have a price, on a real kernel (a VM): three regimes of the locality workload, in which a move between
# caches costs nothing, as much as a burst, or that for every second worker. The policy learns under all three in turns (other
# arrivals, the same kinds); then it is compared with fixed balancers, as it is (frozen) and learning on. It is not told under
# which regime it runs.
#
#     experiments/locality/run.sh OUT_DIR [ROUNDS]        once built; about 5 minutes for learning and 5 for each round
#
# PRETRAINED=FILE compares that checkpoint, frozen, too: `scx_rl ablation train` makes one in the simulator.
#
# Two CPUs, each with a cache of its own: with emulation that is what two cores can really run at the same time.
set -euo pipefail

out=$(realpath -m "${1:?where results go}") rounds=${2:-5} turns=${LEARN_TURNS:-5}
scx_rl=$(realpath "${SCX_RL:-target/release/scx_rl}")
# shellcheck disable=SC1091
. "$(dirname "$(realpath "$0")")/../vm.sh"
mkdir -p "$out"

if [ -z "${IN_VM:-}" ]; then
	exec "$scx_rl" vm --cpus 2 --llcs 2 --rwdir "$out" --timeout $((turns * 60 + rounds * 600 + 300)) -- \
		env IN_VM=1 SCX_RL="$scx_rl" PRETRAINED="${PRETRAINED:-}" LEARN_TURNS="$turns" bash "$(realpath "$0")" "$out" "$rounds"
fi

"$scx_rl" --learn --no-guard --checkpoint-dir "$out" --summary "$out/learn.json" --stats 10 > "$out/learn.log" 2>&1 &
learner=$!
attached "$out/learn.log"
speed=$(loop_speed "$scx_rl")
for ((turn = 1; turn <= turns; turn++)); do
	for costly in 0 1 0.5; do
		"$scx_rl" locality --workers 12 --burst-us 2000 --load 0.65 --cost-us 2000 --costly $costly --seconds 12 \
			--seed $((100 + turn)) --iterations-per-us "$speed" --out "$out/learn-$costly-$turn.json"
	done
	echo "learned, turn $turn of $turns"
done
kill -INT $learner
wait $learner

# What was trained in the simulator, which knows nothing of this machine.
others=()
[ -z "${PRETRAINED:-}" ] || others=(--scheduler "pretrained=$scx_rl --frozen $PRETRAINED")
"$scx_rl" suite --out-dir "$out" --rounds "$rounds" --no-tracer --schedulers eevdf,heuristic --baseline heuristic \
	--workloads locality-free,locality-dear,locality-half \
	--scheduler "stay=$scx_rl --heuristic --rule margin=7.5,numa=7.5,idle=0" \
	--scheduler "greedy=$scx_rl --heuristic --rule margin=0,numa=0" \
	--scheduler "hold=$scx_rl --heuristic --rule margin=0,hot-ms=5,hot-margin=2,idle=0" \
	--scheduler "frozen=$scx_rl --frozen $out/latest.safetensors" \
	--scheduler "learning=$scx_rl --learn --no-guard --checkpoint-dir /tmp/learning --resume $out/latest.safetensors" "${others[@]}"
