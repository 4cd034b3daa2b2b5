# SPDX-License-Identifier: GPL-2.0-only
# scx_rl as a service: install the Debian package into a copy of the root file system, boot that with systemd in a PID
# namespace of its own (the guest's init is another program), and watch what becomes of the scheduler.
. "${0%/*}/lib.sh"

R=/tmp/root DEB=${0%/tests/guest/*}/target/debian/scx_rl.deb
mkdir -p $R /tmp/changes
mount -t tmpfs changes /tmp/changes
mkdir /tmp/changes/upper /tmp/changes/work
mount -t overlay -o lowerdir=/,upperdir=/tmp/changes/upper,workdir=/tmp/changes/work root $R ||
	not_ok overlay "the root file system cannot be copied"
mount -t tmpfs run $R/run
mount -t tmpfs tmp $R/tmp
mount --rbind /dev $R/dev
mount -t proc proc $R/proc
mount -t sysfs sys $R/sys
mount -t cgroup2 cgroup $R/sys/fs/cgroup
mount -t bpf bpf $R/sys/fs/bpf
mount --bind /boot $R/boot # where libbpf finds the configuration of the kernel

cp "$DEB" $R/tmp/scx_rl.deb
chroot $R dpkg --install /tmp/scx_rl.deb >"$W/dpkg.log" 2>&1
check package-installs [ $? -eq 0 ]
check package-does-not-start-it state_is disabled
chroot $R systemctl enable scx_rl >>"$W/dpkg.log" 2>&1
check enabled [ -L $R/etc/systemd/system/multi-user.target.wants/scx_rl.service ]
# Of what else this machine starts nothing is of interest here, and a getty would hang up the guest's console.
others="console-getty getty@tty1 systemd-logind systemd-udevd systemd-networkd systemd-timesyncd systemd-update-utmp dbus"
for unit in "$R"/etc/systemd/system/*.wants/*.{service,timer} $others; do
	name=${unit##*/}
	case $name in
	scx_rl.service | '*'*) continue ;;
	*.*) ;;
	*) name=$name.service ;;
	esac
	ln -sf /dev/null "$R/etc/systemd/system/$name" # as systemctl mask
done

# The namespace's first process is a child of unshare.
container=other unshare --pid --fork --mount --uts --ipc --kill-child chroot $R \
	/bin/sh -c 'mount -t proc proc /proc; exec /lib/systemd/systemd --unit=multi-user.target' >"$W/systemd.log" 2>&1 </dev/null &
unshare=$!
child() { systemd=$(pgrep -P $unshare) && [ -n "$systemd" ]; }
wait_for 10 child || not_ok boot "no systemd: $(tail -3 "$W/systemd.log")"
inside() { nsenter -t "$systemd" -p -m -u -i chroot $R "$@"; }
is_active() { [ "$(inside systemctl is-active "$1" 2>/dev/null)" = active ]; }
main_pid() { inside systemctl show --property MainPID --value scx_rl; }
journal() { inside journalctl --no-pager --unit scx_rl 2>/dev/null; }

check starts-at-boot wait_for 90 is_active scx_rl
check attached-at-boot wait_for 30 state_is enabled
if ! state_is enabled; then
	{ inside systemctl status --no-pager scx_rl; journal; } >"$W/status.log" 2>&1
	tail -5 "$W/status.log"
	kill -KILL $unshare
	echo done
	exit
fi
check monitor inside timeout 20 sh -c 'scx_rl --monitor 1 2>/dev/null | grep -m 1 -q .'

# What it may do: BPF, PERFMON and SYS_NICE.
status=$(inside cat "/proc/$(main_pid)/status")
echo "capabilities: $(echo "$status" | grep CapEff)"
check none-in-effect [ "$(echo "$status" | awk '/CapEff/ { print $2 }')" = 0000000000000000 ]
check capabilities [ "$(echo "$status" | awk '/CapBnd/ { print $2 }')" = "000000c000800000" ]

load_start 200
before=$(main_pid)
inside systemctl restart scx_rl
check restart-under-load [ $? -eq 0 ]
check restarted [ "$(main_pid)" != "$before" ]
check attached-after-restart wait_for 30 state_is enabled

# A service that is killed comes back.
before=$(main_pid)
check is-killed pkill -KILL -x scx_rl
restarted() { [ "$(main_pid)" -gt 0 ] && [ "$(main_pid)" != "$before" ] && state_is enabled; }
check comes-back-when-killed wait_for 60 restarted

# It learns where the options say so, and finds its checkpoints again.
sed -i 's/^SCX_RL_OPTIONS=.*/SCX_RL_OPTIONS="--learn --continue --no-guard --checkpoint-every 2 --checkpoint-dir \/var\/lib\/scx_rl --prometheus"/' \
	$R/etc/default/scx_rl
inside systemctl reset-failed scx_rl # so many starts in a minute are too many
inside systemctl restart scx_rl
check learns-with-options wait_for 60 test -s $R/var/lib/scx_rl/latest.safetensors
scrape() { inside bash -c 'exec 3<>/dev/tcp/127.0.0.1/9764; printf "GET /metrics HTTP/1.0\r\n\r\n" >&3; grep -q scx_rl_ <&3'; }
check metrics wait_for 20 scrape
inside systemctl restart scx_rl
said() { journal >"$W/journal.log"; file_says "$W/journal.log" "$1"; }
check continues-what-it-learned wait_for 30 said 'resuming after [1-9][0-9]* updates'
load_stop

inside systemctl stop scx_rl
check stops-clean [ "$(inside systemctl show --property Result --value scx_rl)" = success ]
check default-scheduler-back wait_for 20 state_is disabled
journal >"$W/journal.log"
check attached-is-in-the-journal [ "$(grep -c attached: "$W/journal.log")" -ge 5 ]
check nothing-was-refused sh -c "! grep -qi 'not permitted\|denied' '$W/journal.log'"
inside systemd-analyze security --no-pager scx_rl >"$W/security.txt" 2>&1
echo "security: $(tail -1 "$W/security.txt")"

chroot $R dpkg --remove scx-rl >>"$W/dpkg.log" 2>&1
check package-leaves [ ! -e $R/usr/bin/scx_rl ]
check what-it-learned-stays [ -s $R/var/lib/scx_rl/latest.safetensors ]
chroot $R dpkg --purge scx-rl >>"$W/dpkg.log" 2>&1
check purge-leaves-nothing [ ! -e $R/var/lib/scx_rl -a ! -e $R/etc/default/scx_rl ]
kill -KILL $unshare
clean_dmesg
echo done
