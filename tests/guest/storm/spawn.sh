# SPDX-License-Identifier: GPL-2.0-only
# A thousand and more short-lived processes a second. (Ones that execute a program are in the fork bomb.)
UNTRACED=1 # the tracer's memory for each new task would halve their number
. "${0%/*}/lib.sh"

processes() { awk '/^processes/ { print $2 }' /proc/stat; }

storm_start --learn --checkpoint-dir "$W/ck" --agent-nice 0
gust stress --vfork 6
sleep 1
before=$(processes)
sleep "$SECS"
rate=$((($(processes) - before) / SECS))
verdict spawned "$rate processes a second" [ "$rate" -ge 1000 ]
storm_stop
echo "done"
