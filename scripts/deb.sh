#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Usage: deb.sh
#
# Makes the Debian package from the release build: target/debian/scx_rl.deb. Installs cargo-deb into the cache folder.
set -euo pipefail

CACHE=${SCX_RL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/scx_rl}
CARGO_DEB=3.7.0

say() { printf '[deb %3ds] %s\n' "$SECONDS" "$*"; }
die() { printf 'deb: error: %s\n' "$*" >&2; exit 1; }

export PATH="$CACHE/deb/bin:$HOME/.cargo/bin:$PATH"
cd "$(dirname "$0")/.."
[[ -x target/release/scx_rl ]] || die "target/release/scx_rl is missing: run make build"
mkdir -p "$CACHE/deb"
# Two clones share one cache; the lock goes when the script ends.
exec 9>"$CACHE/deb/lock"
flock -w 1800 9 || die "another deb.sh still holds $CACHE/deb/lock"
if [[ $(cargo-deb --version 2>/dev/null) != *"$CARGO_DEB"* ]]; then
	say "installing cargo-deb $CARGO_DEB"
	cargo install --quiet --locked --no-default-features --root "$CACHE/deb" --force "cargo-deb@$CARGO_DEB" ||
		die "cargo-deb could not be installed"
fi

# Man pages and completions are written by the program itself.
rm -rf target/dist
mkdir -p target/dist
target/release/scx_rl man target/dist/man >/dev/null
for shell in bash zsh fish; do
	target/release/scx_rl completions "$shell" >"target/dist/scx_rl.$shell"
done
gzip --best --no-name target/dist/man/*.1
cargo deb --no-build --strip --quiet --output target/debian/scx_rl.deb >/dev/null
say "ready: target/debian/scx_rl.deb"
