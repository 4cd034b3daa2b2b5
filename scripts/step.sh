#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Usage: step.sh NAME COMMAND...       runs the command between lines that tell its name, result and time
set -uo pipefail
name=$1
shift
printf '==> %s\n' "$name"
"$@"
code=$?
((code == 0)) && result=ok || result="FAILED ($code)"
printf '<== %s: %s, %d min %02d s\n' "$name" "$result" $((SECONDS / 60)) $((SECONDS % 60))
exit "$code"
