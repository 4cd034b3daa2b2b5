// SPDX-License-Identifier: GPL-2.0-only
//! Boots one guest, runs one command in it, and brings its output, exit code and logs back.
//!
//! Three ways lead out of the guest, so that none disturbs another: the kernel's console is virtme-run's own output and
//! goes to `console.log`; the command's output comes through a virtio port of its own, a socket here; the exit code is a
//! file in the shared folder, written last.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::group::{Group, interrupted};
use super::kernel::Kernel;
use super::topology::Topology;
use super::{GuestEnd, VmError, guest};

/// An emulated guest starts its command within some seconds. One that takes this long hangs: a virtual CPU lost its timer.
const BOOT_MAX: Duration = Duration::from_secs(60);

/// How often the end of the guest, the time and Ctrl-C are looked at.
const POLL: Duration = Duration::from_millis(20);
/// After the guest has ended, what is still under way from it may take this long.
const DRAIN: Duration = Duration::from_secs(2);
/// `timeout` ends a guest that outlived its owner this much after the guest's own limit.
const ORPHAN_EXTRA_S: u64 = 20;
/// Console lines that an error shows: the last ones, or, from the first sign of a crash on, what the kernel said of it.
const TAIL_LINES: usize = 25;
const CRASH_LINES: usize = 60;
const CRASH_SIGNS: [&str; 3] = ["BUG: ", "Oops: ", "Kernel panic"];
/// The kernel's own diagnosis, after 21 s: the thread of RCU sleeps on a timer that is long due. An interrupt is lost, not a
/// thread kept waiting: a scheduler cannot do that.
const TIMER_LOST: &str = "rcu_preempt kthread timer wakeup didn't happen";

/// What a boot needs. Folders are absolute.
pub(super) struct Boot<'a> {
    /// The cache folder with virtme-ng and virtiofsd.
    pub cache: &'a Path,
    pub kernel: &'a Kernel,
    pub topology: &'a Topology,
    /// Hardware virtualisation instead of emulation.
    pub kvm: bool,
    /// Of the whole run, booting included.
    pub timeout: Duration,
    /// Without output of the command, booting included.
    pub silence: Duration,
    /// The folder that the guest may write.
    pub rwdir: &'a Path,
    /// Where logs and exit code go: inside of `rwdir`.
    pub records: &'a Path,
    /// Where the command runs.
    pub cwd: &'a Path,
    pub command: &'a [String],
}

/// How a guest that ended properly did so.
pub(super) struct Ended {
    /// The command's exit code.
    pub code: i32,
    /// From the start of virtme-run to the start of the command, where the console told.
    pub boot_time: Option<Duration>,
}

/// Something came out of the guest.
enum Event {
    Console(Vec<u8>),
    Output(Vec<u8>),
}

