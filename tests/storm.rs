// SPDX-License-Identifier: GPL-2.0-only
//! The reliability suite: a matrix of kernels and topologies, storms, fairness, and the verifier record, each case in a VM.
//! Several cases share a boot. The guest's side is in `tests/guest/storm/`; a case passes if its script ran to the end
//! and every check in it did.
//!
//! Not libtest's harness: it prints one line per case as it ends, and its last line counts them. It fails when a case
//! failed or when nothing ran.
//!
//!     cargo test --release --test storm -- [--full] [--eevdf] [--list] [NAME...]
//!
//! Without arguments: the short form. NAME: those cases of the full form whose name contains it. `--eevdf`: the storms
//! without scx_rl, as a reference for waits.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use scx_rl::vm::{Vm, VmError};

const KERNELS: [&str; 4] = ["6.16", "6.17", "6.18", "7.2"];
/// On which the storms run.
const KERNEL: &str = "6.17";
/// Booting, and what emulation may take longer.
const BOOT_S: u64 = 90;
/// What a case may take, unless it says otherwise.
const CASE_S: u64 = 180;
/// A guest that prints nothing for so long hangs. (A storm prints nothing while it lasts.)
const SILENCE_S: u64 = 120;

struct Topology {
    name: &'static str,
    cpus: u32,
    llcs: u32,
    nodes: u32,
    smt: bool,
    /// The domains that scx_rl finds there.
    domains: &'static str,
}

const fn topology(name: &'static str, cpus: u32, llcs: u32, nodes: u32, smt: bool, domains: &'static str) -> Topology {
    Topology { name, cpus, llcs, nodes, smt, domains }
}

/// Fairness is also looked at across caches. It is measured with as many CPUs as the host has at least: were they more, they
/// would wait for each other.
const TWO_CACHES: Topology = topology("2cpu-2llc", 2, 2, 1, false, "0 | 1");

const TOPOLOGIES: [Topology; 4] = [
    topology("1cpu", 1, 1, 1, false, "0"),
    topology("2cpu-1llc", 2, 1, 1, false, "0-1"),
    topology("4cpu-2llc", 4, 2, 1, false, "0-1 | 2-3"),
    topology("8cpu-4llc-2node-smt", 8, 4, 2, true, "0-1 | 2-3 | 4-5 | 6-7"),
];

#[derive(Clone)]
struct Case {
    name: String,
    script: &'static str,
    limit_s: u64,
    /// Environment of the script: `NAME=value`.
    vars: Vec<String>,
}

/// Cases that share a boot.
struct Boot {
    kernel: &'static str,
    topology: &'static Topology,
    cases: Vec<Case>,
}

fn case(name: impl Into<String>, script: &'static str, vars: &[String]) -> Case {
    Case { name: name.into(), script, limit_s: CASE_S, vars: vars.to_vec() }
}

fn smoke(kernel: &str, topology: &Topology, seconds: u32) -> Case {
    let vars = [format!("SECS={seconds}"), format!("KERNEL={kernel}"), format!("DOMAINS='{}'", topology.domains)];
    case(format!("matrix/{kernel}/{}", topology.name), "smoke", &vars)
}

fn verifier(kernel: &str) -> Case {
    case(format!("verifier/{kernel}"), "verifier", &[])
}

