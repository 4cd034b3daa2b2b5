#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""The table of experiments/sim-vs-kernel/run.sh: medians over rounds of the kernel, beside the simulator."""

import glob
import json
import statistics
import sys

out = sys.argv[1]
print(f"{'':22}{'share migrated':>22}{'mean wait, ms':>22}{'mean response, ms':>22}{'response / stay':>22}")
print(f"{'':22}" + f"{'kernel':>13}{'sim':>9}" * 4)
for scenario in ("free", "dear", "half"):
    rows = {}
    for balancer in ("stay", "greedy", "random", "heuristic"):
        migrated, wait, response = [], [], []
        for path in glob.glob(f"{out}/kernel-{scenario}-{balancer}-*.summary.json"):
            summary, report = json.load(open(path)), json.load(open(path.replace(".summary", "")))
            c = summary["counters"]
            asked = c["wake_decisions"] + c["pull_decisions"]
            migrated.append((c["wake_migrated"] + c["pull_migrated"]) / max(asked, 1))
            wait.append(c["wait_sum_ns"] / max(c["runs"], 1) / 1e6)
            response.append(report["response"]["mean_us"] / 1e3)
        if not response:
            sys.exit(f"no results of {scenario}, {balancer} in {out}")
        sim = json.load(open(f"{out}/sim-{scenario}-{balancer}.json"))
        kernel = [statistics.median(values) for values in (migrated, wait, response)]
        simulated = [sim["migrated_share"], sim["wait"]["mean_us"] / 1e3, sim["response"]["mean_us"] / 1e3]
        rows[balancer] = (kernel, simulated)
    for balancer, (kernel, simulated) in rows.items():
        stay = [rows["stay"][i][2] for i in (0, 1)]
        pairs = list(zip(kernel, simulated)) + [(kernel[2] / stay[0], simulated[2] / stay[1])]
        print(f"{scenario + ', ' + balancer:22}" + "".join(f"{k:13.2f}{s:9.2f}" for k, s in pairs))
