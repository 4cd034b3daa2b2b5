# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
# What scripts of experiments share that run in a VM.

# Wait until a scheduler is attached. LOG is its own, whose end is shown if it is not within 30 s.
attached() { # LOG
	local i
	for ((i = 0; i < 300; i++)); do
		[ "$(cat /sys/kernel/sched_ext/state)" != enabled ] || return 0
		sleep 0.1
	done
	echo "no scheduler is attached after 30 s:" >&2
	tail "$1" >&2
	return 1
}

# How fast the loop of the locality workload is here: for --iterations-per-us.
loop_speed() { # SCX_RL
	"$1" locality --seconds 0.1 --warm-up 0 --cost-us 0 | sed -n 's/.*"iterations_per_us": \([0-9.]*\).*/\1/p'
}
