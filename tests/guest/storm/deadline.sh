# SPDX-License-Identifier: GPL-2.0-only
# Deadline hogs on all CPUs: at first 40 % of each, then four fifths.
# Ordinary tasks get what is left: here a fifth, in pieces.
PINNED_MS=2500
FREE_MS=2500
. "${0%/*}/lib.sh"

hog() {
	for _ in $(seq "$CPUS"); do
		gust chrt -d --sched-runtime "$1" --sched-deadline "$2" --sched-period "$2" 0 sh -c 'while :; do :; done'
	done
}

storm_start --heuristic
hog 4000000 10000000
gust stress --cpu 4 --switch 2
sleep $((SECS / 2))
hogs=$(ps -eo cls | grep -c DLN)
verdict hogs "$hogs deadline tasks" [ "$hogs" -ge "$CPUS" ]
calm
hog 40000000 50000000
gust stress --cpu 4 --switch 2
sleep $((SECS / 2))
storm_stop
echo "done"
