# SPDX-License-Identifier: GPL-2.0-only
# Real-time hogs. Before Linux 7.0 nothing but the hogs themselves leaves time to sched_ext tasks on a hogged CPU (the
# kernel's reserve for the fair class is not theirs), so what is pinned there waits for the hog to end, under any
# scheduler, EEVDF's reserve apart. What is not pinned must not.
. "${0%/*}/lib.sh"

# what the longest hog below takes, and some seconds
PINNED_MS=$((SECS * 1000 + 4000))
ANY_MS=$PINNED_MS
hog() { gust taskset -c "$1" chrt -f 50 sh -c 'while :; do :; done'; }

storm_start --heuristic
gust stress --cpu 2 --switch 2 --pipe 1
sleep 1
# one CPU of a last-level cache, then the whole other cache
hog 1
sleep $((SECS / 2))
calm
gust stress --cpu 2 --switch 2 --pipe 1
hog 2
hog 3
sleep $((SECS / 2))
calm
# Tasks of ours that become real-time ones while they run: no CPU is taken from anybody, so the kernel does not tell the
# scheduler. Who is next on that CPU then, must not wait there. They are brief tasks before that, which preempt hogs.
gust stress --cpu 2 --switch 2 --pipe 1
turn='syscall(203, 0, 8, my $cpu = pack("Q", 1 << $ARGV[0])) == 0 or die "sched_setaffinity: $!";
	select(undef, undef, undef, 0.005) for 1 .. 20;
	syscall(144, 0, 1, my $priority = pack("i", 50)) == 0 or die "sched_setscheduler: $!";
	my $end = time + 4;
	1 while time < $end;'
for cpu in 0 $((CPUS - 1)); do
	perl -e "$turn" "$cpu" || not_ok turn "perl cannot become a real-time task"
done
calm
# on all CPUs at once, for most of the time
gust stress --sched fifo --sched-prio 10 --cpu "$CPUS" --cpu-load 70 --cpu-load-slice -20
gust stress --cpu 2 --switch 2
sleep $((SECS / 2))
storm_stop
echo "done"
