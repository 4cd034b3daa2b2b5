// SPDX-License-Identifier: GPL-2.0-only
//! Runs a command under a kernel with sched_ext, in a VM of any CPU topology.
//!
//! The guest boots by virtme-ng on this machine's own file system, read-only, so whatever is built here runs there:
//! working folder, `PATH` and `SCX_RL_*` variables are kept, `/tmp` is its own, and one folder (`--rwdir`) is writable.
//! In its subfolder `vm` stay `console.log`, `dmesg.txt` and `exit-code`. `scripts/setup.sh` and
//! `scripts/fetch-kernel.sh` install what this needs.
//!
//! Reading order: `topology` (the shape), `kernel` (which one), `accel` (KVM or emulation), `boot` (one run), `guest`
//! and `guest.sh` (the other side), `group` (ending processes).

mod accel;
mod boot;
mod direct;
mod group;
mod guest;
mod kernel;
mod topology;

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;

pub use accel::Accel;
use boot::Boot;
use kernel::Kernel;
pub use topology::Topology;

/// The longest `--timeout`: a week.
const TIMEOUT_MAX_S: u64 = 7 * 86_400;
/// Age at which the folder of a run without `--rwdir` is removed: no run can still be using it.
const RUN_KEPT: Duration = Duration::from_secs(TIMEOUT_MAX_S + 86_400);
/// Output of a guest that [`Vm::run`] keeps, in bytes.
const OUTPUT_MAX: usize = 16 << 20;

/// Why there is no exit code of a guest's command.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// Something that has to be installed or fetched first; the text names the command.
    #[error("{0}")]
    Unavailable(String),
    /// A request that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The guest ended without the command's exit code.
    #[error("{end} {phase}; the end of its console ({}):\n{tail}", log.display())]
    Guest {
        /// What happened.
        end: GuestEnd,
        /// How far it came, for the message.
        phase: &'static str,
        /// The console's file.
        log: PathBuf,
        /// Its last lines, indented.
        tail: String,
    },
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
    /// The host failed: a file, a process.
    #[error("{0:#}")]
    Host(#[from] anyhow::Error),
}

/// How a guest ended without the command's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GuestEnd {
    /// It was stopped after this time.
    #[error("stopped after {} s", .0.as_secs())]
    Timeout(Duration),
    /// It was stopped because its command had printed nothing for this time.
    #[error("stopped after {} s without output", .0.as_secs())]
    Silent(Duration),
    /// It was stopped because it had not started the command after this time.
    #[error("stopped after {} s of booting", .0.as_secs())]
    NotBooted(Duration),
    /// It was stopped because a timer of its kernel, long due, did not fire.
    #[error("stopped because a timer of its kernel did not fire for many seconds")]
    TimerLost,
    /// Its kernel panicked or oopsed.
    #[error("the guest's kernel crashed")]
    Panic,
    /// It powered off, or QEMU ended.
    #[error("the guest ended without an exit code")]
    Died,
}

