# SPDX-License-Identifier: GPL-2.0-only
# Load, attach, run something, detach: on other kernels and topologies.
. "${0%/*}/lib.sh"

uname -r
start smoke --learn --checkpoint-dir "$W/ck" --summary "$W/smoke.json" --agent-nice 0
load_start 30
sleep 5
check still-attached state_is enabled
stop
check exit-code [ "$code" -eq 0 ]
check decisions sh -c "! grep -q '\"wake_decisions\": 0,' '$W/smoke.json'"
check disabled-after state_is disabled
load_stop
timeout 20 "$X" runqlat --duration 1 >"$W/runqlat.log" 2>&1
check runqlat [ $? -eq 0 ]
grep -E 'domain\(s\) by' "$W/smoke.log"
clean_dmesg
echo done
