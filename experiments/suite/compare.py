#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Two schedulers of a suite against each other, from its summary.json: the geometric mean over workloads of the ratios of
medians, more than 1 where the first is better, with a 95 % interval (rounds drawn with replacement, the same for both).

    experiments/suite/compare.py experiments/suite/2026-11-22-4cpu-2llc/summary.json heuristic scx_rusty
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
    if len(sys.argv) != 4:
        sys.exit(f"usage: {sys.argv[0]} SUMMARY.json SCHEDULER SCHEDULER")
    path, first, second = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        summary = json.load(file)
    names = [scheduler["name"] for scheduler in summary["schedulers"]]
    for name in (first, second):
        if name not in names:
            sys.exit(f"{path} has no {name}: it has {', '.join(names)}")
    rounds, draw = summary["rounds_done"], random.Random(1)
    value = ratio(summary["workloads"], first, second, range(rounds))
    if value is None:
        sys.exit(f"{first} and {second} have no workload in common")
    drawn = (ratio(summary["workloads"], first, second, draw.choices(range(rounds), k=rounds)) for _ in range(DRAWS))
    drawn = sorted(r for r in drawn if r is not None)
    low, high = drawn[int(0.025 * len(drawn))], drawn[int(0.975 * len(drawn)) - 1]
    print(f"{first} / {second}: {value:.2f} [{low:.2f}, {high:.2f}]")


main()