/// Run a command in a VM whose kernel has sched_ext.
///
/// The guest sees this machine's files read-only, has its own /tmp, and may write the one folder --rwdir. The command's
/// output and exit code become this command's. Without a command: a shell.
#[derive(Debug, Clone, clap::Args)]
pub struct VmArgs {
    /// A release or its beginning (6.18), a kernel image, or a folder with one [default: 6.17, or else the cache's newest that works]
    #[arg(long)]
    pub kernel: Option<String>,
    /// Logical CPUs
    #[arg(long, default_value_t = 4)]
    pub cpus: u32,
    /// Last-level caches, among which the CPUs are dealt out evenly
    #[arg(long, default_value_t = 2)]
    pub llcs: u32,
    /// NUMA nodes, among which the LLCs are dealt out evenly
    #[arg(long, default_value_t = 1)]
    pub nodes: u32,
    /// Two hardware threads per core
    #[arg(long)]
    pub smt: bool,
    /// Memory of the whole guest, like 2G or 768M
    #[arg(long, default_value = "2G")]
    pub memory: String,
    /// Seconds after which the guest is stopped, booting included; not for a shell
    #[arg(long, default_value_t = 600, value_name = "SEC", value_parser = clap::value_parser!(u64).range(1..=TIMEOUT_MAX_S))]
    pub timeout: u64,
    /// The one folder that the guest may write; logs go to its subfolder vm [default: a new one in the cache]
    #[arg(long, value_name = "DIR")]
    pub rwdir: Option<PathBuf>,
    /// How the guest's CPUs are made
    #[arg(long, value_enum, default_value_t)]
    pub accel: Accel,
    /// No VM: run the command on this machine, whose kernel must have sched_ext
    #[arg(long, conflicts_with_all = ["kernel", "cpus", "llcs", "nodes", "smt", "memory", "accel"])]
    pub direct: bool,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// The subcommand `vm`: runs the command, its output going to stdout as it comes, and gives its exit code.
///
/// # Errors
/// A [`VmError`]; callers may downcast to it.
pub fn run(args: &VmArgs) -> anyhow::Result<i32> {
    let timeout = Duration::from_secs(args.timeout);
    if args.direct {
        let rwdir = writable_folder(args.rwdir.as_deref())?;
        return Ok(direct::run(&args.command, timeout, &records_of(&rwdir))?);
    }
    let vm = Vm {
        kernel: args.kernel.clone(),
        topology: Shape { cpus: args.cpus, llcs: args.llcs, nodes: args.nodes, smt: args.smt },
        memory: args.memory.clone(),
        timeout,
        silence: Duration::MAX,
        rwdir: args.rwdir.clone(),
        accel: args.accel,
    };
    if args.command.is_empty() {
        if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
            let reason = "no command after --, and this is no terminal for a shell".to_owned();
            return Err(VmError::Invalid(reason).into());
        }
        return Ok(vm.with_boot(&[], |boot| boot.shell())?);
    }
    let mut stdout = std::io::stdout().lock();
    let mut open = true;
    let ended = vm.with_boot(&args.command, |boot| {
        // A reader that went away (`| head`) must not end the run: what it does may matter more than what it prints.
        boot.run(&mut |bytes| open = open && stdout.write_all(bytes).and_then(|()| stdout.flush()).is_ok())
    })?;
    Ok(ended.code)
}

/// A VM for tests and experiments, with the same defaults as [`VmArgs`].
///
/// ```no_run
/// # use std::time::Duration;
/// # use scx_rl::vm::Vm;
/// let output = Vm::new().cpus(8).llcs(4).nodes(2).timeout(Duration::from_secs(60)).run("nproc; exit 7")?;
/// assert_eq!((output.code, output.stdout.trim()), (7, "8"));
/// # Ok::<(), scx_rl::vm::VmError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Vm {
    kernel: Option<String>,
    topology: Shape,
    memory: String,
    timeout: Duration,
    silence: Duration,
    rwdir: Option<PathBuf>,
    accel: Accel,
}

/// A [`Topology`] that is not checked yet.
#[derive(Debug, Clone, Copy)]
struct Shape {
    cpus: u32,
    llcs: u32,
    nodes: u32,
    smt: bool,
}

/// What came out of a guest that ended properly.
#[derive(Debug, Clone)]
pub struct VmOutput {
    /// Exit code of the script.
    pub code: i32,
    /// Its output and errors as they came; the first 16 MiB.
    pub stdout: String,
    /// The guest's kernel log at the end of the script.
    pub dmesg: String,
    /// From starting virtme-run to the start of the script.
    pub boot_time: Option<Duration>,
}

impl Default for Vm {
    fn default() -> Self {
        Self {
            kernel: None,
            topology: Shape { cpus: 4, llcs: 2, nodes: 1, smt: false },
            memory: "2G".to_owned(),
            timeout: Duration::from_secs(600),
            silence: Duration::MAX,
            rwdir: None,
            accel: Accel::Auto,
        }
    }
}

