#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Usage: fetch-kernel.sh [VERSION...]      VERSION: 6.18, 6.17.13, 7.2 ...
#
# Unpacks Debian kernels with sched_ext into the cache folder, for the VM. Without a VERSION: the first series of the list
# below that can be had. Uses an apt directory of its own; the system's apt configuration, /boot and /lib/modules stay
# untouched. A kernel that is unpacked already needs no network. Only the image, its configuration and one module are kept
# ($CACHE/kernels/RELEASE/{vmlinuz,config,overlay}-RELEASE): all else that the VM needs is built in.
set -euo pipefail

CACHE=${SCX_RL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/scx_rl}
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
SERIES=(6.17 6.18 6.16 7.2)
# The kfunc BTF of these is malformed: no sched_ext scheduler loads. src/vm/kernel.rs has the same list.
BROKEN='^(7\.1\.13|7\.2\.12\+deb13)'

say() { printf '[kernel %3ds] %s\n' "$SECONDS" "$*"; }
die() { printf 'fetch-kernel: error: %s\n' "$*" >&2; exit 1; }

# 7.x comes from sid, split into packages; the others from trixie-backports, in one.
suite_of() { [[ $1 == 7* ]] && echo sid || echo trixie-backports; }
package_of() { [[ $1 == 7* ]] && echo linux-binary- || echo linux-image-; }

# apt with all of its state in the cache folder, for one suite. A mirror that lags is good enough for a test kernel; the
# signature is checked all the same.
private_apt() {
	local tool=$1 suite=$2 dir
	dir=$CACHE/apt/$suite
	shift 2
	"$tool" -qq -o Dir::Etc::SourceList="$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State::Lists="$dir/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$dir/cache" \
		-o APT::Sandbox::User=root -o APT::Architecture=amd64 -o APT::Architectures::=amd64 \
		-o Acquire::Languages=none -o Acquire::Retries=3 -o Acquire::Check-Valid-Until=false "$@"
}

updated=' '
update() {
	local suite=$1 dir=$CACHE/apt/$1 mirror
	[[ $updated != *" $suite "* ]] || return 0
	# The system's own mirror, whatever it is, carries the other suites too.
	# shellcheck disable=SC2016 # apt expands these
	mirror=$(apt-get indextargets --format '$(SITE) $(CODENAME)' 'Created-By: Packages' |
		awk -v name="$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)" '$2 == name { print $1; exit }')
	[[ -n $mirror ]] || die "apt knows no Debian mirror here; add one to /etc/apt/sources.list"
	[[ -r $KEYRING ]] || die "$KEYRING is missing: apt-get install debian-archive-keyring"
	say "reading the package list of $suite"
	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
	echo "deb [signed-by=$KEYRING] $mirror $suite main" >"$dir/sources.list"
	private_apt apt-get "$suite" update || die "cannot read the package list of $suite"
	updated+="$suite "
}

# The unpacked kernel that a version stands for, newest first: "6.18" is 6.18.15+deb13-cloud-amd64 but not 6.180.
unpacked() {
	find "$CACHE/kernels" -mindepth 2 -maxdepth 2 -name "vmlinuz-$1*" -printf '%f\n' 2>/dev/null |
		sed 's/^vmlinuz-//' | matching "$1"
}
matching() { grep -E "^${1//[.+]/\\&}([.+-]|\$)" | grep -Ev "$BROKEN" | sort -V | tail -1; }

fetch() {
	local version=$1 suite prefix release work package file path
	# An earlier version of this script left the module behind.
	if release=$(unpacked "$version") && { [[ $version == 7* ]] || [[ -s $CACHE/kernels/$release/overlay-$release.ko ]]; }; then
		say "$release is there already"
		return 0
	fi
	suite=$(suite_of "$version") prefix=$(package_of "$version")
	update "$suite"
	release=$(private_apt apt-cache "$suite" pkgnames "$prefix${version%%.*}." | sed "s/^$prefix//" |
		grep -E '\+deb1[34]-cloud-amd64$' | matching "$version") || return 1

	local packages=("$prefix$release")
	[[ $suite != sid ]] || packages+=("linux-base-$release")
	say "downloading ${packages[*]} from $suite"
	work=$CACHE/kernels/.new
	rm -rf "$work"
	mkdir -p "$work/tree" "$work/kernel"
	(cd "$work" && private_apt apt-get "$suite" download "${packages[@]}") || return 1
	for package in "$work"/*.deb; do
		dpkg -x "$package" "$work/tree" || return 1
	done
	for file in vmlinuz config; do
		for path in "$work/tree/boot/$file-$release" "$work/tree/usr/lib/modules/$release/$file"; do
			[[ ! -s $path ]] || mv "$path" "$work/kernel/$file-$release"
		done
		[[ -s $work/kernel/$file-$release ]] || die "${packages[*]} hold no $file"
	done
	# For a copy of the root file system that can be changed. (Of 7.x the modules are a package of their own, which no test needs.)
	path=$(find "$work/tree" -name 'overlay.ko*' -print -quit)
	case $path in
	*.ko) cp "$path" "$work/kernel/overlay-$release.ko" || return 1 ;;
	*.xz) xz --decompress --stdout "$path" >"$work/kernel/overlay-$release.ko" || return 1 ;;
	*) [[ $suite == sid ]] || die "${packages[*]} hold no overlay.ko" ;;
	esac
	rm -rf "$CACHE/kernels/$release"
	mv "$work/kernel" "$CACHE/kernels/$release" || return 1
	rm -rf "$work"
	say "unpacked $CACHE/kernels/$release"
}

for tool in apt-get apt-cache dpkg flock xz; do
	command -v "$tool" >/dev/null || die "$tool is missing; this script needs Debian's tools"
done
mkdir -p "$CACHE/kernels"
exec 9>"$CACHE/kernel.lock"
flock -w 900 9 || die "another fetch-kernel.sh still holds $CACHE/kernel.lock"

if (($#)); then
	for version; do
		[[ $version =~ ^[0-9]+\.[0-9] ]] || die "'$version' is no kernel version such as 6.18 or 6.17.13"
		fetch "$version" || die "no cloud-amd64 kernel $version in $(suite_of "$version"); series that work: ${SERIES[*]}"
	done
else
	for version in "${SERIES[@]}"; do
		fetch "$version" && exit 0
		say "no $version in $(suite_of "$version"), trying the next series"
	done
	die "none of ${SERIES[*]} can be had"
fi
