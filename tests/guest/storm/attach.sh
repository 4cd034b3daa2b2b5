# SPDX-License-Identifier: GPL-2.0-only
# Attach and detach $ATTACHES times under load, favoured over it: what loads is the verifier, which takes its time anyway.
. "${0%/*}/lib.sh"

tracer_start
probes_start
gust stress-ng --cpu 4 --switch 2 --pipe 1 --temp-path /tmp --timeout 3000
sleep 1
hurry
began=$(date +%s)
attached=0
for i in $(seq "$ATTACHES"); do
	"$X" --heuristic --duration 0.5 --agent-nice -20 >"$W/attach.log" 2>&1
	code=$?
	[ $((i % 5)) -ne 0 ] || echo "$i attachments"
	if [ $code -eq 0 ] && file_says "$W/attach.log" 'attached: rl' && state_is disabled; then
		attached=$((attached + 1))
	else
		not_ok "attach-$i" "exit code $code: $(tail -2 "$W/attach.log")"
	fi
done
each=$(awk "BEGIN { printf \"%.1f\", ($(date +%s) - $began) / $ATTACHES }")
verdict attached "$attached of $ATTACHES times, $each s each" [ "$attached" -eq "$ATTACHES" ]
calm
probes_stop
EEVDF=1 # there is none to end
ended
echo "done"
