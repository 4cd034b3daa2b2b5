#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Two schedulers of a suite against each other, from its summary.json: the geometric mean over workloads of the ratios of
medians, more than 1 where the first is better, with a 95 % interval (rounds drawn with replacement, the same for both).

    experiments/suite/compare.py experiments/suite/2026-11-22-4cpu-2llc/summary.json heuristic scx_rusty [WITHOUT,...]

WITHOUT: workloads to leave out. Also printed: the ratio of each workload.
"""
import json
import math
import random
import statistics
import sys

DRAWS = 2000


def ratio(workloads, first, second, rounds):
    """As src/suite/summary.rs: a workload counts once, by the geometric mean of its counted figures."""
    logs = []
    for workload in workloads:
        mine = []
        for figure in workload["figures"]:
            values = [figure["schedulers"].get(name, {"values": []})["values"] for name in (first, second)]
            pairs = [pair for pair in (tuple(v[r] if r < len(v) else None for v in values) for r in rounds) if None not in pair]
            if figure["counts"] and pairs:
                quotient = statistics.median(a for a, _ in pairs) / statistics.median(b for _, b in pairs)
                mine.append(math.log(quotient if figure["better"] == "higher" else 1 / quotient))
        if mine:
            logs.append(statistics.fmean(mine))
    return math.exp(statistics.fmean(logs)) if logs else None


def main():
    if len(sys.argv) not in (4, 5):
        sys.exit(f"usage: {sys.argv[0]} SUMMARY.json SCHEDULER SCHEDULER [WITHOUT,...]")
    path, first, second = sys.argv[1:4]
    without = sys.argv[4].split(",") if len(sys.argv) > 4 else []
    with open(path, encoding="utf-8") as file:
        summary = json.load(file)
    known = ([s["name"] for s in summary["schedulers"]], [w["name"] for w in summary["workloads"]])
    for names, kind in (((first, second), 0), (without, 1)):
        for name in names:
            if name not in known[kind]:
                sys.exit(f"{path} has no {name}: it has {', '.join(known[kind])}")
    workloads = [workload for workload in summary["workloads"] if workload["name"] not in without]
    rounds, draw = summary["rounds_done"], random.Random(1)
    value = ratio(workloads, first, second, range(rounds))
    if value is None:
        sys.exit(f"{first} and {second} have no workload in common")
    drawn = (ratio(workloads, first, second, draw.choices(range(rounds), k=rounds)) for _ in range(DRAWS))
    drawn = sorted(r for r in drawn if r is not None)
    low, high = drawn[int(0.025 * len(drawn))], drawn[int(0.975 * len(drawn)) - 1]
    lines = [f"{first} / {second}: {value:.2f} [{low:.2f}, {high:.2f}]"]
    for workload in workloads:
        alone = ratio([workload], first, second, range(rounds))
        if alone is not None:
            lines.append(f"  {workload['name']:<20}{alone:5.2f}")
    print("\n".join(lines))


main()
