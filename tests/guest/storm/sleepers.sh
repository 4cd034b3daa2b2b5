# SPDX-License-Identifier: GPL-2.0-only
# Two thousand threads that sleep for half a second at a time, and a hundred that sleep from a microsecond up.
NICE19_MS=25000
ANY_NICED_MS=25000
. "${0%/*}/lib.sh"

threads() { awk '{ split($4, n, "/"); print n[2] }' /proc/loadavg; }
enough() { [ "$(threads)" -ge 2000 ]; }

storm_start --heuristic
for _ in 1 2 3 4 5 6 7 8; do
	gust cyclictest --latency 1000000 --policy other -t 250 -i 500000 -q
done
wait_for 60 enough
gust stress --sleep 1 --sleep-max 100
sleep "$SECS"
there=$(threads)
verdict sleepers "$there threads" [ "$there" -ge 2000 ]
storm_stop
echo "done"