impl Boot<'_> {
    /// Runs the command and gives its output to `sink` as it comes.
    ///
    /// # Errors
    /// [`VmError::Guest`] when the guest ended without an exit code, [`VmError::Interrupted`] after Ctrl-C.
    pub fn run(&self, sink: &mut dyn FnMut(&[u8])) -> Result<Ended, VmError> {
        if interrupted() {
            return Err(VmError::Interrupted);
        }
        self.write_script()?;
        let private = PrivateDir::new()?;
        let socket = private.0.join("out");
        let listener = UnixListener::bind(&socket).with_context(|| format!("binding {}", socket.display()))?;
        let (console, console_writer) = io::pipe().context("a pipe for the console")?;

        // For the case that this process is killed: nobody else would end the guest then.
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", &(self.timeout.as_secs() + ORPHAN_EXTRA_S).to_string()]);
        self.add_virtme_run(&mut command, &private.0);
        command.args(["--script-sh", &format!("bash {}", self.script().display()), "--show-boot-console", "--verbose"]);
        command.arg("--qemu-opts").args(port_args(&socket));
        let stderr = console_writer.try_clone().context("a pipe for the console")?;
        command.stdin(Stdio::null()).stdout(console_writer).stderr(stderr);
        let start = Instant::now();
        let mut group = Group::spawn(command).context("starting virtme-run")?;

        let (sender, events) = sync_channel(64);
        let stop = Arc::new(AtomicBool::new(false));
        forward_console(console, sender.clone());
        forward_output(listener, sender, Arc::clone(&stop));
        let mut log = ConsoleLog::new(&self.records.join("console.log"), start)?;
        let reason = self.watch(&mut group, &events, &mut log, start, sink);
        group.end().context("waiting for virtme-run")?;
        stop.store(true, Ordering::Relaxed);
        drain(&events, &mut log, sink);
        self.outcome(reason, log)
    }

    /// Passes on what comes until the guest ends, the time is up, or the user wants an end. `None`: it ended by itself.
    fn watch(
        &self,
        group: &mut Group,
        events: &Receiver<Event>,
        log: &mut ConsoleLog,
        start: Instant,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Option<VmError> {
        let heard = Cell::new(start);
        let mut sink = |bytes: &[u8]| {
            heard.set(Instant::now());
            sink(bytes);
        };
        while !group.ended() {
            if interrupted() {
                return Some(VmError::Interrupted);
            }
            if start.elapsed() >= self.timeout {
                return Some(self.lost(GuestEnd::Timeout(self.timeout), log));
            }
            if heard.get().elapsed() >= self.silence {
                return Some(self.lost(GuestEnd::Silent(self.silence), log));
            }
            if !self.kvm && log.boot_time.is_none() && start.elapsed() >= BOOT_MAX {
                return Some(self.lost(GuestEnd::NotBooted(BOOT_MAX), log));
            }
            if !self.kvm && log.timer_lost {
                return Some(self.lost(GuestEnd::TimerLost, log));
            }
            match events.recv_timeout(POLL) {
                Ok(event) => log.take(event, &mut sink),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(POLL),
            }
        }
        None
    }

    /// The exit code counts where there is one: the guest writes it when all else is done.
    fn outcome(&self, reason: Option<VmError>, log: ConsoleLog) -> Result<Ended, VmError> {
        let code = fs::read_to_string(self.records.join("exit-code")).ok().and_then(|text| text.trim().parse().ok());
        match (code, reason) {
            (_, Some(VmError::Interrupted)) => Err(VmError::Interrupted),
            (Some(code), _) => Ok(Ended { code, boot_time: log.boot_time }),
            (None, Some(error)) => Err(error),
            (None, None) if log.panicked => Err(self.lost(GuestEnd::Panic, &log)),
            (None, None) => Err(self.lost(GuestEnd::Died, &log)),
        }
    }

    fn lost(&self, end: GuestEnd, log: &ConsoleLog) -> VmError {
        let phase = if log.boot_time.is_some() { "while the command ran" } else { "before the command started" };
        VmError::Guest { end, phase, log: self.records.join("console.log"), tail: log.tail() }
    }

    /// A shell for a human, on this terminal.
    pub fn shell(&self) -> Result<i32, VmError> {
        self.write_script()?;
        let private = PrivateDir::new()?;
        let mut command = Command::new("env");
        self.add_virtme_run(&mut command, &private.0);
        let status = command.arg("--shell").arg(self.script()).status();
        Ok(status.context("starting virtme-run")?.code().unwrap_or(1))
    }

    fn script(&self) -> PathBuf {
        self.records.join("guest.sh")
    }

    /// Writes the guest's script and removes what an earlier run left.
    fn write_script(&self) -> Result<(), VmError> {
        use std::os::unix::fs::PermissionsExt;
        for folder in [self.rwdir, self.records] {
            refuse_unquotable(folder)?;
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        for name in ["exit-code", "console.log", "dmesg.txt"] {
            let file = self.records.join(name);
            if file.exists() {
                fs::remove_file(&file).with_context(|| format!("removing {} of an earlier run", file.display()))?;
            }
        }
        let variables = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        let config = self.kernel.config.as_deref();
        let text = guest::script(self.command, self.cwd, self.records, config, variables);
        let script = self.script();
        fs::write(&script, text).with_context(|| format!("writing {}", script.display()))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).context("making the script executable")?;
        Ok(())
    }

    /// Adds `virtme-run` with all that a scripted and an interactive guest share to a command that starts another.
    fn add_virtme_run(&self, command: &mut Command, private: &Path) {
        let venv = self.cache.join("venv/bin");
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .arg(venv.join("virtme-run"))
            .args(self.args())
            .env("PATH", format!("{}:{}:{path}:/usr/sbin", self.cache.join("bin").display(), venv.display()))
            .env("TMPDIR", private)
            .current_dir("/");
    }

    fn args(&self) -> Vec<String> {
        let mut args = self.topology.args();
        let mut add = |words: &[&str]| args.extend(words.iter().map(|word| (*word).to_owned()));
        add(&["--kimg", &self.kernel.image.to_string_lossy()]);
        // Everything needed is built in; loading modules would need an initramfs.
        add(&["--mods", "none", "--disable-microvm"]);
        if !self.kvm {
            add(&["--disable-kvm"]);
        }
        add(&["--rwdir", &self.rwdir.to_string_lossy(), "--cwd", "/"]);
        // An oops ends the guest instead of leaving it half dead; the log is long enough for a whole run.
        add(&["--kopt", "oops=panic", "--kopt", "log_buf_len=4M"]);
        args
    }
}

