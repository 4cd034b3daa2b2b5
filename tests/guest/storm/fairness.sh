# SPDX-License-Identifier: GPL-2.0-only
# Shares of CPU time, from /proc/PID/schedstat, and waits, from cyclictest's histogram, of tasks that compete.
. "${0%/*}/lib.sh"

LIGHT_MS=20    # a light task under four hogs per CPU waits at most that long, at p99.9
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

tracer_start
[ -n "$EEVDF" ] || start scheduler --heuristic

# Two equal hogs on CPU 1; on CPU 2, in the other cache, one of nice 0 and one of nice 5.
hog taskset -c 1
a=$hog
hog taskset -c 1
b=$hog
hog taskset -c 2
c=$hog
hog taskset -c 2 nice -n 5
d=$hog
sleep 1
note before "$a" "$b" "$c" "$d"
sleep "$SECS"
note after "$a" "$b" "$c" "$d"
# shellcheck disable=SC2046
set -- $(between before after)
ratio=$(awk "BEGIN { printf \"%.4f\", $1 / $2 }")
verdict equal-share "two nice-0 hogs on one CPU: $1 and $2 ms, ratio $ratio (bound 2 %)" \
	holds "$ratio >= 1 / 1.02 && $ratio <= 1.02"
ratio=$(awk "BEGIN { printf \"%.4f\", $3 / $4 }")
verdict weighted-share "nice 0 against nice 5: $3 and $4 ms, ratio $ratio (1024:335 = 3.057, bound 5 %)" \
	holds "$ratio >= 3.0567 / 1.05 && $ratio <= 3.0567 * 1.05"
calm

# One hog that must stay on CPU 1, eight that may go anywhere: 9 hogs on 4 CPUs, 44 % of one each.
hog taskset -c 1
pinned=$hog
free=
for _ in 1 2 3 4 5 6 7 8; do
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
verdict pinned-share "a pinned hog among eight free ones: $shares ms, $ratio of their mean (bound 0.5 to 2)" \
	holds "$ratio >= 0.5 && $ratio <= 2"
calm

# Four hogs per CPU, and four light tasks that wake every 5 ms.
for _ in $(seq $((4 * CPUS))); do hog; done
kill -INT "$tracer" && wait "$tracer"
tracer_start
sleep 2
cyclictest --latency 1000000 --policy other -t 4 -i 5000 -h 200000 -q -D $((SECS + SECS / 2)) >"$W/light.txt" 2>&1
# shellcheck disable=SC2046
set -- $(histogram "$W/light.txt")
verdict light-wait "4 light tasks under 4 hogs per CPU: p99.9 $(ms "$1") (bound $LIGHT_MS ms), worst $(ms "$2"), of $3 wakeups" \
	holds "$3 > 1000 && $1 <= $LIGHT_MS * 1000"
kill -INT "$tracer" && wait "$tracer"
p999=$(json_field p999_us "$W/waits.json")
max=$(json_field max_us "$W/waits.json")
verdict bounded-wait "of all tasks: p99.9 $(ms "$p999"), longest $(ms "$max") (bound $OVERCOMMIT_MS ms)" \
	holds "$max > 0 && $max <= $OVERCOMMIT_MS * 1000"

check still-attached attached
calm
ended
echo "done"
