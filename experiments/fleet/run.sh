#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Three machines record what they decided, put it in one place, and one policy is learned from all of it, offline. Is it as
# good on each as the one that was learned there?
#
#     experiments/fleet/run.sh OUT_DIR [PLACE]        once built, with DuckDB for Python; a few seconds
#
# The machines are simulated, so that it runs anywhere: of different sizes, with moves that cost nothing, something, and much.
# On real ones `scx_rl --learn --record run.rec` makes the recordings. PLACE is a folder or an object store, such as
# s3://BUCKET/PREFIX with AWS_... in the environment; by default a folder in OUT_DIR.
set -euo pipefail

out=$(realpath -m "${1:?where results go}") place=${2:-$out/place}
scx_rl=$(realpath "${SCX_RL:-target/release/scx_rl}") seconds=${SECONDS_EACH:-30}
here=$(dirname "$(realpath "$0")")
mkdir -p "$out"
cd "$out"

declare -A machine=(
	[free]='--cpus 8 --llcs 2 --load 0.85 --costs {"llc_refill_ns":0,"memory_ns":0}'
	[small]='--cpus 4 --llcs 2 --load 0.8'
	[large]='--cpus 32 --llcs 4 --load 0.85 --costs {"llc_refill_ns":100000}'
)
names=(free small large)

record() { # NAME SEED FILE
	# shellcheck disable=SC2086 # options
	"$scx_rl" sim ${machine[$1]} --seconds "$seconds" --seed "$2" --balancer random --record "$3" > /dev/null
}

echo "== machines record; the second recording is for judging only"
for name in "${names[@]}"; do
	record "$name" 1 "$name.rec"
	record "$name" 2 "$name-later.rec"
	"$scx_rl" fleet push "$name.rec" --to "$place" --machine "$name"
done

echo "== an engine mixes: as many events of each machine, in random order"
python3 "$here/mix.py" "$place" mixed.parquet

echo "== learning: of each machine's events, of all in the order of names, and of the mixture"
for name in "${names[@]}"; do
	"$scx_rl" fleet learn "$place/events/machine=$name" --checkpoint "$name.safetensors"
done
"$scx_rl" fleet learn "$place/events" --checkpoint in-order.safetensors
"$scx_rl" fleet learn mixed.parquet --checkpoint mixed.safetensors

echo "== what each would have earned on each machine's later decisions"
policies=()
for name in "${names[@]}" in-order mixed; do
	policies+=(--policy "$name.safetensors")
done
for name in "${names[@]}"; do
	"$scx_rl" ope "$name-later.rec" --against heuristic "${policies[@]}" > "$name.txt"
	sed -n "/^| minus heuristic/,/^$/{s/^/$name  /p}" "$name.txt"
done | tee table.txt
