# SPDX-License-Identifier: GPL-2.0-only
# The weights of two loaded cgroups change all the time, between both ends. They need not be obeyed.
. "${0%/*}/lib.sh"

group heavy
group light
storm_start --heuristic
gust within heavy stress-ng --cpu 4 --switch 1 --temp-path /tmp --timeout 200
gust within light stress-ng --cpu 4 --switch 1 --temp-path /tmp --timeout 200
hurry
end=$(($(date +%s) + SECS))
changes=0
while [ "$(date +%s)" -lt $end ]; do
	for weight in 1 100 10000; do
		echo $weight >$CG/heavy/cpu.weight && echo $((10001 - weight)) >$CG/light/cpu.weight &&
			changes=$((changes + 1))
	done
	# an idle group refuses weights
	echo 1 >$CG/heavy/cpu.idle
	echo 0 >$CG/heavy/cpu.idle
done
verdict changes "$changes" [ $changes -ge 10 ]
storm_stop
echo "done"
