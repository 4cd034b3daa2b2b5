// SPDX-License-Identifier: GPL-2.0-only
//! What is compared: the kernel's own scheduler, the published peers, ours, and whatever command line the user names.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::lab::child::{Process, Stop};
use crate::lab::{system, tools};

/// The kernel's own scheduler, which all are compared with.
pub const EEVDF: &str = "eevdf";
/// Ours, with the fixed rule.
const HEURISTIC: &str = "heuristic";
/// Ours, with a checkpoint.
const FROZEN: &str = "frozen";
/// Published schedulers. `scripts/peers.sh` installs them, and has their versions.
pub const PEERS: [&str; 6] = ["scx_rusty", "scx_bpfland", "scx_lavd", "scx_cosmos", "scx_p2dq", "scx_flash"];

/// How long a scheduler may take to end after SIGINT.
const END_LIMIT: Duration = Duration::from_secs(30);
/// How long a scheduler may take to say its version.
const VERSION_LIMIT: Duration = Duration::from_secs(30);

/// One of those that are compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contender {
    /// The column of the table.
    pub name: String,
    /// Program and arguments; empty: nothing is attached.
    pub command: Vec<String>,
    /// What the program says of itself.
    pub version: String,
}

/// Something that is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// A scheduler or a workload.
    pub name: String,
    /// Why.
    pub reason: String,
}

impl Skipped {
    /// Leaves it out.
    pub fn new(name: &str, reason: impl Into<String>) -> Skipped {
        Skipped { name: name.into(), reason: reason.into() }
    }
}

/// What the user asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Names; empty: all that can be had.
    pub names: &'a [String],
    /// `NAME=COMMAND`.
    pub variants: &'a [String],
    /// For `frozen`.
    pub checkpoint: Option<&'a Path>,
    /// The running program.
    pub exe: &'a Path,
    /// Where peers are installed.
    pub peers: Option<&'a Path>,
}

/// The contenders, and those left out, with the reason.
///
/// # Errors
/// A name that nobody has, one twice, or one that was asked for and cannot be had.
pub fn select(wanted: &Wanted<'_>) -> Result<(Vec<Contender>, Vec<Skipped>)> {
    let (mut chosen, mut left_out) = (Vec::new(), Vec::new());
    for name in wanted.names {
        ensure!(
            [EEVDF, HEURISTIC, FROZEN].contains(&name.as_str()) || PEERS.contains(&name.as_str()),
            "--schedulers: there is no {name:?}; there are {EEVDF}, {HEURISTIC}, {FROZEN}, {}; others can be given as \
             --scheduler NAME=COMMAND",
            PEERS.join(", ")
        );
    }
    let is_wanted = |name: &str| wanted.names.is_empty() || wanted.names.iter().any(|other| other == name);
    let contender = |name: &str, command| Contender { name: name.into(), command, version: String::new() };
    let ours = |arguments: &[String]| [&[wanted.exe.display().to_string()], arguments].concat();
    if is_wanted(EEVDF) {
        chosen.push(contender(EEVDF, Vec::new()));
    }
    for name in PEERS.into_iter().filter(|name| is_wanted(name)) {
        match find_peer(name, wanted.peers) {
            Some(path) => chosen.push(contender(name, vec![path.display().to_string()])),
            None if wanted.names.is_empty() => left_out.push(Skipped::new(name, "not installed: make peers")),
            None => bail!("{name} is not installed: make peers"),
        }
    }
    if is_wanted(HEURISTIC) {
        chosen.push(contender(HEURISTIC, ours(&["--heuristic".into()])));
    }
    match wanted.checkpoint {
        Some(file) if is_wanted(FROZEN) => {
            let file = file.canonicalize().with_context(|| format!("--checkpoint: no file {}", file.display()))?;
            chosen.push(contender(FROZEN, ours(&["--frozen".into(), file.display().to_string()])));
        }
        Some(_) => {}
        None if wanted.names.is_empty() => left_out.push(Skipped::new(FROZEN, "no --checkpoint was given")),
        None => ensure!(!is_wanted(FROZEN), "--schedulers {FROZEN} needs --checkpoint FILE"),
    }
    for variant in wanted.variants {
        chosen.push(self::variant(variant, wanted)?);
    }
    for (index, contender) in chosen.iter().enumerate() {
        let twice = chosen[..index].iter().any(|other| other.name == contender.name);
        ensure!(!twice, "two schedulers are called {}: give the variant another name", contender.name);
    }
    Ok((chosen, left_out))
}

