#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Does the reward rise while it learns? Three runs from random weights, seeds 1 to 3, one after the other in one boot, each
# under the demo's kind of workload. Prints, per seed, the mean reward of the first and of the last quarter of updates.
#
#   target/release/scx_rl vm --cpus 4 --llcs 2 --rwdir target/seeds -- experiments/three-seeds.sh target/seeds [SECONDS]
set -euo pipefail

out=$1 seconds=${2:-60}
scx_rl=$(dirname "$0")/../target/release/scx_rl
stress-ng --cpu 3 --cpu-method int64 --pipe 2 --temp-path /tmp --timeout 3600 >/dev/null 2>&1 &
stress=$!
while :; do hackbench -g 2 -l 50 -p -f 5 >/dev/null; done &
hackbench=$!
trap 'kill $stress $hackbench' EXIT

for seed in 1 2 3; do
	"$scx_rl" --learn --from-scratch --no-guard --seed "$seed" --duration "$seconds" --stats 0 \
		--checkpoint-dir "$out/seed-$seed" \
		--summary "$out/seed-$seed.json" 2>"$out/seed-$seed.log"
	grep -E '"(reward_(first|last)_quarter_ms|generations_published|events|events_dropped)"' "$out/seed-$seed.json" |
		tr -d '\n,' | sed "s/^/seed $seed:/"
	echo
done
