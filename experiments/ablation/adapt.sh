#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# How many decisions a learner needs: from nothing, from an imitation of the fixed rule, and after a change of regime between
# those that want the opposite.
#
#     experiments/ablation/adapt.sh OUT_DIR [SEEDS]        once built
set -euo pipefail

out=${1:?where results go} seeds=${2:-10}
scx_rl=${SCX_RL:-target/release/scx_rl} seconds=${SECONDS_EACH:-30}
mkdir -p "$out"

adapt() { # NAME OPTION...
	local name=$1
	shift
	[ -s "$out/$name.txt" ] || "$scx_rl" ablation adapt --seeds "$seeds" --seconds "$seconds" --windows 30 "$@" > "$out/$name.new"
	[ -s "$out/$name.txt" ] || mv "$out/$name.new" "$out/$name.txt"
	tail -n 1 "$out/$name.txt" | sed "s/^/$name: /"
}

for regime in none-short-95 high-short-95; do
	adapt "nothing-to-$regime" --start learn --regime "$regime"
	adapt "rule-to-$regime" --start learn:rule --regime "$regime"
done
adapt cheap-to-dear --warm-up 20 --before none-short-95 --regime high-short-95
adapt dear-to-cheap --warm-up 20 --before high-short-95 --regime none-short-95
