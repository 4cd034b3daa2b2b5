// SPDX-License-Identifier: GPL-2.0-only
//! The VM itself: topologies, exit codes, output, and every way in which a guest may fail to end properly.

mod vm_support;

use std::path::Path;
use std::time::{Duration, Instant};

use scx_rl::vm::{Accel, GuestEnd, Vm, VmError};
use vm_support::run_or_skip;

/// Prints, for each CPU, who shares its last-level cache and its core, then the CPUs of each NUMA node.
const TOPOLOGY: &str = "cd /sys/devices/system
    for cpu in $(seq 0 $(($(nproc) - 1))); do
        echo $cpu llc $(cat cpu/cpu$cpu/cache/index3/shared_cpu_list) core $(cat cpu/cpu$cpu/topology/thread_siblings_list)
    done
    for node in node/node*; do echo ${node#*/} $(cat $node/cpulist); done";

fn lines(vm: Vm) -> Option<Vec<String>> {
    let output = run_or_skip(&vm, TOPOLOGY)?;
    assert_eq!(output.code, 0, "{output:?}");
    Some(output.stdout.lines().map(str::to_owned).collect())
}

#[test]
fn four_cpus_in_two_llcs() {
    let Some(lines) = lines(Vm::new().cpus(4).llcs(2)) else { return };
    assert_eq!(lines, ["0 llc 0-1 core 0", "1 llc 0-1 core 1", "2 llc 2-3 core 2", "3 llc 2-3 core 3", "node0 0-3"]);
}

#[test]
fn eight_cpus_in_four_llcs_in_two_nodes_with_smt() {
    let Some(lines) = lines(Vm::new().cpus(8).llcs(4).nodes(2).smt(true)) else { return };
    // Two CPUs make one core, which is all of an LLC.
    let cpu = |cpu: u32| format!("{cpu} llc {first}-{last} core {first}-{last}", first = cpu & !1, last = cpu | 1);
    let mut expected: Vec<_> = (0..8).map(cpu).collect();
    expected.extend(["node0 0-3".to_owned(), "node1 4-7".to_owned()]);
    assert_eq!(lines, expected);
}

#[test]
fn the_guest_is_as_schedulers_need_it() {
    let script = r#"
        exec 2>&1
        cat /sys/kernel/sched_ext/state
        test -s "/boot/config-$(uname -r)" && grep -c '^CONFIG_SCHED_CLASS_EXT=y' "/boot/config-$(uname -r)"
        for fs in /sys/fs/bpf /sys/kernel/tracing /sys/kernel/debug /sys/fs/cgroup /tmp; do mountpoint -q $fs || echo "no $fs"; done
        test -r /sys/kernel/btf/vmlinux || echo no BTF
        test -f Cargo.toml || echo "not in the project's folder"
        touch Cargo.toml 2>/dev/null && echo 'the host is writable'
        test -z "$(find /tmp -maxdepth 1 -type f)" || echo 'not an own /tmp'
        echo to the device >/dev/stdout
        echo from the script >/dev/kmsg
        sleep 1000 & # must not hold up the end
        exit 7"#;
    let start = Instant::now();
    let Some(output) = run_or_skip(&Vm::new().timeout(Duration::from_secs(120)), script) else { return };
    assert_eq!(output.stdout, "disabled\n1\nto the device\n");
    assert_eq!(output.code, 7);
    assert!(output.dmesg.contains("Linux version") && output.dmesg.contains("from the script"), "{}", output.dmesg);
    assert!(output.boot_time.is_some_and(|boot| boot > Duration::ZERO && boot < start.elapsed()));
}

#[test]
fn a_guest_past_its_time_is_stopped_soon() {
    let start = Instant::now();
    let Err(error) = vm_support::skip_unavailable(Vm::new().timeout(Duration::from_secs(5)).run("sleep 1000")) else {
        return;
    };
    assert!(matches!(error, VmError::Guest { end: GuestEnd::Timeout(_), .. }), "{error}");
    assert!(error.to_string().starts_with("stopped after 5 s"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn a_guest_that_says_nothing_is_stopped() {
    let Err(error) = vm_support::skip_unavailable(Vm::new().silence(Duration::from_secs(5)).run("sleep 1000")) else {
        return;
    };
    assert!(matches!(error, VmError::Guest { end: GuestEnd::Silent(_), .. }), "{error}");
    assert!(error.to_string().starts_with("stopped after 5 s without output"), "{error}");
}

#[test]
fn a_crashed_kernel_is_told_from_a_script_that_failed() {
    let Err(error) = vm_support::skip_unavailable(Vm::new().run("echo c >/proc/sysrq-trigger")) else { return };
    assert!(matches!(error, VmError::Guest { end: GuestEnd::Panic, .. }), "{error}");
    assert!(error.to_string().contains("Kernel panic - not syncing"), "the console's end is shown: {error}");
}

#[test]
fn a_guest_that_just_goes_away_is_an_error() {
    let Err(error) = vm_support::skip_unavailable(Vm::new().run("poweroff -f")) else { return };
    assert!(matches!(error, VmError::Guest { end: GuestEnd::Died, .. }), "{error}");
}

#[test]
fn a_guest_whose_timer_got_lost_boots_again() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("timer-lost");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let script = format!(
        "echo boot >>'{0}/boots'; if [ $(wc -l <'{0}/boots') = 1 ]; then \
         echo \"<3>rcu: rcu_preempt kthread timer wakeup didn't happen for 5251 jiffies!\" >/dev/kmsg; sleep 1000; fi",
        dir.display()
    );
    let Some(output) = run_or_skip(&Vm::new().accel(Accel::Tcg).rwdir(&dir), &script) else { return };
    assert_eq!(output.code, 0);
    assert_eq!(std::fs::read_to_string(dir.join("boots")).unwrap(), "boot\nboot\n");
}