impl Vm {
    /// Four CPUs in two LLCs, 2 GiB, the cache's newest kernel, ten minutes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Logical CPUs.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.topology.cpus = cpus;
        self
    }

    /// Last-level caches of equal size.
    pub fn llcs(mut self, llcs: u32) -> Self {
        self.topology.llcs = llcs;
        self
    }

    /// NUMA nodes of equal size.
    pub fn nodes(mut self, nodes: u32) -> Self {
        self.topology.nodes = nodes;
        self
    }

    /// Two hardware threads per core.
    pub fn smt(mut self, smt: bool) -> Self {
        self.topology.smt = smt;
        self
    }

    /// Memory of the whole guest, like `2G` or `768M`.
    pub fn memory(mut self, memory: &str) -> Self {
        memory.clone_into(&mut self.memory);
        self
    }

    /// Limit of the whole run, booting included.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Stop a guest whose command prints nothing for this time, booting included. For commands that print often: a
    /// guest that hangs is noticed long before its time is up.
    pub fn silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// A release or its beginning (`6.18`), an image, or a folder with one.
    pub fn kernel(mut self, kernel: &str) -> Self {
        self.kernel = Some(kernel.to_owned());
        self
    }

    /// The one folder that the guest may write.
    pub fn rwdir(mut self, rwdir: impl Into<PathBuf>) -> Self {
        self.rwdir = Some(rwdir.into());
        self
    }

    /// How the guest's CPUs are made.
    pub fn accel(mut self, accel: Accel) -> Self {
        self.accel = accel;
        self
    }

    /// Runs a shell script in a new guest and waits for its end.
    ///
    /// # Errors
    /// [`VmError::Unavailable`] when no VM can run on this machine; the others when this one did not.
    pub fn run(&self, script: &str) -> Result<VmOutput, VmError> {
        self.run_watched(script, &mut |_| ())
    }

    /// As [`Vm::run`], and hands on the output as it comes. Should the guest have to boot again, it comes again.
    ///
    /// # Errors
    /// As [`Vm::run`].
    pub fn run_watched(&self, script: &str, on_output: &mut dyn FnMut(&[u8])) -> Result<VmOutput, VmError> {
        let command = ["bash", "-c", script].map(str::to_owned);
        self.with_boot(&command, |boot| {
            let mut output = Vec::new();
            let ended = boot.run(&mut |bytes| {
                on_output(bytes);
                output.extend_from_slice(&bytes[..bytes.len().min(OUTPUT_MAX - output.len())]);
            })?;
            let dmesg = fs::read(boot.records.join("dmesg.txt")).context("reading the guest's kernel log")?;
            Ok(VmOutput {
                code: ended.code,
                stdout: String::from_utf8_lossy(&output).into_owned(),
                dmesg: String::from_utf8_lossy(&dmesg).into_owned(),
                boot_time: ended.boot_time,
            })
        })
    }

    /// Finds all that a boot needs and hands it on.
    fn with_boot<T>(&self, command: &[String], mut f: impl FnMut(&Boot) -> Result<T, VmError>) -> Result<T, VmError> {
        let Shape { cpus, llcs, nodes, smt } = self.topology;
        let topology = Topology::new(cpus, llcs, nodes, smt, &self.memory)?;
        let cache = cache_folder()?;
        let kernel = Kernel::find(self.kernel.as_deref(), &cache)?;
        check_tools(&cache)?;
        let kvm = self.accel.use_kvm(&cache, &kernel)?;
        if kernel.config.is_none() {
            log::warn!("no configuration beside {}: some schedulers will not load", kernel.image.display());
        }
        let rwdir = writable_folder(self.rwdir.as_deref())?;
        let cwd = std::env::current_dir().context("finding the working folder")?;
        log::info!("{} with {topology}, {}", kernel.release, if kvm { "KVM" } else { "emulated" });
        let boot = Boot {
            cache: &cache,
            kernel: &kernel,
            topology: &topology,
            kvm,
            timeout: self.timeout,
            silence: self.silence,
            rwdir: &rwdir,
            records: &records_of(&rwdir),
            cwd: &cwd,
            command,
        };
        for _ in 1..BOOTS_MAX {
            let outcome = f(&boot);
            let why = match &outcome {
                Err(VmError::Guest { end, log, .. }) if !kvm => lost_to_emulation(*end, log),
                _ => None,
            };
            let Some(why) = why else { return outcome };
            log::warn!("{why}: booting again");
        }
        f(&boot)
    }
}

/// Boots of one run, at most: see [`lost_to_emulation`].
const BOOTS_MAX: u32 = 3;

