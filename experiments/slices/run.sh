#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Slices that the policy chooses, on a kernel (a VM): schbench alone and beside CPU hogs. The policy learns under both in
# turns, is frozen, and is then compared with fixed slices, and with the fixed rule, which has short ones for hogs. It is not
# told under which load it runs. With SEEDS="1 2 3" it learns three times from the beginning, and all three are compared.
#
#     experiments/slices/run.sh OUT_DIR [ROUNDS]        once built, with schbench on PATH; about 20 minutes for 5 rounds
set -euo pipefail

out=$(realpath -m "${1:?where results go}") rounds=${2:-5} turns=${LEARN_TURNS:-6}
read -ra seeds <<< "${SEEDS:-1}"
scx_rl=$(realpath "${SCX_RL:-target/release/scx_rl}")
# shellcheck disable=SC1091
. "$(dirname "$(realpath "$0")")/../vm.sh"
mkdir -p "$out"

if [ -z "${IN_VM:-}" ]; then
	exec "$scx_rl" vm --cpus 4 --llcs 2 --memory 4G --rwdir "$out" --timeout $((${#seeds[@]} * (turns * 60 + rounds * 400) + 300)) -- \
		env IN_VM=1 SCX_RL="$scx_rl" PATH="$PATH" LEARN_TURNS="$turns" SEEDS="${seeds[*]}" bash "$(realpath "$0")" "$out" "$rounds"
fi

schedulers=(--scheduler "rule=$scx_rl --heuristic")
for seed in "${seeds[@]}"; do
	folder=$out/seed-$seed
	mkdir -p "$folder"
	"$scx_rl" --learn --slices --no-guard --seed "$seed" --checkpoint-dir "$folder" --summary "$folder/learn.json" --stats 10 \
		> "$folder/learn.log" 2>&1 &
	learner=$!
	attached "$folder/learn.log"
	for ((turn = 0; turn < turns; turn++)); do
		schbench -m 2 -t 4 -n 1 -r 15 > /dev/null 2>&1
		stress-ng --cpu 4 --cpu-method int64 --timeout 18 --temp-path /tmp > /dev/null 2>&1 &
		hogs=$!
		schbench -m 2 -t 2 -n 1 -r 15 > /dev/null 2>&1
		wait $hogs
		echo "seed $seed learned, turn $((turn + 1)) of $turns"
	done
	kill -INT $learner
	wait $learner
	file=$folder/latest.safetensors
	schedulers+=(--scheduler "frozen-$seed=$scx_rl --frozen $file" --scheduler "learned-$seed=$scx_rl --frozen $file --slices"
		--scheduler "only-slices-$seed=$scx_rl --frozen $file --slices --only-slices")
done
for ms in 4 8 20; do
	schedulers+=(--scheduler "fixed-$ms=$scx_rl --heuristic --without depth --slice-us ${ms}000")
done
"$scx_rl" suite --out-dir "$out" --rounds "$rounds" --schedulers eevdf --workloads schbench,schbench-hogs "${schedulers[@]}"
