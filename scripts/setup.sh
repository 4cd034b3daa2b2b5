#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Usage: setup.sh [suite]
#
# Makes a Debian 12 machine able to build and test scx_rl; with `suite`, also to run the workloads of `scx_rl suite`. It
# may be run again at any time: what is there is left alone. Outside of installed packages it writes only to the cache
# folder. (Debian starts the services of nginx and postgresql when it installs them; the suite uses neither.)
set -euo pipefail

CACHE=${SCX_RL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/scx_rl}
PACKAGES=(
	clang-19 clang-format-19 llvm-19 libclang1-19        # BPF objects and bindgen
	gcc make pkg-config libc6-dev libelf-dev zlib1g-dev  # libbpf, vendored by the scx crates
	git ca-certificates util-linux python3-venv shellcheck
	qemu-system-x86 kmod zstd xz-utils file iproute2     # the VM
	systemd procps                                       # in it: scx_rl as a service
	libcap-ng-dev libseccomp-dev                         # virtiofsd
	stress-ng sysbench rt-tests                          # workloads; rt-tests has hackbench and cyclictest
)
SUITE_PACKAGES=(fio nginx-light apache2-bin wrk postgresql linux-perf)
VIRTME_NG=1.42
VIRTIOFSD=1.14.0
RUST_MINOR=91 # Cargo.toml's rust-version is 1.91

say() { printf '[setup %3ds] %s\n' "$SECONDS" "$*"; }
die() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

as_root() {
	if ((EUID == 0)); then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "needs root for: $*. Run it as root, or install sudo."
	fi
}

apt_updated=
apt_install() {
	command -v apt-get >/dev/null || die "no apt-get here; this script knows Debian 12. Install by hand: $*"
	if [[ -z $apt_updated ]]; then
		say "apt-get update"
		as_root apt-get -qq -o DPkg::Lock::Timeout=300 update
		apt_updated=1
	fi
	say "installing $*"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 \
		-o Dpkg::Use-Pty=0 install "$@" >/dev/null
}

rust_ok() {
	local version
	version=$(cargo --version 2>/dev/null) && [[ $version =~ ^cargo\ 1\.([0-9]+) ]] &&
		((BASH_REMATCH[1] >= RUST_MINOR)) && cargo clippy --version && cargo fmt --version
} >/dev/null 2>&1

# Under emulation, a guest that patches its own code (as it does when a scheduler is attached) sometimes dies with
# "Oops: int3", with QEMU 7.2 far more often than with a newer one. Debian 12's backports have that; apt's own sources
# stay as they are. Where it cannot be had, the older one serves.
newer_qemu() {
	local version mirror dir=$CACHE/apt/qemu
	version=$(dpkg-query -W -f '${Version}' qemu-system-x86)
	if dpkg --compare-versions "${version#*:}" ge 8.1 || ! grep -q '^VERSION_CODENAME=bookworm' /etc/os-release; then
		return 0
	fi
	say "installing a newer QEMU than $version from bookworm-backports"
	# shellcheck disable=SC2016 # apt expands these
	mirror=$(apt-get indextargets --format '$(SITE) $(CODENAME)' 'Created-By: Packages' |
		awk '$2 == "bookworm" { print $1; exit }')
	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm-backports main" >"$dir/sources.list"
	local private=(-qq -o Dir::Etc::SourceList="$dir/sources.list" -o Dir::State::Lists="$dir/lists"
		-o Dir::Cache="$dir/cache" -o APT::Sandbox::User=root -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0
		-o Acquire::Check-Valid-Until=false)
	if ! { as_root apt-get "${private[@]}" update &&
		as_root env DEBIAN_FRONTEND=noninteractive apt-get "${private[@]}" -y --no-install-recommends \
			-t bookworm-backports install qemu-system-x86 >/dev/null; }; then
		say "that failed; QEMU $version stays"
	fi
}

install_rust() {
	if command -v rustup >/dev/null; then
		say "installing Rust's stable toolchain with rustup, for this folder only"
		rustup toolchain install stable --profile minimal --component clippy,rustfmt
		rustup override set stable
	elif apt-cache policy rust-web-all 2>/dev/null | grep -q 'Candidate: [0-9]'; then
		apt_install rust-web-all
	elif [[ -z $apt_updated ]]; then # a machine whose package lists were never read
		apt_install ca-certificates
		install_rust
	fi
}

case $* in
'') ;;
suite) PACKAGES+=("${SUITE_PACKAGES[@]}") ;;
*) die "'$*' is not suite, the one thing that can be added" ;;
esac

cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"
mkdir -p "$CACHE"

# Two clones share one cache; the lock goes when the script ends.
exec 9>"$CACHE/setup.lock"
flock -n 9 || { say "another set-up is at work, waiting for it (15 minutes at most)"; flock -w 900 9; } ||
	die "another set-up still holds $CACHE/setup.lock"

installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' 2>/dev/null || true)
missing=()
for package in "${PACKAGES[@]}"; do
	grep -qx "$package installed" <<<"$installed" || missing+=("$package")
done
((${#missing[@]} == 0)) || apt_install "${missing[@]}"
newer_qemu

rust_ok || install_rust
rust_ok || die "needs Rust >= 1.$RUST_MINOR with clippy and rustfmt; install it from https://rustup.rs and run this again"

if [[ ! -x $CACHE/venv/bin/vng || ! -d $(echo "$CACHE"/venv/lib/python3*/site-packages/virtme_ng-"$VIRTME_NG".dist-info) ]]; then
	say "installing virtme-ng $VIRTME_NG into $CACHE/venv"
	rm -rf "$CACHE/venv"
	python3 -m venv "$CACHE/venv"
	"$CACHE/venv/bin/pip" install --quiet --disable-pip-version-check "virtme-ng==$VIRTME_NG"
fi

if ! "$CACHE/bin/virtiofsd" --version 2>/dev/null | grep -qF "$VIRTIOFSD"; then
	say "building virtiofsd $VIRTIOFSD into $CACHE/bin (about a minute)"
	# Its own target folder: this project's .cargo/config.toml and target/ are not for it.
	(cd "$CACHE" && cargo install --quiet --locked --root "$CACHE" --force "virtiofsd@$VIRTIOFSD")
fi

say "ready: $(cargo --version), virtme-ng $VIRTME_NG, virtiofsd $VIRTIOFSD in $CACHE"
