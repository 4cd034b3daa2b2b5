# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2154
# The guest's side: runs as root after virtme-ng's init, with these set above by src/vm/guest.rs:
#   results  the folder (host's, writable) for exit-code and dmesg.txt      port  name of the port for the output
#   config   the kernel's build configuration, or empty                     cwd   where the command runs
#   "$@"     the command; without one, an interactive shell
# Nothing here is fatal but what the command itself needs: its own error says more than ours could.

for fs in 'bpf /sys/fs/bpf' 'tracefs /sys/kernel/tracing' 'debugfs /sys/kernel/debug' 'cgroup2 /sys/fs/cgroup'; do
	grep -q " ${fs#* } " /proc/mounts || mount -t "${fs%% *}" "${fs%% *}" "${fs#* }"
done

# libbpf reads the configuration from here for __kconfig variables; Debian's kernels have no /proc/config.gz.
if [ -n "$config" ]; then
	mount -t tmpfs boot /boot && cp "$config" "/boot/config-$(uname -r)"
	# For commands that want a root file system which can be changed: the only module, beside the kernel.
	overlay=${config%/*}/overlay-$(uname -r).ko
	[ ! -e "$overlay" ] || insmod "$overlay"
fi

# An own, empty /tmp, in which only the host folders that the run needs stay visible.
tmp=/run/scx_rl-tmp
mkdir -p $tmp && mount -t tmpfs -o mode=1777 tmp $tmp
for path in "$cwd" "$results" "$@"; do
	case $path in /tmp/*) ;; *) continue ;; esac
	top=${path#/tmp/}
	top=${top%%/*}
	if [ ! -e "/tmp/$top" ] || [ -e "$tmp/$top" ]; then continue; fi
	if [ -d "/tmp/$top" ]; then mkdir "$tmp/$top"; else : >"$tmp/$top"; fi
	mount --rbind "/tmp/$top" "$tmp/$top"
done
mount --move $tmp /tmp

# virtme-ng points these at its own ports, which only one process may open.
ln -sfn /proc/self/fd/1 /dev/stdout
ln -sfn /proc/self/fd/2 /dev/stderr

unset nr_open raid # of the kernel's command line
cd "$cwd" || echo "scx_rl: no $cwd in the guest" >/dev/kmsg
if [ $# -eq 0 ]; then
	exec bash -i
fi

# A port takes one writer, so a reader of a pipe is that writer and the command may open /dev/stdout as it likes.
out=/dev/null
for p in /sys/class/virtio-ports/*; do
	[ "$(cat "$p/name")" != "$port" ] || out=/dev/${p##*/}
done
mkfifo /run/scx_rl.out
cat /run/scx_rl.out >"$out" &
reader=$!

# An emulated CPU whose timer got lost while booting would hang whatever sleeps on it. It shall hang here: the host sees
# that the command did not start, and boots again.
for cpu in $(seq 0 $(($(nproc) - 1))); do
	taskset -c "$cpu" sleep 0.01
done

echo 'scx_rl: the command starts' >/dev/kmsg
"$@" </dev/null >/run/scx_rl.out 2>&1
code=$?
# A daemon that the command left behind may hold the pipe open: do not wait for it for long.
timeout 5 tail --pid=$reader -f /dev/null
dmesg >"$results/dmesg.txt"
echo $code >"$results/exit-code.new"
mv "$results/exit-code.new" "$results/exit-code"
sync
