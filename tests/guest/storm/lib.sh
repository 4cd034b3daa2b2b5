# SPDX-License-Identifier: GPL-2.0-only
# Sourced by the storms, on top of ../lib.sh. $NAME is the case, $SECS how long the storm lasts. A storm is
#
#	storm_start --heuristic     attach, then probes: threads that sleep and want to run on time
#	...                         for about $SECS seconds, ended by `calm`
#	storm_stop                  every probe ran in time, still attached, ends when asked, EEVDF is back, dmesg is clean
#
# With EEVDF=1 nothing is attached and the same is measured: the reference where a bound is in doubt.
. "${0%/*}/../lib.sh"

EEVDF=${EEVDF:-}
SECS=${SECS:-12}
CG=/sys/fs/cgroup
CPUS=$(nproc)
# No probe, and no task at all, may have waited longer, ms. These tell a starved task, not a late one: emulated CPUs that
# share fewer real ones are late on their own. Some storms have reasons for others.
PINNED_MS=${PINNED_MS:-2500}
FREE_MS=${FREE_MS:-2500}
NICE19_MS=${NICE19_MS:-10000}
ANY_MS=${ANY_MS:-5000}
ANY_NICED_MS=${ANY_NICED_MS:-15000}

# What the kernel said since this case began.
kernel_log() { dmesg | sed -n "/storm: case $NAME\$/,\$p"; }

# verdict NAME FIGURES CONDITION...: as `check`, and tells the figures either way
verdict() {
	said="$1: $2"
	shift 2
	if "$@"; then echo "ok $said"; else echo "not ok $said"; fi
}

# holds 'EXPRESSION': arithmetic of awk, with fractions
holds() { awk "BEGIN { exit !($1) }"; }

# A cgroup at $CG/$1 with the controllers that storms use, made afresh.
group() {
	echo '+cpu +cpuset +memory +pids' >$CG/cgroup.subtree_control
	mkdir -p "$CG/$1"
}

# within GROUP COMMAND...: run it there
within() (
	echo "$BASHPID" >"$CG/$1/cgroup.procs"
	shift
	exec "$@"
)

# The load of a storm: started by `gust`, all ended by `calm`.
gusts=
gust() {
	"$@" >>"$W/load.log" 2>&1 &
	gusts="$gusts $!"
}
calm() {
	for gust in $gusts; do kill "$gust" 2>/dev/null; done
	for gust in $gusts; do
		wait_for 20 gone "$gust" || kill -KILL "$gust"
		wait "$gust" 2>/dev/null
	done
	gusts=
}
# From here on this script is favoured, or it would get to do little in the storm that it makes.
hurry() { renice -n -20 -p $$ >/dev/null; }
stress() { exec stress-ng --temp-path /tmp --timeout $((SECS * 4 + 60)) "$@"; }

# Threads that sleep 10 ms and measure how late they run: one pinned to each CPU, two free, two free at nice 19. And the
# tracer, which sees every wait of every task.
probes_start() {
	cyclictest --latency 1000000 --policy other -t "$CPUS" -a -i 10000 -q >"$W/pinned.txt" 2>&1 &
	probes=$!
	cyclictest --latency 1000000 --policy other -t 2 -i 10000 -q >"$W/free.txt" 2>&1 &
	free=$!
	nice -n 19 cyclictest --latency 1000000 --policy other -t 2 -i 10000 -q >"$W/nice19.txt" 2>&1 &
	nice19=$!
	probes="$probes $free $nice19"
	# it pins its threads, whether asked to or not
	for probe in $free $nice19; do
		wait_for 10 has_threads "$probe" 3 && sleep 0.3
		taskset -a -p -c "0-$((CPUS - 1))" "$probe" >/dev/null || not_ok probe "process $probe stays pinned"
	done
}
has_threads() { [ "$(find "/proc/$1/task" -mindepth 1 -maxdepth 1 | wc -l)" = "$2" ]; }

