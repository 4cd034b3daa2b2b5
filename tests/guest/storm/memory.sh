# SPDX-License-Identifier: GPL-2.0-only
# The agent has less memory than it wants, and the machine has none to spare. Then it gets none at all, and is killed.
. "${0%/*}/lib.sh"

group agent
binary=$X
X=$W/agent.sh
cat >"$X" <<-END
	echo \$\$ >$CG/agent/cgroup.procs
	exec "$binary" "\$@"
END
chmod +x "$X"

storm_start --learn --checkpoint-dir "$W/ck" --agent-nice 0 --summary "$W/summary.json"
[ -n "$EEVDF" ] || echo "$(($(cat $CG/agent/memory.current) * 3 / 4))" >$CG/agent/memory.high
gust stress --vm 3 --vm-bytes 75% --vm-keep --switch 2 --cpu 2
sleep "$SECS"
[ -n "$EEVDF" ] || verdict pressure "$(tr '\n' ' ' <$CG/agent/memory.events)" \
	sh -c "! grep -qx 'high 0' $CG/agent/memory.events"
check still-attached attached
calm
echo max >$CG/agent/memory.high
if [ -z "$EEVDF" ]; then
	stop
	verdict exit-code "$code" [ "$code" -eq 0 ]
	start killed --learn --checkpoint-dir "$W/ck" --agent-nice 0
	gust stress --cpu 4 --switch 2
	echo 8M >$CG/agent/memory.max
	check killed wait_for 30 gone "$pid"
	check disabled wait_for 30 state_is disabled
	calm
fi
probes_stop
EEVDF=1 # there is none to end
ended
echo "done"
