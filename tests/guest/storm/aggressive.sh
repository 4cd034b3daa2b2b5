# SPDX-License-Identifier: GPL-2.0-only
# Affinity churn and pinning, while the agent learns.
. "${0%/*}/lib.sh"

storm_start --learn --checkpoint-dir "$W/ck" --agent-nice 0
gust stress --aggressive --affinity 3 --affinity-rand --switch 2 --pipe 2
gust stress --aggressive --affinity 1 --affinity-pin --cpu 2
gust stress --cpu 3 --taskset 1
sleep "$SECS"
# the agent itself is moved about as well
for cpus in 0 1-2 3 0-3; do
	[ -z "$pid" ] || taskset -acp "$cpus" "$pid" >/dev/null
	sleep 0.5
done
storm_stop
echo "done"