fn storms(names: &[&'static str], seconds: u32) -> Vec<Case> {
    names.iter().map(|name| case(format!("storm/{name}"), name, &[format!("SECS={seconds}")])).collect()
}

/// How long each part of it measures, in the full form.
const FAIRNESS_S: u32 = 10;

fn fairness(topology: &Topology, seconds: u32) -> Case {
    case(format!("fairness/{}", topology.name), "fairness", &[format!("SECS={seconds}")])
}

fn attach(times: u32) -> Case {
    let limit_s = CASE_S + 15 * u64::from(times);
    Case { limit_s, ..case("storm/attach", "attach", &[format!("ATTACHES={times}")]) }
}

/// Every case. The storms are in several boots, so that what one breaks does not take all others with it.
fn full() -> Vec<Boot> {
    let mut boots = Vec::new();
    for kernel in KERNELS {
        for (i, topology) in TOPOLOGIES.iter().enumerate() {
            let record = if i == 0 { vec![verifier(kernel)] } else { vec![] };
            boots.push(Boot { kernel, topology, cases: [record, vec![smoke(kernel, topology, 6)]].concat() });
        }
    }
    let hotplug =
        Case { limit_s: 400, ..case("storm/hotplug", "hotplug", &["SECS=12".into(), "HOTPLUG='3 1 2'".into()]) };
    for topology in [&TOPOLOGIES[1], &TWO_CACHES] {
        boots.push(Boot { kernel: KERNEL, topology, cases: vec![fairness(topology, FAIRNESS_S)] });
    }
    for cases in [
        storms(&["aggressive", "forkbomb", "cpuset", "rt", "deadline"], 12),
        storms(&["spawn", "sleepers", "renice", "weights", "memory"], 12),
        vec![hotplug],
        vec![attach(100)],
    ] {
        boots.push(Boot { kernel: KERNEL, topology: &TOPOLOGIES[2], cases });
    }
    boots
}

/// Every kernel and every topology once, and the storms that show most in the least time.
fn short() -> Vec<Boot> {
    let [one, two, four, eight] = &TOPOLOGIES;
    let mut storm = vec![verifier(KERNEL), smoke(KERNEL, four, 2)];
    storm.extend(storms(&["aggressive", "forkbomb", "cpuset", "rt", "spawn", "renice"], 3));
    storm.push(attach(2));
    let mut boots = vec![Boot { kernel: KERNEL, topology: four, cases: storm }];
    for (kernel, topology) in [("6.16", two), ("6.18", one), ("7.2", eight)] {
        boots.push(Boot { kernel, topology, cases: vec![verifier(kernel), smoke(kernel, topology, 3)] });
    }
    boots[1].cases.push(fairness(two, 5));
    boots
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// Follows the output of a boot, and says how each case ended as it ends.
struct Watcher {
    began: Instant,
    /// Every line with its time.
    log: String,
    rest: String,
    /// The case that runs, with its lines so far.
    current: Option<(String, Vec<String>)>,
    ended: BTreeMap<String, Outcome>,
}

impl Watcher {
    fn new() -> Self {
        Self { began: Instant::now(), log: String::new(), rest: String::new(), current: None, ended: BTreeMap::new() }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.rest.push_str(&String::from_utf8_lossy(bytes));
        while let Some(end) = self.rest.find('\n') {
            let line: String = self.rest.drain(..=end).collect();
            self.line(line.trim_end());
        }
    }

    fn line(&mut self, line: &str) {
        let _ = writeln!(self.log, "[{:7.1}] {line}", self.began.elapsed().as_secs_f64());
        if let Some(name) = line.strip_prefix("case ") {
            self.current = Some((name.to_owned(), Vec::new()));
        } else if let Some(end) = line.strip_prefix("end ") {
            let Some((name, lines)) = self.current.take() else { return };
            let mut words = end.split(' ').skip(1);
            let code = words.next().unwrap_or("?");
            let seconds = words.next().unwrap_or("?");
            let failed = failures(&lines, code);
            let outcome = if failed.is_empty() { Outcome::Passed } else { Outcome::Failed };
            say(&name, outcome, &format!("{seconds} s; {}", figures(&lines)), &failed);
            self.ended.insert(name, outcome);
        } else if let Some((_, lines)) = &mut self.current {
            lines.push(line.to_owned());
        }
    }
}

/// Why a case failed; empty: it passed.
fn failures(lines: &[String], code: &str) -> Vec<String> {
    let mut failed: Vec<String> = lines.iter().filter(|l| l.starts_with("not ok ")).cloned().collect();
    if code != "0" || !lines.iter().any(|l| l == "done") {
        let last = lines.last().map_or("nothing", |l| l.as_str());
        failed.push(format!("the script did not run to its end (exit code {code}); it last said: {last}"));
    }
    if !lines.iter().any(|l| l.starts_with("ok ")) {
        failed.push("no check passed".to_owned());
    }
    failed
}

/// What the checks that passed have measured.
fn figures(lines: &[String]) -> String {
    let checks = lines.iter().filter_map(|l| l.strip_prefix("ok ")).collect::<Vec<_>>();
    let told = checks.iter().filter(|c| c.contains(": ")).copied().collect::<Vec<_>>();
    format!("{} checks; {}", checks.len(), told.join("; "))
}

fn say(name: &str, outcome: Outcome, text: &str, failed: &[String]) {
    let word = match outcome {
        Outcome::Passed => "ok     ",
        Outcome::Failed => "FAILED ",
        Outcome::Skipped => "skipped",
    };
    let mut line = format!("{word} {name}: {text}");
    for reason in failed {
        let _ = write!(line, "\n        {reason}");
    }
    println!("{line}");
}

/// Run the cases of one boot. Gives the outcome of each. Should the guest end within a case, the others get another one.
fn run(boot: &Boot, number: usize, eevdf: bool) -> Vec<Outcome> {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("storm-{number}"));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let t = boot.topology;
    println!("{} on {}, {} case(s); logs: {}", boot.kernel, t.name, boot.cases.len(), dir.display());
    let vm = Vm::new().kernel(boot.kernel).cpus(t.cpus).llcs(t.llcs).nodes(t.nodes).smt(t.smt);
    let vm = vm.memory("3G").rwdir(&dir).silence(Duration::from_secs(SILENCE_S));

    let mut watcher = Watcher::new();
    let mut left: Vec<&Case> = boot.cases.iter().collect();
    while !left.is_empty() {
        let limit_s = BOOT_S + left.iter().map(|c| c.limit_s + 15).sum::<u64>();
        let vm = vm.clone().timeout(Duration::from_secs(limit_s));
        let ended = vm.run_watched(&script(&left, &dir, eevdf), &mut |bytes| watcher.take(bytes));
        let _ = std::fs::write(dir.join("output.txt"), &watcher.log);
        let (outcome, reason) = match ended {
            Ok(_) => (Outcome::Failed, "the guest ended before it".to_owned()),
            Err(VmError::Unavailable(why)) if std::env::var("CI").as_deref() != Ok("true") => (Outcome::Skipped, why),
            Err(error) => (Outcome::Failed, error.to_string()),
        };
        if let Some((name, lines)) = watcher.current.take() {
            let console = dir.join(format!("console-{}.log", watcher.ended.len()));
            let _ = std::fs::copy(dir.join("vm/console.log"), console);
            say(&name, outcome, &format!("the guest did not survive it: {reason}"), &lines);
            watcher.ended.insert(name, outcome);
        } else {
            // It did not even come to the next case.
            for case in left.iter().filter(|c| !watcher.ended.contains_key(&c.name)).collect::<Vec<_>>() {
                say(&case.name, outcome, &reason, &[]);
                watcher.ended.insert(case.name.clone(), outcome);
            }
        }
        left.retain(|case| !watcher.ended.contains_key(&case.name));
    }
    boot.cases.iter().filter_map(|case| watcher.ended.get(&case.name).copied()).collect()
}

/// What the guest runs.
fn script(cases: &[&Case], dir: &Path, eevdf: bool) -> String {
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/storm");
    // Should the guest boot again, the new line ends what it was saying before.
    let mut script = format!(
        "echo\nexport X='{}' W='{}' GUEST='{}' EEVDF='{}'\n. \"$GUEST/run.sh\"\n",
        env!("CARGO_BIN_EXE_scx_rl"),
        dir.display(),
        guest.display(),
        if eevdf { "1" } else { "" }
    );
    for case in cases {
        let _ = writeln!(script, "run_case {} {}.sh {} {}", case.name, case.script, case.limit_s, case.vars.join(" "));
    }
    script
}

/// The boots that have any of the named cases, with only those.
fn only(boots: Vec<Boot>, names: &[String]) -> Vec<Boot> {
    let named = |case: &Case| names.is_empty() || names.iter().any(|n| case.name.contains(n.as_str()));
    let pick = |mut boot: Boot| {
        boot.cases.retain(named);
        boot
    };
    boots.into_iter().map(pick).filter(|boot| !boot.cases.is_empty()).collect()
}

fn main() -> ExitCode {
    let (flags, names): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|a| a.starts_with("--"));
    let has = |flag: &str| flags.iter().any(|f| f == flag);
    if let Some(unknown) = flags.iter().find(|f| !["--full", "--short", "--eevdf", "--list"].contains(&f.as_str())) {
        eprintln!("storm: {unknown} is none of --full, --short, --eevdf, --list");
        return ExitCode::from(2);
    }
    let whole = has("--full") || (!names.is_empty() && !has("--short"));
    let boots = only(if whole { full() } else { short() }, &names);
    if has("--list") {
        boots.iter().flat_map(|b| &b.cases).for_each(|c| println!("{}", c.name));
        return ExitCode::SUCCESS;
    }
    // Says when a guest had to boot again, and why.
    let _ = simplelog::SimpleLogger::init(log::LevelFilter::Warn, simplelog::Config::default());
    let began = Instant::now();
    let outcomes: Vec<Outcome> = boots.iter().enumerate().flat_map(|(i, b)| run(b, i, has("--eevdf"))).collect();
    let count = |wanted: Outcome| outcomes.iter().filter(|&&o| o == wanted).count();
    let (passed, failed, skipped) = (count(Outcome::Passed), count(Outcome::Failed), count(Outcome::Skipped));
    if outcomes.is_empty() {
        eprintln!("storm: no case is named like {names:?}; --list lists them");
    }
    let took = began.elapsed().as_secs();
    println!("storm: {} min {:02} s", took / 60, took % 60);
    println!("storm: {} cases: {passed} passed, {failed} failed, {skipped} skipped", outcomes.len());
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