/// QEMU's arguments for the port that carries the command's output to `socket`.
fn port_args(socket: &Path) -> [String; 6] {
    let words = [
        "-device",
        "virtio-serial-pci,id=scx_rl",
        "-chardev",
        &format!("socket,id=scx_rl_out,path={}", socket.display()),
        "-device",
        &format!("virtserialport,bus=scx_rl.0,chardev=scx_rl_out,name={}", guest::PORT),
    ];
    words.map(str::to_owned)
}

/// virtme-run puts paths into a shell command without quoting them.
fn refuse_unquotable(path: &Path) -> Result<(), VmError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-@%:".contains(c);
    match path.to_str().filter(|text| text.chars().all(plain)) {
        Some(_) => Ok(()),
        None => Err(VmError::Invalid(format!(
            "virtme-ng cannot share {}: use a folder whose path has only letters, digits and /._+-",
            path.display()
        ))),
    }
}

fn forward_console(mut console: io::PipeReader, sender: SyncSender<Event>) {
    std::thread::spawn(move || forward(&mut console, &sender, Event::Console));
}

/// Waits for QEMU to connect, until it does or `stop` is set, and passes on what the command prints.
fn forward_output(listener: UnixListener, sender: SyncSender<Event>, stop: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        listener.set_nonblocking(true)?;
        while !stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((mut stream, _)) => {
                    stream.set_nonblocking(false)?;
                    forward(&mut stream, &sender, Event::Output);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(POLL),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    });
}

fn forward(from: &mut impl Read, sender: &SyncSender<Event>, event: fn(Vec<u8>) -> Event) {
    let mut buffer = [0; 8192];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 || sender.send(event(buffer[..n].to_vec())).is_err() {
            break;
        }
    }
}

/// Takes what is still under way after the guest's end, for a bounded time.
fn drain(events: &Receiver<Event>, log: &mut ConsoleLog, sink: &mut dyn FnMut(&[u8])) {
    let deadline = Instant::now() + DRAIN;
    while let Ok(event) = events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        log.take(event, sink);
    }
}

/// The console's file, and what its lines say about the guest.
struct ConsoleLog {
    file: File,
    start: Instant,
    line: Vec<u8>,
    last: VecDeque<String>,
    boot_time: Option<Duration>,
    /// The kernel said that it stops.
    panicked: bool,
    /// Its last words have begun.
    crashed: bool,
    /// A timer of the kernel's own, due long ago, has not fired.
    timer_lost: bool,
}

impl ConsoleLog {
    fn new(path: &Path, start: Instant) -> Result<Self, VmError> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        let (line, last) = (Vec::new(), VecDeque::new());
        Ok(Self { file, start, line, last, boot_time: None, panicked: false, crashed: false, timer_lost: false })
    }

    fn take(&mut self, event: Event, sink: &mut dyn FnMut(&[u8])) {
        let bytes = match event {
            Event::Output(bytes) => return sink(&bytes),
            Event::Console(bytes) => bytes,
        };
        if let Err(error) = self.file.write_all(&bytes) {
            log::warn!("the guest's console is not kept: {error}");
        }
        for byte in bytes {
            if byte == b'\n' {
                self.end_line();
            } else {
                self.line.push(byte);
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        self.line.clear();
        if line.ends_with(guest::STARTED) {
            self.boot_time = Some(self.start.elapsed());
        }
        self.panicked |= line.contains("Kernel panic - not syncing");
        self.timer_lost |= line.contains(TIMER_LOST);
        self.crashed |= CRASH_SIGNS.iter().any(|sign| line.contains(sign));
        if self.crashed {
            if self.last.len() < TAIL_LINES + CRASH_LINES {
                self.last.push_back(line);
            }
            return;
        }
        self.last.push_back(line);
        if self.last.len() > TAIL_LINES {
            self.last.pop_front();
        }
    }

    fn tail(&self) -> String {
        self.last.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
    }
}

/// A folder for sockets, with a name short enough for them (108 bytes). Removed when dropped.
struct PrivateDir(PathBuf);

impl PrivateDir {
    fn new() -> Result<Self, VmError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/tmp/scx_rl-vm-{}-{number}", std::process::id()));
        // The name is this process's own, so one that exists was left by a dead process of the same id.
        let _ = fs::remove_dir_all(&path);
        let created = fs::DirBuilder::new().mode(0o700).create(&path);
        created.with_context(|| format!("creating {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
