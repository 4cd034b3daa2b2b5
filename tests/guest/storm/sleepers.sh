# SPDX-License-Identifier: GPL-2.0-only
# Thousands of threads that sleep and wake.
. "${0%/*}/lib.sh"

threads() { awk '{ split($4, n, "/"); print n[2] }' /proc/loadavg; }

storm_start --heuristic
gust stress --sleep 3 --sleep-max 1000
sleep "$SECS"
there=$(threads)
verdict sleepers "$there threads" [ "$there" -ge 2000 ]
storm_stop
echo "done"