probes_stop() {
	for probe in $probes $tracer; do kill -INT "$probe" 2>/dev/null; done
	for probe in $probes $tracer; do
		wait_for 30 gone "$probe" || not_ok probe "process $probe did not end within 30 s of being asked"
	done
	waited pinned "$PINNED_MS"
	waited free "$FREE_MS"
	waited nice19 "$NICE19_MS"
	[ -z "$tracer" ] || any_task "$ANY_MS" "$ANY_NICED_MS"
}

# any_task BOUND_MS NICED_MS: nothing at all waited longer, by the tracer; tasks above nice 0 may wait longer than others
any_task() {
	usual=$(waiter longest)
	niced=$(waiter longest_niced)
	oldest=$(json_field oldest_us "$W/waits.json")
	verdict any-task "longest wait ${usual#* }, above nice 0 ${niced#* }, still waiting $(ms "$oldest") (bound $1, $2 ms)" \
		holds "\"$oldest\" != \"\" && ${usual%% *} <= $1 * 1000 && ${niced%% *} <= $2 * 1000 && $oldest <= $2 * 1000"
}

# The wait in us, then in words, of that entry of the tracer's JSON.
waiter() {
	sed -n "/^  \"$1\": {/,/^  }/p" "$W/waits.json" | awk -F': ' '
		/wait_us/ { us = $2 + 0 }
		/"task"/ { task = $2; gsub(/[",]/, "", task) }
		/"nice"/ { nice = $2 + 0 }
		END { printf "%d %.1f ms", us, us / 1000; if (us) printf " (%s, nice %d)", task, nice }'
}

ms() { awk "BEGIN { printf \"%.1f ms\", $1 / 1000 }"; }
# The first field of that name in a pretty-printed JSON file.
json_field() { sed -n "s/^ *\"$1\": \([0-9.]*\),\{0,1\}\$/\1/p" "$2" | head -1; }

# waited PROBE BOUND_MS: each thread of the probe ran, and none waited longer
waited() {
	figures=$(sed -n 's/^T: *\([0-9]*\).* C: *\([0-9]*\) .*Max: *\([0-9]*\).*/\1 \2 \3/p' "$W/$1.txt" |
		awk -v bound=$(($2 * 1000)) '
			{ threads++; if ($2 == 0) starved++; runs += $2; if ($3 > max) max = $3 }
			END {
				printf "%d threads ran %d times, at most %.1f ms late", threads, runs, max / 1000
				if (starved) printf ", %d never ran", starved
				exit !(threads > 0 && !starved && max <= bound)
			}')
	verdict "$1" "$figures (bound $2 ms)" [ $? -eq 0 ]
}

attached() { [ -n "$EEVDF" ] || state_is enabled; }

tracer_start() {
	"$X" runqlat --json "$W/waits.json" >"$W/waits.txt" 2>&1 &
	tracer=$!
}

# storm_start ARGS of scx_rl, or of what $AGENT names in its place
storm_start() {
	tracer=
	[ -n "${UNTRACED:-}" ] || tracer_start
	tracing=$X
	X=${AGENT:-$X}
	if [ -z "$EEVDF" ]; then start scheduler "$@"; else pid=; fi
	X=$tracing
	probes_start
	sleep 0.5
}

storm_stop() {
	check still-attached attached
	calm
	probes_stop
	ended
}

# It is there until it is asked to end; then the kernel's own scheduler works on.
ended() {
	if [ -z "$EEVDF" ]; then
		said=$(grep -E 'Error|EXIT|stall|restarting' "$log" | tail -2)
		if gone "$pid"; then not_ok ended-by-itself "$said"; fi
		stop
		verdict exit-code "$code $said" [ "$code" -eq 0 ]
	fi
	check eevdf-back state_is disabled
	check works-on timeout 20 sh -c 'sleep 0.1; true'
	clean_dmesg
}
