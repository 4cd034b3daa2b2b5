# SPDX-License-Identifier: GPL-2.0-only
# A thousand and more short-lived processes a second, some of which execute a program.
. "${0%/*}/lib.sh"

processes() { awk '/^processes/ { print $2 }' /proc/stat; }

storm_start --learn --checkpoint-dir "$W/ck" --agent-nice 0
gust stress --vfork 4
gust stress --exec 1 --exec-max 4
sleep 1
before=$(processes)
sleep "$SECS"
rate=$((($(processes) - before) / SECS))
verdict spawned "$rate processes a second" [ "$rate" -ge 1000 ]
storm_stop
echo "done"
