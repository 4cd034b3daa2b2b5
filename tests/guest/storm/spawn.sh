# SPDX-License-Identifier: GPL-2.0-only
# Short-lived processes: a thousand and more a second where the machine can, some hundreds under emulation. (Ones that
# execute a program are in the fork bomb.)
UNTRACED=1 # the tracer's memory for each new task would halve their number
. "${0%/*}/lib.sh"

processes() { awk '/^processes/ { print $2 }' /proc/stat; }

storm_start --learn --checkpoint-dir "$W/ck" --agent-nice 0
gust stress --vfork 6
sleep 1
before=$(processes)
sleep "$SECS"
rate=$((($(processes) - before) / SECS))
verdict spawned "$rate processes a second" [ "$rate" -ge "${SPAWN_MIN:-300}" ]
storm_stop
echo "done"
