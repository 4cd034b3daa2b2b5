# SPDX-License-Identifier: GPL-2.0-only
# The CPUs that a loaded cgroup may use change all the time, also by becoming a partition of their own. Each change stops the
# whole machine for a while: with EEVDF=1, too, nice 0 waits for up to 2.9 s.
PINNED_MS=5000
FREE_MS=5000
NICE19_MS=15000
ANY_MS=6000
. "${0%/*}/lib.sh"

group set
group beside
storm_start --learn --checkpoint-dir "$W/ck" --agent-nice 0
gust within set stress-ng --cpu 4 --switch 2 --pipe 2 --temp-path /tmp --timeout 200
gust within beside stress-ng --cpu 2 --temp-path /tmp --timeout 200
sleep 1
hurry
end=$(($(date +%s) + SECS))
changes=0
while [ "$(date +%s)" -lt $end ]; do
	for cpus in 0 1-3 2-3 1 0,3 0-3; do
		echo "$cpus" >$CG/set/cpuset.cpus && changes=$((changes + 1))
		sleep 0.1
	done
done
verdict changes "$changes" [ $changes -ge 4 ]
for kind in root isolated member; do
	echo 2-3 >$CG/set/cpuset.cpus
	echo $kind >$CG/set/cpuset.cpus.partition 2>>"$W/load.log"
	sleep 1
done
storm_stop
echo "done"