/// Those that need no command line.
pub fn known() -> Vec<&'static str> {
    [EEVDF, HEURISTIC].into_iter().chain(PEERS).collect()
}

/// Is it one of them?
pub fn is_known(name: &str) -> bool {
    known().contains(&name)
}

/// Where this program is, and the folder with the published ones.
///
/// # Errors
/// The former is not known.
pub fn places() -> Result<(PathBuf, Option<PathBuf>)> {
    let exe = std::env::current_exe().context("finding scx_rl's own program file")?;
    Ok((exe, crate::vm::cache_folder().ok().map(|cache| cache.join("peers/bin"))))
}

/// One contender: by its name alone, or by its command line.
///
/// # Errors
/// As [`select`].
pub fn of(name: &str, command: Option<&str>) -> Result<Contender> {
    let (exe, peers) = places()?;
    let names = [name.to_string()];
    let wanted = Wanted { names: &names, variants: &[], checkpoint: None, exe: &exe, peers: peers.as_deref() };
    match command {
        Some(command) => variant(&format!("{name}={command}"), &wanted),
        None => select(&wanted)?.0.pop().with_context(|| format!("{name} is not here")),
    }
}

fn variant(text: &str, wanted: &Wanted<'_>) -> Result<Contender> {
    let (name, command) = text.split_once('=').with_context(|| format!("--scheduler {text:?} is not NAME=COMMAND"))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    ensure!(
        !name.is_empty() && name.chars().all(plain),
        "--scheduler {text:?}: a name has letters, digits, '-', '_' and '.'"
    );
    let mut command: Vec<String> = command.split_whitespace().map(String::from).collect();
    let program = command.first_mut().with_context(|| format!("--scheduler {text:?} has no command"))?;
    *program = match program.as_str() {
        "scx_rl" => wanted.exe.display().to_string(),
        path if path.contains('/') => {
            ensure!(Path::new(path).is_file(), "--scheduler {name}: no file {path}");
            path.into()
        }
        other => {
            let found = find_peer(other, wanted.peers);
            found.with_context(|| format!("--scheduler {name}: {other} is not installed"))?.display().to_string()
        }
    };
    Ok(Contender { name: name.into(), command, version: String::new() })
}

fn find_peer(name: &str, peers: Option<&Path>) -> Option<PathBuf> {
    peers.map(|folder| folder.join(name)).filter(|path| path.is_file()).or_else(|| tools::find(name))
}

impl Contender {
    /// Asks the program for its version, for the record. `folder` is for its output.
    ///
    /// # Errors
    /// It cannot be started, or does not end.
    pub fn ask_version(&mut self, folder: &Path, stop: &Stop) -> Result<()> {
        let Some(program) = self.command.first() else {
            self.version = format!("Linux {}", system::kernel_release()?);
            return Ok(());
        };
        let log = folder.join("version.log");
        let mut process = Process::spawn_logged(Command::new(program).arg("--version"), program, &log)?;
        let status = process.wait_within(VERSION_LIMIT, stop)?;
        let words = system::tail(&log);
        let first = if status.success() { words.lines().next() } else { None };
        self.version = first.unwrap_or("version unknown").trim().into();
        Ok(())
    }

    /// Attaches it and waits until it is; nothing under EEVDF. Its output goes to `log`.
    ///
    /// # Errors
    /// It does not attach in time, or another is attached.
    pub fn attach(&self, log: &Path, stop: &Stop) -> Result<Attached> {
        system::wait_detached()?;
        let Some((program, arguments)) = self.command.split_first() else { return Ok(Attached::Kernel) };
        // Not read afterwards: the kernel counts a moment after it says that the scheduler is enabled (and so may the count
        // still be one less when the scheduler is first checked).
        let count = system::attach_count().map(|before| before + 1);
        let mut process = Process::spawn_logged(Command::new(program).args(arguments), &self.name, log)?;
        let ops = system::wait_attached(&mut process, stop, log, |_| true)?;
        Ok(Attached::Scheduler { process, ops, count, log: log.to_owned() })
    }
}

