#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# The simulator itself: events per second on one CPU, memory, and whether the same seed gives the same events, at 4 to 1,024
# CPUs. Two machines with the same commit must print the same hashes.
#
#     experiments/sim/run.sh        once built, on a machine without other load; about two minutes
set -euo pipefail

scx_rl=${SCX_RL:-target/release/scx_rl}
field() { sed -n "s/^  \"$1\": \"\?\([^\",]*\).*/\1/p" <<< "$2"; }

printf '%6s %5s %6s %12s %12s %8s  %s\n' CPUs LLCs nodes events events/s MiB hash
while read -r cpus llcs nodes seconds; do
	once() { "$scx_rl" sim --cpus "$cpus" --llcs "$llcs" --nodes "$nodes" --seconds "$seconds" --seed 1; }
	first=$(once)
	second=$(once)
	if [ "$(field hash "$first")" != "$(field hash "$second")" ]; then
		echo "two runs with $cpus CPUs differ: $(field hash "$first") and $(field hash "$second")" >&2
		exit 1
	fi
	printf '%6d %5d %6d %12d %12.0f %8.1f  %s\n' "$cpus" "$llcs" "$nodes" "$(field events "$second")" \
		"$(field events_per_s "$second")" "$(field resident_mib "$second")" "$(field hash "$second")"
done << 'END'
4 2 1 100
64 8 2 8
256 16 4 2
1024 64 8 0.5
END
