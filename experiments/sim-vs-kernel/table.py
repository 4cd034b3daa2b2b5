#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""The table of experiments/sim-vs-kernel/run.sh: the kernel's medians over rounds, and means over seeds of the simulator,
with its own costs and with those measured (`there`). Responses are also given as ratios to stay's, of the same round or
seed, as geometric means; the kernel's with their range."""

import glob
import json
import math
import statistics
import sys

out = sys.argv[1]
BALANCERS = ("stay", "greedy", "random", "heuristic")


def runs(kind, scenario, balancer):
    """Share migrated, mean wait and mean response (ms) of each run, by round or seed."""
    found = {}
    for path in glob.glob(f"{out}/{kind}-{scenario}-{balancer}-*.json"):
        number = path.removeprefix(f"{out}/{kind}-{scenario}-{balancer}-").removesuffix(".json")
        if not number.isdigit():
            continue  # a summary
        report = json.load(open(path))
        if kind == "kernel":
            c = json.load(open(path.replace(".json", ".summary.json")))["counters"]
            asked = c["wake_decisions"] + c["pull_decisions"]
            migrated = (c["wake_migrated"] + c["pull_migrated"]) / max(asked, 1)
            wait_ms = c["wait_sum_ns"] / max(c["runs"], 1) / 1e6
        else:
            migrated, wait_ms = report["migrated_share"], report["wait"]["mean_us"] / 1e3
        found[int(number)] = (migrated, wait_ms, report["response"]["mean_us"] / 1e3)
    if not found:
        sys.exit(f"no results of {kind}, {scenario}, {balancer} in {out}")
    return found


columns = ("kernel", "sim", "there")
print(f"{'':16}{'share migrated':>24}{'mean wait, ms':>24}{'mean response, ms':>24}{'response / stay':>40}")
print(f"{'':16}" + "".join(f"{c:>8}" for c in columns * 3) + f"{'kernel':>24}{'sim':>8}{'there':>8}")
for scenario in ("free", "dear", "half"):
    by_kind = {
        kind: {b: runs(name, scenario, b) for b in BALANCERS}
        for kind, name in (("kernel", "kernel"), ("sim", "sim"), ("there", "sim-there"))
    }
    for balancer in BALANCERS:
        line = f"{scenario + ', ' + balancer:16}"
        for figure in range(3):
            for kind in columns:
                values = [run[figure] for run in by_kind[kind][balancer].values()]
                line += f"{statistics.median(values) if kind == 'kernel' else statistics.mean(values):8.2f}"
        for kind in columns:
            mine, stay = by_kind[kind][balancer], by_kind[kind]["stay"]
            ratios = [mine[n][2] / stay[n][2] for n in mine if n in stay]
            mean = math.exp(statistics.mean(map(math.log, ratios)))
            line += f"{mean:10.2f} [{min(ratios):.2f}, {max(ratios):.2f}]" if kind == "kernel" else f"{mean:8.2f}"
        print(line)
