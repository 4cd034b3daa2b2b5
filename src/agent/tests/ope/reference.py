#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""The numbers in reference.rs, from the formulas in src/agent/ope.rs written again: plain Python, event by event, with
Gaussian elimination instead of Cholesky, and regressions on the events themselves instead of sums over folds.

    python3 src/agent/tests/ope/reference.py
"""

from math import fsum, sqrt

EVENTS, BLOCKS, FOLDS, RIDGE = 800, 20, 5, 10.0
# Quantiles 0.975 and 0.95 of Student's t with 19 degrees of freedom, from tables.
T_TWO_SIDED, T_ONE_SIDED = 2.0930240544082634, 1.7291328115213671


def generator():
    """The upper 16 bits of a linear congruential generator."""
    state = 1
    while True:
        state = (state * 1664525 + 1013904223) % 2**32
        yield state >> 16


def generate():
    """As `events()` in reference.rs."""
    random = generator()
    events = []
    for number in range(EVENTS):
        x = [next(random) % 128 for _ in range(18)]
        x[17] = 0  # not a decision about a turn
        p = [6554, 16384, 32768, 49152, 60000][next(random) % 5]
        migrate = next(random) < p
        shift = next(random) % 3
        wait = 1_000_000 + 20_000 * x[2] + (15_000 * x[3] if migrate else 30_000 * x[4]) + 30 * next(random)
        wait += 80_000_000 if number % 37 == 0 else 0
        service = 45 * next(random)
        cost = min(wait, 50_000_000) + min(max(-50_000_000, service - 1_000_000), 50_000_000)
        events.append((x, migrate, (p if migrate else 65536 - p) / 65536, 2**shift, -cost / 1e6))
    return events


def heuristic(x):
    """As rl_heuristic() in src/bpf/policy.h."""
    margin = 32 if x[1] >= 126 else 16
    return 1.0 if (x[7] and not x[6]) or x[2] >= x[3] + margin else 0.0


def eliminate(a, b):
    """Solves a x = b by Gaussian elimination with partial pivoting."""
    rows = [row[:] + [value] for row, value in zip(a, b)]
    size = len(rows)
    for column in range(size):
        best = max(range(column, size), key=lambda r: abs(rows[r][column]))
        rows[column], rows[best] = rows[best], rows[column]
        for row in rows[column + 1:]:
            factor = row[column] / rows[column][column]
            for k in range(column, size + 1):
                row[k] -= factor * rows[column][k]
    solution = [0.0] * size
    for i in reversed(range(size)):
        solution[i] = (rows[i][size] - fsum(rows[i][k] * solution[k] for k in range(i + 1, size))) / rows[i][i]
    return solution


def terms(x):
    scaled = [value / 64 for value in x]
    return [1.0] + scaled + [value * value for value in scaled]


def expectations(events):
    """For each event the expected rewards of staying and migrating, from the other folds."""
    mean_mass = fsum(c for _, _, _, c, _ in events) / len(events)
    expected = []
    for fold in range(FOLDS):
        low, high = len(events) * fold // FOLDS, len(events) * (fold + 1) // FOLDS
        others = events[:low] + events[high:]
        mean = fsum(c * r for _, _, _, c, r in others) / fsum(c for _, _, _, c, _ in others)
        models = []
        for action in (False, True):
            design = [(terms(x), c / mean_mass, r - mean) for x, migrate, _, c, r in others if migrate == action]
            size = len(design[0][0])
            gram = [[0.0] * size for _ in range(size)]
            moment = [0.0] * size
            for t, c, r in design:
                for j in range(size):
                    scaled = c * t[j]
                    moment[j] += scaled * r
                    gram[j] = [sum_ + scaled * other for sum_, other in zip(gram[j], t)]
            for j in range(size):
                gram[j][j] += RIDGE
            models.append(eliminate(gram, moment))
        for x, *_ in events[low:high]:
            expected.append([mean + fsum(b * t for b, t in zip(model, terms(x))) for model in models])
    return expected


def evaluate(events, expected, policy, clip=float("inf")):
    """Values and per-event influences of IPS, SNIPS and DR; weights."""
    weights, robust, shares = [], [], []
    for (x, migrate, p, _, r), m in zip(events, expected):
        q = policy(x)
        w = min((q if migrate else 1 - q) / p, clip)
        weights.append(w)
        shares.append(q)
        robust.append(q * m[1] + (1 - q) * m[0] + w * (r - m[migrate]))
    mass = [c for _, _, _, c, _ in events]
    reward = [r for _, _, _, _, r in events]
    total = fsum(mass)
    weighted = fsum(c * w for c, w in zip(mass, weights))
    ips = fsum(c * w * r for c, w, r in zip(mass, weights, reward)) / total
    snips = fsum(c * w * r for c, w, r in zip(mass, weights, reward)) / weighted
    dr = fsum(c * g for c, g in zip(mass, robust)) / total
    psi = [
        [c * (w * r - ips) / total for c, w, r in zip(mass, weights, reward)],
        [c * w * (r - snips) / weighted for c, w, r in zip(mass, weights, reward)],
        [c * (g - dr) / total for c, g in zip(mass, robust)],
    ]
    facts = [
        fsum(c * q for c, q in zip(mass, shares)) / total,
        weighted**2 / fsum((c * w) ** 2 for c, w in zip(mass, weights)),
        max(weights),
        weighted / total,
    ]
    return [ips, snips, dr], psi, facts, [c * w for c, w in zip(mass, weights)]


def estimate(value, psi):
    """Value, standard error, interval, one-sided bound."""
    size = len(psi)
    blocks = [fsum(psi[size * b // BLOCKS:size * (b + 1) // BLOCKS]) for b in range(BLOCKS)]
    error = sqrt(BLOCKS / (BLOCKS - 1) * fsum(s * s for s in blocks))
    return [value, error, value - T_TWO_SIDED * error, value + T_TWO_SIDED * error, value - T_ONE_SIDED * error]


def show(name, rows):
    print(f"const {name}: [[f64; 5]; 3] = [")
    for row in rows:
        print("    [" + ", ".join(repr(v) for v in row) + "],")
    print("];")


def main():
    events = generate()
    expected = expectations(events)
    heuristic_ = evaluate(events, expected, heuristic)
    coin = evaluate(events, expected, lambda _: 0.5)
    clipped = evaluate(events, expected, heuristic, clip=3.0)
    for name, (values, psi, facts, _) in [("HEURISTIC", heuristic_), ("COIN", coin), ("CLIPPED", clipped)]:
        show(name, [estimate(v, p) for v, p in zip(values, psi)])
        print(f"const {name}_FACTS: [f64; 4] = [" + ", ".join(repr(v) for v in facts) + "];")
    pairs = zip(heuristic_[0], coin[0], heuristic_[1], coin[1])
    show("DIFFERENCE", [estimate(a - b, [p - q for p, q in zip(pa, pb)]) for a, b, pa, pb in pairs])
    apart = [abs(a - b) for a, b in zip(heuristic_[3], coin[3])]
    print(f"const DIFFERENCE_EFFECTIVE: f64 = {fsum(apart) ** 2 / fsum(a * a for a in apart)!r};")


main()