/// Did the guest die of QEMU's emulation, and how? That says nothing about the command.
fn lost_to_emulation(end: GuestEnd, console: &Path) -> Option<&'static str> {
    match end {
        GuestEnd::NotBooted(_) => return Some("the emulated guest did not come to the command"),
        GuestEnd::TimerLost => return Some("an emulated CPU lost its timer"),
        _ => {}
    }
    let bytes = fs::read(console).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    // A kernel that patches its own code, as it does when a scheduler is attached, has a breakpoint in it for a moment; under
    // emulation another CPU now and then runs into it after that. It happens without any scheduler, too.
    if text.contains("Oops: int3") {
        return Some("the emulated kernel died while it patched its own code (Oops: int3)");
    }
    // Seen while the kernel places PCI devices in memory: "iotlb_to_section: Assertion `section_index < ...' failed."
    let asserted = |line: &str| line.contains("qemu-system-x86_64: ") && line.contains("Assertion `");
    text.lines().any(asserted).then_some("QEMU died of an assertion of its own")
}

/// Where `scripts/setup.sh` puts things: `$SCX_RL_CACHE`, or `scx_rl` in the user's cache folder.
///
/// # Errors
/// Neither is known.
pub fn cache_folder() -> Result<PathBuf, VmError> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("SCX_RL_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|base| base.join("scx_rl")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/scx_rl")))
        .ok_or_else(|| VmError::Unavailable("neither HOME nor SCX_RL_CACHE is set: set one of them".to_owned()))
        .and_then(|cache| Ok(std::path::absolute(&cache).context("resolving the cache folder")?))
}

fn check_tools(cache: &Path) -> Result<(), VmError> {
    let on_path = |name: &str| {
        std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()))
    };
    let tools = [
        ("virtme-ng", cache.join("venv/bin/virtme-run").is_file()),
        ("virtiofsd", cache.join("bin/virtiofsd").is_file()),
        ("qemu-system-x86_64", on_path("qemu-system-x86_64")),
    ];
    match tools.iter().find(|(_, found)| !found) {
        Some((name, _)) => Err(VmError::Unavailable(format!("the VM needs {name}: run `make setup`"))),
        None => Ok(()),
    }
}

/// Absolute, created, without symbolic links: `rwdir`, or a new folder in the cache.
fn writable_folder(rwdir: Option<&Path>) -> Result<PathBuf, VmError> {
    let folder = match rwdir {
        Some(folder) => folder.to_owned(),
        None => {
            let runs = cache_folder()?.join("runs");
            forget_old_runs(&runs);
            let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            runs.join(format!("{now_ms}-{}", std::process::id()))
        }
    };
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(fs::canonicalize(&folder).with_context(|| format!("resolving {}", folder.display()))?)
}

fn forget_old_runs(runs: &Path) {
    let Ok(folders) = fs::read_dir(runs) else { return };
    let age = |folder: &fs::DirEntry| folder.metadata().ok()?.modified().ok()?.elapsed().ok();
    for folder in folders.flatten().filter(|folder| age(folder).is_some_and(|age| age > RUN_KEPT)) {
        if let Err(error) = fs::remove_dir_all(folder.path()) {
            log::debug!("{} is not removed: {error}", folder.path().display());
        }
    }
}

/// Where logs and exit code go in the writable folder.
fn records_of(rwdir: &Path) -> PathBuf {
    rwdir.join("vm")
}

#[cfg(test)]
mod race_tests {
    use super::*;

    #[test]
    fn only_the_race_of_emulation_boots_again() {
        let console = std::env::temp_dir().join(format!("scx_rl-console-{}", std::process::id()));
        fs::write(&console, "[    1.57] Oops: int3: 0000 [#1] SMP NOPTI\n").unwrap();
        assert!(lost_to_emulation(GuestEnd::Died, &console).is_some());
        let assertion = "[    1.49] pci 0000:00:06.0\nqemu-system-x86_64: system/physmem.c:2678: iotlb_to_section: Assertion `x' failed.\n";
        fs::write(&console, assertion).unwrap();
        assert!(lost_to_emulation(GuestEnd::Died, &console).is_some());
        fs::write(&console, "[    1.57] Kernel panic - not syncing: sysrq triggered crash\n").unwrap();
        assert_eq!(lost_to_emulation(GuestEnd::Died, &console), None);
        fs::remove_file(&console).unwrap();
        assert_eq!(lost_to_emulation(GuestEnd::Died, &console), None, "a missing log is no evidence");
    }
}
