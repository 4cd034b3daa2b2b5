# SPDX-License-Identifier: GPL-2.0-only
# Shares of CPU time, from /proc/PID/schedstat, and waits, from cyclictest's histogram, of tasks that compete.
. "${0%/*}/lib.sh"

LIGHT_MS=${LIGHT_MS:-20}    # a light task under four hogs per CPU waits at most that long, at p99.9
OVERCOMMIT_MS=${OVERCOMMIT_MS:-200} # and nothing waits longer than that, there

# Sets $hog to a process that never sleeps. Arguments: a command that it is run by, such as taskset -c 1.
hog() {
	"$@" bash -c 'while :; do :; done' &
	hog=$!
	gusts="$gusts $hog"
}
used() { cut -d' ' -f1 "/proc/$1/schedstat"; }
# used_by NAME PID...: note what they have used, in $W/NAME
note() {
	file=$W/$1
	shift
	for one in "$@"; do used "$one"; done >"$file"
}
# CPU time of each process between two notes, ms, in one line
between() { paste "$W/$1" "$W/$2" | awk '{ printf "%d ", ($2 - $1) / 1e6 }'; }
# p99.9 in us, over all threads of cyclictest's histogram, and the worst, in one line
histogram() {
	awk '
		/^# Max Latencies/ { for (i = 4; i <= NF; i++) if ($i + 0 > max) max = $i + 0 }
		/^[0-9]/ { for (i = 2; i <= NF; i++) { n[NR] += $i; total += $i }; us[NR] = $1 + 0 }
		/^# Histogram Overflows/ { for (i = 4; i <= NF; i++) total += $i }
		END {
			for (line = 1; line <= NR; line++) {
				seen += n[line]
				if (n[line] && seen >= total * 0.999) break
			}
			print (line <= NR ? us[line] : max), max, total
		}' "$1"
}

[ -n "$EEVDF" ] || start scheduler --heuristic

# share NAME LOW HIGH SAID NICE: two hogs on CPU 1, one of nice 0 and one of nice NICE
share() {
	hog taskset -c 1
	first=$hog
	hog taskset -c 1 nice -n "$5"
	second=$hog
	sleep 1
	note before "$first" "$second"
	sleep "$SECS"
	note after "$first" "$second"
	calm
	# shellcheck disable=SC2046
	figures=$(between before after | awk '{ printf "%d and %d ms, ratio %.4f", $1, $2, $1 / $2 }')
	verdict "$1" "nice 0 against nice $5 on one CPU: $figures ($4)" holds "${figures##* } >= $2 && ${figures##* } <= $3"
}
share equal-share 0.9804 1.02 'bound 2 %' 0
share weighted-share 2.911 3.210 '1024:335 = 3.057, bound 5 %' 5

# A hog against a chain of short-lived processes, each of which is new.
hog taskset -c 1
first=$hog
taskset -c 1 bash -c 'while :; do bash -c "for ((i = 0; i < 2000; i++)); do :; done"; done' &
gusts="$gusts $!"
sleep 1
note before "$first"
sleep "$SECS"
note after "$first"
calm
share=$(between before after | awk -v ms="${SECS}000" '{ printf "%.3f", $1 / ms }')
verdict chain-share "a hog beside a chain of short-lived processes on one CPU: $share of it (bound 0.35 to 0.65)" \
	holds "$share >= 0.35 && $share <= 0.65"

# One hog that must stay on CPU 1, and two for each CPU that may go anywhere.
hog taskset -c 1
pinned=$hog
free=
for _ in $(seq $((2 * CPUS))); do
	hog
	free="$free $hog"
done
sleep 1
# shellcheck disable=SC2086
note before "$pinned" $free
sleep "$SECS"
# shellcheck disable=SC2086
note after "$pinned" $free
shares=$(between before after)
ratio=$(echo "$shares" | awk '{ for (i = 2; i <= NF; i++) sum += $i; printf "%.3f", $1 / (sum / (NF - 1)) }')
verdict pinned-share "a pinned hog among $((2 * CPUS)) free ones: $shares ms, $ratio of their mean (bound 0.5 to 2)" \
	holds "$ratio >= 0.5 && $ratio <= 2"
calm

# Four hogs per CPU, and four light tasks that wake every 5 ms.
# khugepaged, of nice 19, would wait for seconds with the lock of cyclictest's memory held
echo never >/sys/kernel/mm/transparent_hugepage/enabled
tracer_start
sleep 4
# first: starting is not light, and what it costs is paid back later
cyclictest --latency 1000000 --policy other -t 4 -i 5000 -h 100000 -q >"$W/light.txt" 2>&1 &
light=$!
sleep 1
for _ in $(seq $((4 * CPUS))); do hog; done
sleep $((SECS + SECS / 2))
# first, so that the waits are of the loaded time
kill -INT "$light" "$tracer"
calm
wait "$light" "$tracer"
# shellcheck disable=SC2046
set -- $(histogram "$W/light.txt")
verdict light-wait "4 light tasks under 4 hogs per CPU: p99.9 $(ms "$1") (bound $LIGHT_MS ms), worst $(ms "$2"), of $3 wakeups" \
	holds "$3 > 1000 && $1 <= $LIGHT_MS * 1000"
any_task "$OVERCOMMIT_MS" "$ANY_NICED_MS"

check still-attached attached
ended
echo "done"
