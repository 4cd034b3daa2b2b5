# SPDX-License-Identifier: GPL-2.0-only
# One CPU: nothing to balance, but it must schedule.
. "${0%/*}/lib.sh"

start single --heuristic
check said file_says "$W/single.log" 'nothing will be balanced'
load_start 30
sleep 4
check still-attached state_is enabled
stop
check exit-code [ "$code" -eq 0 ]
load_stop
grep -E 'domain\(s\) by' "$W/single.log"
clean_dmesg
echo done
