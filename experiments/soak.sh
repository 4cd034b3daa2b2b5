#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# A long learning run in a VM, watched: does memory stay flat, is nothing dropped, does every checkpoint load?
#
#     experiments/soak.sh OUT_DIR [SECONDS]        once built; an hour without SECONDS
#
# A mixed load that changes every 97 s; Prometheus scraped every second, the dashboard's other form (lines) attached and
# detached every 20 s, a checkpoint every minute. At the end: the mean resident memory of the last quarter against that of the
# second (at most 5 % more), drops (none), the kernel's log (no complaint), and `checkpoint verify` on all that were written.
set -euo pipefail

out=$(realpath -m "${1:?where results go}") seconds=${2:-3600}
scx_rl=$(realpath "${SCX_RL:-target/release/scx_rl}")
# shellcheck disable=SC1091
. "$(dirname "$(realpath "$0")")/vm.sh"
mkdir -p "$out"

if [ -z "${IN_VM:-}" ]; then
	exec "$scx_rl" vm --cpus 4 --llcs 2 --memory 4G --rwdir "$out" --timeout $((seconds + 300)) -- \
		env IN_VM=1 SCX_RL="$scx_rl" bash "$(realpath "$0")" "$out" "$seconds"
fi

scrape() {
	{ exec 3<>/dev/tcp/127.0.0.1/9764; } 2>/dev/null || return 1
	printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
	timeout 5 cat <&3
	exec 3>&-
}

value() { awk -v name="$1" '$1 == name { print $2 }' "$out/metrics.txt"; }

"$scx_rl" --learn --seed 5 --prometheus --checkpoint-dir "$out/checkpoints" --checkpoint-every 60 \
	--checkpoint-keep 1000 --summary "$out/learn.json" > "$out/learn.log" 2>&1 &
learner=$!
attached "$out/learn.log"

loads=("--cpu 3 --pipe 2 --switch 2" "--switch 4 --fork 1" "--cpu 8 --cpu-method int64" "--pipe 4 --futex 2 --cpu 1")
begin=$SECONDS n=0 load="" monitor="" scrapes=0
echo "second resident_bytes updates dropped" > "$out/soak.txt"
while ((SECONDS - begin < seconds)); do
	if [ -z "$load" ] || ! kill -0 "$load" 2> /dev/null; then
		# shellcheck disable=SC2086
		stress-ng ${loads[n++ % ${#loads[@]}]} --timeout 97 --temp-path /tmp > /dev/null 2>&1 &
		load=$!
	fi
	if [ -z "$monitor" ] || ! kill -0 "$monitor" 2> /dev/null; then
		timeout 20 "$scx_rl" --monitor 1 > "$out/monitor.log" 2>&1 &
		monitor=$!
	fi
	if scrape > "$out/metrics.txt" && [ -n "$(value scx_rl_resident_bytes)" ]; then
		scrapes=$((scrapes + 1))
		echo "$((SECONDS - begin)) $(value scx_rl_resident_bytes) $(value scx_rl_updates) $(value scx_rl_events_dropped_total)" \
			>> "$out/soak.txt"
	fi
	if ! kill -0 $learner 2> /dev/null; then
		echo "the learner ended by itself:" >&2
		tail "$out/learn.log" >&2
		exit 1
	fi
	sleep 1
done
kill -INT $learner
wait $learner
kill "$load" "$monitor" 2> /dev/null || true

failed=0
judge() {
	echo "$1: $2"
	[ "$3" = 1 ] || failed=1
}
quarters=$(awk -v all="$seconds" 'NR > 1 { q = int(4 * $1 / all); sum[q] += $2; n[q]++ }
	END { printf "%.0f %.0f %.4f\n", sum[1] / n[1], sum[3] / n[3], (sum[3] / n[3]) / (sum[1] / n[1]) }' "$out/soak.txt")
judge "resident bytes, second and last quarter, ratio" "$quarters" "$(echo "$quarters" | awk '{ print ($3 <= 1.05) }')"
dropped=$(tail -1 "$out/soak.txt" | awk '{ print $4 }')
judge "events dropped" "$dropped" "$((dropped == 0))"
judge "scrapes in $seconds s" "$scrapes" "$((scrapes * 2 > seconds))"
"$scx_rl" checkpoint verify "$out"/checkpoints/*.safetensors > "$out/verify.txt" && whole=1 || whole=0
judge "checkpoints that load" "$(grep -c '^ok' "$out/verify.txt") of $(wc -l < "$out/verify.txt")" "$whole"
complaints=$(dmesg | grep -cE 'BUG:|WARNING:|Oops|stall|RIP:' || true)
judge "complaints in the kernel's log" "$complaints" "$((complaints == 0))"
exit $failed