/// A scheduler that was attached; dropping it ends it.
pub enum Attached {
    /// The kernel's own.
    Kernel,
    /// A sched_ext scheduler.
    Scheduler {
        /// Its process.
        process: Process,
        /// Its name in the kernel.
        ops: String,
        /// How many had been attached by then, itself included.
        count: Option<u64>,
        /// Where its words are.
        log: PathBuf,
    },
}

impl Attached {
    /// Is it still the one that schedules, and was it all the time?
    ///
    /// # Errors
    /// It is not: it ended, was thrown out, or was attached anew.
    pub fn check(&mut self) -> Result<()> {
        match self {
            Attached::Kernel => system::check_detached(),
            Attached::Scheduler { process, ops, count, log } => {
                let ended = process.ended()?;
                ensure!(ended.is_none(), "it ended by itself; its last words:\n{}", system::tail(log));
                system::check_attached(|other| other == ops)?;
                let now = system::attach_count();
                ensure!(now <= *count && now.is_some() == count.is_some(), "it was attached anew in between");
                Ok(())
            }
        }
    }

    /// Ends it, and waits until the kernel has its own scheduler back.
    ///
    /// # Errors
    /// It had to be killed, or failed, or the kernel has not.
    pub fn detach(self) -> Result<()> {
        let ended = match self {
            Attached::Kernel => Ok(()),
            Attached::Scheduler { mut process, log, .. } => process.interrupt(END_LIMIT).and_then(|status| {
                ensure!(status.success(), "it failed ({status}); its last words:\n{}", system::tail(&log));
                Ok(())
            }),
        };
        system::wait_detached()?;
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted<'a>(names: &'a [String], variants: &'a [String], peers: &'a Path) -> Wanted<'a> {
        Wanted { names, variants, checkpoint: None, exe: Path::new("/bin/scx_rl"), peers: Some(peers) }
    }

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_that_can_be_had_and_what_cannot_is_told() {
        let folder = std::env::temp_dir().join(format!("scx_rl-peers-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for peer in PEERS {
            std::fs::write(folder.join(peer), "").unwrap();
        }
        let variants = owned(&["slow=scx_rl --heuristic --slice-us 20000", "lav2=scx_lavd --performance"]);
        let (chosen, left_out) = select(&wanted(&[], &variants, &folder)).unwrap();
        let names: Vec<&str> = chosen.iter().map(|contender| contender.name.as_str()).collect();
        assert_eq!(names[0], "eevdf");
        assert_eq!(names[1..7], PEERS);
        assert_eq!(names[7..], ["heuristic", "slow", "lav2"]);
        assert_eq!(chosen[8].command, ["/bin/scx_rl", "--heuristic", "--slice-us", "20000"]);
        assert_eq!(chosen[9].command, [&folder.join("scx_lavd").display().to_string(), "--performance"]);
        assert_eq!(left_out, [Skipped::new("frozen", "no --checkpoint was given")]);

        let checkpoint = folder.join("scx_lavd");
        let names = owned(&["frozen", "eevdf"]);
        let with_checkpoint = Wanted { checkpoint: Some(&checkpoint), ..wanted(&names, &[], &folder) };
        let (chosen, left_out) = select(&with_checkpoint).unwrap();
        assert_eq!(chosen[1].command[1..], ["--frozen".to_string(), checkpoint.display().to_string()]);
        assert!(chosen.len() == 2 && left_out.is_empty());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let nowhere = Path::new("/nonexistent");
        for (names, variants, message) in [
            (&["cfs"][..], &[][..], "there is no \"cfs\"; there are eevdf, heuristic"),
            (&["frozen"], &[], "--schedulers frozen needs --checkpoint FILE"),
            (&["eevdf"], &["slow"], "\"slow\" is not NAME=COMMAND"),
            (&["eevdf"], &["=scx_rl"], "a name has letters"),
            (&["eevdf"], &["a b=scx_rl"], "a name has letters"),
            (&["eevdf"], &["slow= "], "has no command"),
            (&["eevdf"], &["a=/no/such/file"], "--scheduler a: no file /no/such/file"),
            (&["eevdf"], &["a=scx_nobody_has_this"], "scx_nobody_has_this is not installed"),
            (&["eevdf"], &["eevdf=scx_rl --heuristic"], "two schedulers are called eevdf"),
        ] {
            let (names, variants) = (owned(names), owned(variants));
            let error = select(&wanted(&names, &variants, nowhere)).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
