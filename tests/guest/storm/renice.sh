# SPDX-License-Identifier: GPL-2.0-only
# The nice values of many runnable tasks change all the time, from -20 to 19.
. "${0%/*}/lib.sh"

storm_start --learn --checkpoint-dir "$W/ck" --agent-nice 0
gust stress --cpu 24 --switch 4
sleep 1
end=$(($(date +%s) + SECS))
changes=0
while [ "$(date +%s)" -lt $end ]; do
	for task in $(pgrep stress-ng); do
		renice -n $((RANDOM % 40 - 20)) -p "$task" >/dev/null 2>&1 && changes=$((changes + 1))
	done
done
verdict changes "$changes" [ $changes -gt 50 ]
storm_stop
echo "done"
