// SPDX-License-Identifier: GPL-2.0-only
//! KVM or emulation? `/dev/kvm` may exist and still not run a guest (nested, filtered), so it is tried once per boot of
//! the host, and the answer kept in the cache folder.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::Duration;

use super::boot::Boot;
use super::kernel::Kernel;
use super::topology::Topology;
use super::{VmError, records_of};

/// How the guest's CPUs are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Accel {
    /// KVM where it runs a guest, otherwise emulation.
    #[default]
    Auto,
    /// Hardware virtualisation.
    Kvm,
    /// QEMU's emulation: works everywhere, several times slower, and without real caches.
    Tcg,
}

/// A guest under KVM needs about two seconds for `true`.
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

impl Accel {
    /// Whether to use KVM.
    ///
    /// # Errors
    /// [`VmError::Unavailable`] when KVM is asked for and does not run guests here.
    pub(super) fn use_kvm(self, cache: &Path, kernel: &Kernel) -> Result<bool, VmError> {
        if self == Accel::Tcg {
            return Ok(false);
        }
        match (kvm_works(cache, kernel), self) {
            (Ok(()), _) => Ok(true),
            (Err(why), Accel::Kvm) => Err(VmError::Unavailable(format!("{why}: use --accel tcg"))),
            (Err(why), _) => {
                log::info!("{why}: the guest is emulated");
                Ok(false)
            }
        }
    }
}

/// `Err` says why not.
fn kvm_works(cache: &Path, kernel: &Kernel) -> Result<(), String> {
    if OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        return Err("/dev/kvm is not there or not accessible".to_owned());
    }
    const NO: &str = "/dev/kvm is there but does not run a guest";
    let host = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let answer = cache.join("kvm");
    let verdict = |works: bool| if works { Ok(()) } else { Err(NO.to_owned()) };
    match fs::read_to_string(&answer).ok().as_deref().and_then(|text| text.split_once(' ')) {
        Some((boot_id, works)) if boot_id == host.trim() => return verdict(works.trim() == "yes"),
        _ => {}
    }
    log::info!("trying whether /dev/kvm runs a guest (once per boot of this machine)");
    let works = probe(cache, kernel);
    if let Err(error) = fs::write(&answer, format!("{} {}\n", host.trim(), if works { "yes" } else { "no" })) {
        log::warn!("{} cannot be written, KVM will be tried again: {error}", answer.display());
    }
    verdict(works)
}

/// Boots a guest that does nothing. It must say itself that it runs on KVM: QEMU falls back to emulation silently.
fn probe(cache: &Path, kernel: &Kernel) -> bool {
    let rwdir = cache.join(format!("runs/kvm-probe-{}", std::process::id()));
    let topology = Topology::small();
    let command = ["true".to_owned()];
    let boot = Boot {
        cache,
        kernel,
        topology: &topology,
        kvm: true,
        timeout: PROBE_TIMEOUT,
        silence: Duration::MAX,
        rwdir: &rwdir,
        records: &records_of(&rwdir),
        cwd: Path::new("/"),
        command: &command,
    };
    let ended = boot.run(&mut |_| {});
    let dmesg = fs::read_to_string(boot.records.join("dmesg.txt")).unwrap_or_default();
    if let Err(error) = &ended {
        log::debug!("the probe of KVM: {error}");
    }
    let _ = fs::remove_dir_all(&rwdir);
    ended.is_ok_and(|ended| ended.code == 0) && dmesg.contains("Hypervisor detected: KVM")
}
