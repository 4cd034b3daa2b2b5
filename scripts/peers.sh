#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Usage: peers.sh [NAME...]      NAME: scx_rusty, scx_lavd ...
#
# Installs the published schedulers that scx_rl is compared with, at the versions below, into the cache folder
# ($CACHE/peers/bin). Without a NAME: all. What is there at its version is left alone. They share one target folder, so
# that their common crates are built once; all six take about 7 minutes on two cores.
set -euo pipefail

CACHE=${SCX_RL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/scx_rl}
PEERS=(
	scx_rusty@1.1.4
	scx_bpfland@1.1.4
	scx_lavd@1.1.4
	scx_cosmos@1.1.7
	scx_p2dq@1.1.4
	scx_flash@1.1.4
)

say() { printf '[peers %3ds] %s\n' "$SECONDS" "$*"; }
die() { printf 'peers: error: %s\n' "$*" >&2; exit 1; }

# cargo keeps a list of what it installed below a root.
is_installed() { [[ -x $CACHE/peers/bin/${1%@*} ]] && grep -qF "\"${1/@/ } (" "$CACHE/peers/.crates.toml" 2>/dev/null; }

wanted=("${PEERS[@]}")
if (($#)); then
	wanted=()
	for name; do
		found=
		for peer in "${PEERS[@]}"; do
			[[ ${peer%@*} != "$name" ]] || found=$peer
		done
		[[ -n $found ]] || die "'$name' is none of ${PEERS[*]%@*}"
		wanted+=("$found")
	done
fi

export PATH="$HOME/.cargo/bin:$PATH"
command -v cargo >/dev/null || die "cargo is missing: run make setup"
mkdir -p "$CACHE/peers"
# Two clones share one cache; the lock goes when the script ends.
exec 9>"$CACHE/peers/lock"
flock -w 1800 9 || die "another peers.sh still holds $CACHE/peers/lock"

missing=()
for peer in "${wanted[@]}"; do
	is_installed "$peer" && say "$peer is there already" || missing+=("$peer")
done
for peer in "${missing[@]}"; do
	say "building $peer (${#missing[@]} in all)"
	# From the cache folder: this project's own .cargo/config.toml is not for them, but for the name of clang.
	(cd "$CACHE/peers" && BPF_CLANG=${BPF_CLANG:-clang-19} CARGO_TARGET_DIR=$CACHE/peers/target \
		cargo install --quiet --locked --root "$CACHE/peers" --force "$peer") || die "building $peer failed"
	"$CACHE/peers/bin/${peer%@*}" --version >/dev/null || die "$peer was built but does not run"
done
say "ready: ${wanted[*]} in $CACHE/peers/bin"
