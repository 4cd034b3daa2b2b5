# SPDX-License-Identifier: GPL-2.0-only
# One cell of the matrix: load, attach, run something, detach, on this kernel and topology. $DOMAINS is what is found.
. "${0%/*}/lib.sh"

verdict kernel "$(uname -r)" sh -c "uname -r | grep -q '^$KERNEL'"
storm_start --learn --checkpoint-dir "$W/ck" --summary "$W/smoke.json" --agent-nice 0
check domains file_says "$log" "domain(s) by llc: $DOMAINS;"
gust stress --cpu 3 --cpu-method int64 --pipe 2 --switch 2
sleep "$SECS"
if [ "$CPUS" -eq 1 ]; then check one-domain-said file_says "$log" 'nothing will be balanced'; fi
storm_stop
runs=$(json_field runs "$W/smoke.json")
wakes=$(json_field wake_decisions "$W/smoke.json")
verdict scheduled "$runs runs, $wakes decisions at wakeup" [ "$runs" -gt 1000 ]
[ "$CPUS" -le 2 ] || check decided [ "$wakes" -gt 0 ]
echo "done"
