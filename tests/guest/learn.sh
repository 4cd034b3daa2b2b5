# SPDX-License-Identifier: GPL-2.0-only
# The main job: learn under load, checkpoint on demand and at exit, refuse a second scheduler, serve statistics.
. "${0%/*}/lib.sh"

load_start 120
start learn --learn --seed 3 --agent-nice 0 --checkpoint-dir "$W/ck" --checkpoint-every 9 --record "$W/events.rec" \
	--summary "$W/learn.json" --stats 2 --domains llc --slices --prometheus
check ops-name file_says $S/root/ops '^rl_'
check domains-said file_says "$W/learn.log" '2 domain(s) by llc: 0-1 | 2-3'

"$X" --heuristic >"$W/second.log" 2>&1
check second-refused [ $? -eq 1 ]
check second-says-why file_says "$W/second.log" 'another sched_ext scheduler is attached: rl_'

timeout 5 "$X" --monitor 1 >"$W/monitor.log" 2>&1
check monitor-shows-learning file_says "$W/monitor.log" 'entropy'

# Attached, no thread of it has more of root's power than to get at files.
caps() { cat /proc/"$pid"/task/*/status | awk -v what="$1:" '$1 == what { print $2 }' | sort -u; }
check only-files-now [ "$(caps CapEff)" = 0000000000000002 ]
check may-attach-again [ "$(caps CapPrm)" = 000000c000800002 ]

exec 3<>/dev/tcp/127.0.0.1/9764
printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
timeout 5 cat <&3 >"$W/metrics.txt"
exec 3>&-
check prometheus-counts file_says "$W/metrics.txt" '^scx_rl_runs_total [1-9]'
check prometheus-waits file_says "$W/metrics.txt" '^scx_rl_wait_us_bucket{le="+Inf"} [1-9]'
check prometheus-explains file_says "$W/metrics.txt" '^# HELP scx_rl_reward_ms '

sleep 8
rm -f "$W/ck/latest.safetensors"
kill -USR1 "$pid"
check checkpoint-on-usr1 wait_for 10 test -s "$W/ck/latest.safetensors"

# SIGSTOP: nothing waits for userspace. A fresh process must get its turn all along.
kill -STOP "$pid"
before=$(awk '/^ctxt/ {print $2}' /proc/stat)
for _ in 1 2 3 4 5 6 7 8 9 10; do sleep 1; done
after=$(awk '/^ctxt/ {print $2}' /proc/stat)
check scheduling-goes-on-while-stopped [ $((after - before)) -gt 1000 ]
check attached-while-stopped state_is enabled
kill -CONT "$pid"
sleep 2

stop
check exit-code [ "$code" -eq 0 ]
check disabled-after state_is disabled
check summary file_says "$W/learn.json" '"weights_as_published": true'
check slices-chosen file_says "$W/learn.json" '"turn_decisions": [1-9]'
"$X" checkpoint show "$W/ck/latest.safetensors" >"$W/show.log" 2>&1
check checkpoint-show [ $? -eq 0 ]

# frozen on what was learned
start frozen --frozen "$W/ck/latest.safetensors" --summary "$W/frozen.json" --agent-nice 0 --slices
sleep 4
stop
check frozen-exit-code [ "$code" -eq 0 ]
check frozen-weights file_says "$W/frozen.json" '"weights_as_published": true'

# without a balancer: what is built in
start blessed --summary "$W/blessed.json" --agent-nice 0
sleep 3
stop
check blessed-exit-code [ "$code" -eq 0 ]
check blessed-is-frozen file_says "$W/blessed.json" '"mode": "frozen"'
check blessed-weights file_says "$W/blessed.json" '"weights_as_published": true'

# go on from it, under other domains: allowed, and said
start resumed --learn --resume "$W/ck/latest.safetensors" --checkpoint-dir "$W/ck2" --domains cpus:0/1/2/3
check other-topology-said file_says "$W/resumed.log" 'learned on another topology'
stop
check resumed-exit-code [ "$code" -eq 0 ]

load_stop
clean_dmesg
echo done
