# SPDX-License-Identifier: GPL-2.0-only
# The guest's side of tests/storm.rs, which sources this and calls run_case for each case of the boot. Around the lines of a
# case's own checks it prints `case NAME`, and `end NAME CODE SECONDS`.

# run_case NAME SCRIPT LIMIT_S [VARIABLE=VALUE]...
# In its own cgroup, so that nothing of a case, whatever it was, is there in the next one.
run_case() {
	NAME=$1
	script=$2
	limit=$3
	shift 3
	began=$(date +%s)
	own=/sys/fs/cgroup/storm
	echo "case $NAME"
	echo "storm: case $NAME" >/dev/kmsg
	mkdir -p $own "$W/$NAME"
	(
		echo "$BASHPID" >$own/cgroup.procs
		W=$W/$NAME
		export NAME W
		exec env "$@" timeout -k 5 "$limit" bash "$GUEST/$script"
	)
	code=$?
	for group in /sys/fs/cgroup/*/; do
		[ "$group" = /sys/fs/cgroup/init.scope/ ] || clear_group "${group%/}"
	done
	for cpu in /sys/devices/system/cpu/cpu[0-9]*/online; do
		[ "$(cat "$cpu")" = 1 ] || echo 1 >"$cpu"
	done
	echo "end $NAME $code $(($(date +%s) - began))"
}

# End what is in a cgroup, and remove it.
clear_group() {
	echo 1 >"$1/cgroup.kill" 2>/dev/null
	for _ in $(seq 100); do
		rmdir "$1" 2>/dev/null && return
		sleep 0.1
	done
}
