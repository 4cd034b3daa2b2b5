#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Costs of the machine that experiments/sim-vs-kernel/run.sh measured, for the simulator: prints how long a burst takes
when all CPUs work, us, and the JSON of --costs."""

import json
import sys

out, burst_us = sys.argv[1], float(sys.argv[2])

# Two tasks on one CPU wake each other, and sleep: two switches and two wakeups, one after the other. `perf bench -f simple
# sched pipe -l N` prints seconds for N of that. How it divides into switch and wakeup makes no difference there.
pair_us = float(open(f"{out}/cost-pair.txt").read().split()[-1]) / 20_000 * 1e6
# A task whose CPU sleeps waits until that executes again and has switched.
counters = json.load(open(f"{out}/cost-idle.summary.json"))["counters"]
idle_us = counters["wait_sum_ns"] / max(counters["runs"], 1) / 1e3
# With more work than CPUs can do, bursts per second tell how long each takes; nobody sleeps, and switches are few.
full = json.load(open(f"{out}/cost-full.json"))
burst_there_us = full["cpus"] * 1e6 / full["bursts_per_s"]
print(
    f"{burst_there_us:.0f}",
    json.dumps(
        {
            "switch_ns": round(pair_us * 1e3 / 4),
            "wakeup_ns": round(pair_us * 1e3 / 4),
            "idle_exit_ns": round(max(idle_us - pair_us / 4, 0) * 1e3),
        }
    ),
)
if burst_there_us < burst_us:
    print(f"a burst of {burst_us} us took {burst_there_us} us: the loop's speed was measured too low", file=sys.stderr)
