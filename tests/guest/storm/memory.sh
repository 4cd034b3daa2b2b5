# SPDX-License-Identifier: GPL-2.0-only
# The agent has less memory than it uses, so that its pages are taken from it all the time, and the machine has none to
# spare either. (Killed for want of memory is killed: tests/guest/faults.sh.)
. "${0%/*}/lib.sh"

group agent
cat >"$W/agent.sh" <<-END
	#!/bin/sh
	echo \$\$ >$CG/agent/cgroup.procs
	exec "$X" "\$@"
END
chmod +x "$W/agent.sh"

AGENT=$W/agent.sh storm_start --learn --checkpoint-dir "$W/ck" --agent-nice 0 --summary "$W/summary.json"
[ -n "$EEVDF" ] || echo "$(($(cat $CG/agent/memory.current) * 3 / 4))" >$CG/agent/memory.high
gust stress --vm 3 --vm-bytes 75% --vm-keep --switch 2 --cpu 2
sleep "$SECS"
if [ -z "$EEVDF" ]; then
	pressed=$(awk '/^high/ { print $2 }' $CG/agent/memory.events)
	verdict pressure "the agent was over its limit $pressed times" [ "$pressed" -gt 0 ]
fi
echo max >$CG/agent/memory.high
storm_stop
echo "done"
