# SPDX-License-Identifier: GPL-2.0-only
# Sourced by the scenarios that run inside the VM. $X is scx_rl, $W a writable folder. Each check prints one line,
# `ok NAME` or `not ok NAME: why`, which tests/vm.rs counts; a scenario ends with `done`.

S=/sys/kernel/sched_ext

ok() { echo "ok $1"; }
not_ok() { echo "not ok $1: $2"; }

# check NAME CONDITION...: the condition is a command
check() {
	name=$1
	shift
	if "$@"; then ok "$name"; else not_ok "$name" "$*"; fi
}

# wait_for SECONDS CONDITION...
wait_for() {
	deadline=$(($(date +%s) + $1))
	shift
	until "$@"; do
		[ "$(date +%s)" -lt "$deadline" ] || return 1
		sleep 0.2
	done
}

state_is() { [ "$(cat $S/state)" = "$1" ]; }
gone() { ! kill -0 "$1" 2>/dev/null; }
file_says() { grep -q -- "$2" "$1"; }

# More runnable tasks than CPUs, for at most $1 seconds; ended by load_stop.
load_start() {
	stress-ng --cpu 3 --cpu-method int64 --pipe 2 --switch 2 --temp-path /tmp --timeout "$1" >/tmp/load.log 2>&1 &
	load=$!
	sleep 1
}

load_stop() {
	kill "$load" 2>/dev/null
	wait "$load" 2>/dev/null
}

# start NAME ARGS...: start scx_rl, output to $W/NAME.log, and wait until it is attached. Sets $pid.
start() {
	log=$W/$1.log
	shift
	"$X" "$@" >"$log" 2>&1 &
	pid=$!
	wait_for 60 state_is enabled || not_ok "attach" "$(tail -3 "$log")"
}

# stop: ask scx_rl to end, and wait. Sets $code.
stop() {
	kill -INT "$pid"
	if ! wait_for 60 gone "$pid"; then
		not_ok stop "still running after 60 s"
		# which task is on which queue, and who is blocked, for the kernel's log
		echo D >/proc/sysrq-trigger
		echo w >/proc/sysrq-trigger
	fi
	wait "$pid"
	code=$?
}

# The kernel has nothing to complain about.
clean_dmesg() {
	bad=$(dmesg | grep -iE 'sched_ext|scx' | grep -iE 'stall|error|warn|runnable task|disabled \(' |
		grep -vE 'unregistered from (user space|the main kernel|BPF)|disabled by sysrq-S') # asked to, or restarted for hotplug
	# the guest's init writes to the kernel's log as well
	bad="$bad$(dmesg | grep -v 'virtme-ng-init:' | grep -E 'WARNING:|BUG:|Oops|soft lockup|rcu.*stall')"
	if [ -z "$bad" ]; then ok dmesg; else not_ok dmesg "$bad"; fi
}
