# SPDX-License-Identifier: GPL-2.0-only
# The nice values of many runnable tasks change all the time, from -20 to 19. One of 19 may wait long among ones of -20, but
# not for the half minute after which the kernel ends a scheduler.
PINNED_MS=2500
FREE_MS=2500
ANY_MS=6000
NICE19_MS=15000
ANY_NICED_MS=25000
. "${0%/*}/lib.sh"

storm_start --learn --checkpoint-dir "$W/ck" --agent-nice 0
gust stress --cpu 24 --switch 4
sleep 1
hurry
tasks=$(pgrep stress-ng)
end=$(($(date +%s) + SECS))
changes=0
while [ "$(date +%s)" -lt $end ]; do
	# half of them get one value, half another
	for half in 0 1; do
		some=$(for task in $tasks; do [ $((RANDOM % 2)) -eq $half ] && echo "$task"; done)
		# shellcheck disable=SC2086
		renice -n $((RANDOM % 40 - 20)) -p $some >/dev/null 2>&1
		changes=$((changes + $(echo "$some" | wc -l)))
	done
done
verdict changes "$changes" [ $changes -ge 20 ]
storm_stop
echo "done"
