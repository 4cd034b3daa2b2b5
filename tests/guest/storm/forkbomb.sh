# SPDX-License-Identifier: GPL-2.0-only
# A fork bomb that a cgroup holds at 300 processes, again and again.
. "${0%/*}/lib.sh"

group bomb
echo 300 >$CG/bomb/pids.max
storm_start --heuristic
end=$(($(date +%s) + SECS))
while [ "$(date +%s)" -lt $end ]; do
	# shellcheck disable=SC2016
	within bomb sh -c 'b() { b | b & }; b' >/dev/null 2>&1 &
	sleep 0.5
done
limited=$(awk '/^max/ { print $2 }' $CG/bomb/pids.events)
echo 1 >$CG/bomb/cgroup.kill
verdict bomb "$limited forks refused by the cgroup" [ "$limited" -gt 0 ]
storm_stop
echo "done"
