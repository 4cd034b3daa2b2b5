# SPDX-License-Identifier: GPL-2.0-only
# CPUs go and come under load. The kernel ends the scheduler each time and asks for a restart, and scx_rl restarts.
ANY_NICED_MS=60000 # EEVDF schedules for most of it, and alone kept khugepaged (nice 19) waiting for 34 s
. "${0%/*}/lib.sh"

cpu_online() { echo "$2" >/sys/devices/system/cpu/cpu"$1"/online; }
attached_times() { [ "$(grep -c 'attached: rl' "$W/scheduler.log")" -ge "$1" ]; }
attached_with() { state_is enabled && grep -o '[0-9]* CPUs' "$W/scheduler.log" | tail -1 | grep -qx "$1 CPUs"; }

storm_start --heuristic
gust stress --cpu 4 --switch 2 --pipe 2
sleep 1
times=1
for cpu in $HOTPLUG; do
	for online in 0 1; do
		cpu_online "$cpu" $online
		times=$((times + 1))
		[ -n "$EEVDF" ] || check "cpu$cpu-online-$online" wait_for 60 attached_times $times
		sleep $((${EEVDF:-0} ? 16 : 1)) # as long as a restart takes, emulated, under this load
	done
done
# faster than it can attach
for _ in 1 2 3 4; do
	for cpu in 3 1 2; do
		cpu_online $cpu 0
		sleep 0.1
		cpu_online $cpu 1
	done
done
check online [ "$(cat /sys/devices/system/cpu/online)" = "0-$((CPUS - 1))" ]
[ -n "$EEVDF" ] || check attached-to-all wait_for 60 attached_with "$CPUS"
sleep 2
storm_stop
echo "done"
