# SPDX-License-Identifier: GPL-2.0-only
# What goes wrong: kill -9, a full disk, an unwritable folder, hotplug, affinity churn.
. "${0%/*}/lib.sh"

load_start 200

# kill -9: the kernel goes back to its own scheduler and works on
start killed --random
kill -KILL "$pid"
check kill9-disabled wait_for 30 state_is disabled
wait "$pid" 2>/dev/null
check kill9-works-on sh -c 'sleep 0.1; true'

# a full disk: learning goes on (without a guard, which might pause it), the failure is reported, the last good checkpoint
# is untouched
mkdir -p /tmp/small
mount -t tmpfs -o size=64k small /tmp/small
start full --learn --no-guard --checkpoint-dir /tmp/small --checkpoint-every 4 --agent-nice 0 --stats 1
check first-checkpoint wait_for 20 test -s /tmp/small/latest.safetensors
dd if=/dev/zero of=/tmp/small/filler bs=1k count=64 2>/dev/null
sum=$(cksum </tmp/small/latest.safetensors)
# it may be between two writes: what counts is from now on
check failure-reported wait_for 20 file_says "$W/full.log" 'checkpoint failed'
sum2=$(cksum </tmp/small/latest.safetensors)
check last-good-untouched [ "$sum" = "$sum2" ]
check learning-goes-on state_is enabled
"$X" checkpoint show /tmp/small/latest.safetensors >/dev/null 2>&1
check last-good-loads [ $? -eq 0 ]
stop
check full-disk-exit-code [ "$code" -eq 1 ]
umount /tmp/small

# an unwritable folder is said at once
start unwritable --learn --checkpoint-dir /proc/nowhere --checkpoint-every 2
check unwritable-said file_says "$W/unwritable.log" 'cannot create the checkpoint folder'
stop
check unwritable-exit-code [ "$code" -eq 1 ]

# affinity churn and pinned hogs, under the coin, which moves most
start affinity --random --domains cpus:0/1/2/3
stress-ng --cpu 4 --taskset 1 --timeout 8 --temp-path /tmp >/dev/null 2>&1 &
pinned=$!
stress-ng --affinity 4 --timeout 8 --temp-path /tmp >/dev/null 2>&1
wait $pinned
check affinity-survives state_is enabled

# hotplug: the kernel ends the scheduler with a request to restart, and scx_rl restarts it
echo 0 >/sys/devices/system/cpu/cpu3/online
# the explicit list names a CPU that is gone now: that is an error with words, not a stall
check hotplug-explicit wait_for 30 file_says "$W/affinity.log" 'CPU 3, which is not online'
wait_for 20 gone "$pid"
wait "$pid"
check hotplug-explicit-exit-code [ $? -eq 1 ]
start hotplug --heuristic
echo 1 >/sys/devices/system/cpu/cpu3/online
check hotplug-restarts wait_for 30 file_says "$W/hotplug.log" 'restarting, as the kernel asks'
check hotplug-enabled wait_for 30 state_is enabled
wait_for 20 file_says "$W/hotplug.log" '4 CPUs'
stop
check hotplug-exit-code [ "$code" -eq 0 ]

# the kernel ends the scheduler, here because it is told to by a key: exit code 1 with its words; checkpoint and summary are written
start ended --learn --checkpoint-dir "$W/ended" --summary "$W/ended.json" --agent-nice 0
sleep 3
echo S >/proc/sysrq-trigger
check ended-gone wait_for 20 gone "$pid"
wait "$pid"
check ended-exit-code [ $? -eq 1 ]
check ended-said file_says "$W/ended.log" 'disabled by sysrq-S'
check ended-summary file_says "$W/ended.json" '"error": "EXIT: disabled by sysrq-S'
check ended-checkpoint test -s "$W/ended/latest.safetensors"

load_stop
dmesg | grep -i sched_ext >"$W/faults-dmesg.log"
# a restart for hotplug is told in dmesg, and is not a fault
clean_dmesg
echo done
