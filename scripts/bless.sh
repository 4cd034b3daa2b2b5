#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Usage: bless.sh [CHECKPOINT]
#
# Makes the checkpoint that is built into scx_rl, checkpoints/blessed.safetensors, and its manifest: trained in the simulator
# under all regimes with load, and measured there with seeds that it has not seen, against the fixed rule. With CHECKPOINT,
# that one is measured and taken instead. Build again afterwards: it is compiled in.
set -euo pipefail

cd "$(dirname "$0")/.."
scx_rl=${SCX_RL:-target/release/scx_rl} out=checkpoints/blessed.safetensors
train=(ablation train --imitate --rounds 20 --seconds 1 '--regimes=-80,-95' --hyper '{"actor_learning_rate":0.001}')
measure=(ablation run --seeds 3 --seconds 6 --no-fixed --jobs 2 --contender rule=rule:margin=1)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ -n ${1:-} ]]; then
	cp "$1" "$work/new.safetensors"
	made="given"
else
	"$scx_rl" "${train[@]}" --out "$work/new.safetensors" >&2
	made="scx_rl ${train[*]}"
fi
"$scx_rl" checkpoint verify "$work/new.safetensors" >&2
"$scx_rl" "${measure[@]}" --contender "frozen=frozen:$work/new.safetensors" --out-dir "$work/measured" >&2
"$scx_rl" ablation table "$work/measured" --against rule --json >"$work/table.json"
MADE=$made MEASURED="scx_rl ${measure[*]} --contender frozen=frozen:FILE" VERSION=$("$scx_rl" --version) \
	SHA256=$(sha256sum "$work/new.safetensors" | cut -d' ' -f1) python3 - "$work" <<'PY' >"$work/blessed.json"
import json, os, sys
work = sys.argv[1]
table = json.load(open(work + "/table.json"))
of = lambda row: {key: [round(row[key][part], 4) for part in ("value", "low", "high")] for key in ("response", "p99", "throughput")}
print(json.dumps({
    "made": os.environ["MADE"],
    "version": os.environ["VERSION"],
    "sha256": os.environ["SHA256"],
    "measured": os.environ["MEASURED"],
    "against_the_rule": "ratio and its 95 % interval over seeds, more is better",
    "seeds": table["seeds"],
    "groups": {group: of(row) for group, rows in table["groups"].items() for row in rows if row["contender"] == "frozen"},
}, indent=1))
PY
# Both or none, as far as two files can be.
mv "$work/blessed.json" checkpoints/blessed.json
mv "$work/new.safetensors" "$out"
python3 -c 'import json; m = json.load(open("checkpoints/blessed.json")); print("all regimes with load:", m["groups"]["all"])'
