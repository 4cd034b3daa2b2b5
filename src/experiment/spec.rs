// SPDX-License-Identifier: GPL-2.0-only
//! The specification of a study: a TOML file, read as a whole, so that every mistake in it is told at once, with its place.

use std::collections::BTreeSet;

use toml::de::DeTable;

use super::reader::{Mistakes, Reader, Table};
use super::subject;
use crate::file;
use crate::sim::contender::Contender as Simulated;
use crate::sim::machine::Shape;
use crate::suite::contender::{self, EEVDF};
use crate::vm;

/// Where a study's cells are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// In a VM, booted for each topology and seed.
    Vm,
    /// On this machine, by its own kernel.
    Host,
    /// On a simulated machine.
    Simulator,
}

impl Backend {
    const ALL: [(&'static str, Backend); 3] =
        [("vm", Backend::Vm), ("host", Backend::Host), ("simulator", Backend::Simulator)];
}

/// One of those that are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerSpec {
    /// In tables, unique.
    pub name: String,
    /// In a kernel: its command line, none for those known by name. In the simulator: how it decides.
    pub how: Option<String>,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologySpec {
    /// CPUs (hardware threads).
    pub cpus: usize,
    /// Last-level caches.
    pub llcs: usize,
    /// NUMA nodes.
    pub nodes: usize,
    /// Two hardware threads for each core.
    pub smt: bool,
}

impl TopologySpec {
    /// For files and tables: `8cpu-4llc-2node-smt`. The machine itself, where there is no choice, is `host`.
    pub fn name(&self) -> String {
        if self.cpus == 0 {
            return "host".into();
        }
        let node = if self.nodes > 1 { format!("-{}node", self.nodes) } else { String::new() };
        format!("{}cpu-{}llc{node}{}", self.cpus, self.llcs, if self.smt { "-smt" } else { "" })
    }

    /// As the simulator has it.
    pub fn shape(&self) -> Shape {
        Shape { cpus: self.cpus, llcs: self.llcs, nodes: self.nodes, threads: if self.smt { 2 } else { 1 } }
    }
}

/// A valid specification.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Of the study, and of its folder.
    pub name: String,
    /// What it asks.
    pub about: String,
    /// Where it is measured.
    pub backend: Backend,
    /// The scheduler that ratios are to.
    pub baseline: String,
    /// Of generated input, simulations, and the order of turns.
    pub seeds: Vec<u64>,
    /// How often each scheduler runs each workload with each seed; 1 in the simulator, where it would be the same again.
    pub rounds: usize,
    /// What is compared.
    pub schedulers: Vec<SchedulerSpec>,
    /// On what.
    pub topologies: Vec<TopologySpec>,
    /// Under what: the suite's workloads, or the simulator's regimes.
    pub workloads: Vec<String>,
    /// Measure runqueue latency, too; not in the simulator.
    pub tracer: bool,
    /// Release of the VM's kernel, or its beginning; none: the default one.
    pub kernel: Option<String>,
    /// Memory of the VM.
    pub memory: String,
    /// A VM that takes longer is stopped, seconds.
    pub timeout_s: u64,
    /// Simulated seconds before anything counts.
    pub warm_up_s: f64,
    /// Simulated seconds that count.
    pub seconds: f64,
    /// Simulations at the same time.
    pub jobs: usize,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
}

/// What a file has at most: nobody writes longer ones, and whoever means another file finds out at once.
const SIZE_MAX_BYTES: usize = 1 << 20;
/// Cells of a study, at most.
const CELLS_MAX: usize = 1_000_000;

impl<'a> Reader<'a> {
    fn seeds(&mut self, top: &Table<'a>) -> Vec<u64> {
        let seed = 0..=u64::from(u32::MAX);
        let mut seen = BTreeSet::new();
        let mut seeds = Vec::new();
        for value in self.array(top, "seeds", "a list of whole numbers") {
            if let Some(number) = self.integer(value, "a seed", &seed) {
                if !seen.insert(number) {
                    self.mistake(&value.span(), format!("the seed {number} is there twice"));
                }
                seeds.push(number);
            }
        }
        if self.find(top, "seeds").is_none() { vec![1] } else { seeds }
    }

    fn schedulers(&mut self, top: &Table<'a>, backend: Backend) -> Vec<SchedulerSpec> {
        const TITLE: &str = "[[scheduler]]";
        let key = if backend == Backend::Simulator { "balancer" } else { "command" };
        let mut all: Vec<SchedulerSpec> = Vec::new();
        for table in self.tables(top, "scheduler", TITLE) {
            self.only(&table, &["name", key]);
            let Some((name, span)) = self.name(&table, "name", "name = \"heuristic\"") else { continue };
            if all.iter().any(|other| other.name == name) {
                self.mistake(&span, format!("two schedulers are called {name:?}"));
            }
            let how = self.text(&table, key);
            let place = how.as_ref().map_or(span, |(_, span)| span.clone());
            let how = how.map(|(text, _)| text.to_string());
            match check_scheduler(backend, &name, how.as_deref()) {
                Ok(()) => all.push(SchedulerSpec { name, how }),
                Err(what) => self.mistake(&place, what),
            }
        }
        if self.find(top, "scheduler").is_none() {
            self.missing(top, "scheduler", "[[scheduler]] and name = \"eevdf\" in the next line");
        }
        all
    }

    fn topologies(&mut self, top: &Table<'a>, backend: Backend) -> Vec<TopologySpec> {
        const TITLE: &str = "[[topology]]";
        let given = self.find(top, "topology");
        if backend == Backend::Host {
            return vec![TopologySpec { cpus: 0, llcs: 0, nodes: 0, smt: false }];
        }
        let mut all: Vec<TopologySpec> = Vec::new();
        for table in self.tables(top, "topology", TITLE) {
            self.only(&table, &["cpus", "llcs", "nodes", "smt"]);
            let mut number = |key, default| self.integer_of(&table, key, 1..=1024, default) as usize;
            let (cpus, llcs, nodes) = (number("cpus", 4), number("llcs", 2), number("nodes", 1));
            let topology = TopologySpec { cpus, llcs, nodes, smt: self.truth(&table, "smt", false) };
            if all.contains(&topology) {
                self.mistake(&table.span, format!("{TITLE} {} is there twice", topology.name()));
            }
            if let Err(what) = check_topology(backend, &topology) {
                self.mistake(&table.span, what);
            }
            all.push(topology);
        }
        if given.is_none() {
            let (cpus, llcs) = if backend == Backend::Simulator { (16, 4) } else { (4, 2) };
            all.push(TopologySpec { cpus, llcs, nodes: 1, smt: false });
        }
        all
    }

    fn workloads(&mut self, top: &Table<'a>, backend: Backend) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for value in self.array(top, "workloads", "a list of names") {
            let Some(name) = value.get_ref().as_str() else {
                self.wrong_kind(value, "a workload", "a string");
                continue;
            };
            if let Err(what) = subject::check(backend, name) {
                self.mistake(&value.span(), what);
            }
            if all.iter().any(|other| other == name) {
                self.mistake(&value.span(), format!("the workload {name:?} is there twice"));
            }
            all.push(name.into());
        }
        if self.find(top, "workloads").is_none() {
            let example = if backend == Backend::Simulator { "high-short-95" } else { "compile" };
            self.missing(top, "workloads", &format!("workloads = [{example:?}]"));
        }
        all
    }

    fn spec(&mut self, top: &Table<'a>) -> Spec {
        let backend = match self.text(top, "backend") {
            Some((text, span)) => {
                let found = Backend::ALL.iter().find(|(name, _)| *name == text).map(|(_, backend)| *backend);
                if found.is_none() {
                    self.mistake(&span, format!("backend = {text:?}: there are vm, host and simulator"));
                }
                found.unwrap_or(Backend::Vm)
            }
            None => {
                if self.find(top, "backend").is_none() {
                    self.missing(top, "backend", "backend = \"vm\"");
                }
                Backend::Vm
            }
        };
        let mut known = vec!["name", "about", "backend", "baseline", "seeds", "workloads", "scheduler"];
        known.extend(match backend {
            Backend::Vm => &["rounds", "tracer", "topology", "kernel", "memory", "timeout-s"][..],
            Backend::Host => &["rounds", "tracer"],
            Backend::Simulator => &["topology", "warm-up-s", "seconds", "jobs"],
        });
        self.only(top, &known);
        let name = self.name(top, "name", "name = \"smoke\"").map(|(name, _)| name).unwrap_or_default();
        let about = self.text(top, "about").map(|(text, _)| text.to_string()).unwrap_or_default();
        let schedulers = self.schedulers(top, backend);
        let first = schedulers.first().map_or(EEVDF.to_string(), |scheduler| scheduler.name.clone());
        let baseline = match self.text(top, "baseline") {
            Some((text, span)) => {
                if schedulers.iter().all(|scheduler| scheduler.name != text) {
                    self.mistake(&span, format!("baseline = {text:?} is not among the schedulers"));
                }
                text.to_string()
            }
            None => first,
        };
        let memory = self.text(top, "memory");
        if let Some((text, span)) = &memory
            && let Err(error) = vm::Topology::new(4, 2, 1, false, text)
        {
            self.mistake(span, format!("memory: {error}"));
        }
        let spec = Spec {
            name,
            about,
            backend,
            baseline,
            seeds: self.seeds(top),
            rounds: self.integer_of(top, "rounds", 1..=1000, 1) as usize,
            schedulers,
            topologies: self.topologies(top, backend),
            workloads: self.workloads(top, backend),
            tracer: self.truth(top, "tracer", true),
            kernel: self.text(top, "kernel").map(|(text, _)| text.to_string()),
            memory: memory.map_or("4G".into(), |(text, _)| text.to_string()),
            timeout_s: self.integer_of(top, "timeout-s", 60..=604_800, 86_400),
            warm_up_s: self.seconds(top, "warm-up-s", 2.0, 0.0),
            seconds: self.seconds(top, "seconds", 10.0, 0.001),
            jobs: self.integer_of(top, "jobs", 1..=64, 1) as usize,
            sha256: file::sha256(self.content.as_bytes()),
        };
        let cells = [spec.topologies.len(), spec.seeds.len(), spec.rounds, spec.schedulers.len(), spec.workloads.len()]
            .iter()
            .try_fold(1usize, |product, count| product.checked_mul(*count));
        if cells.is_none_or(|cells| cells > CELLS_MAX) {
            self.mistake(&top.span.clone(), format!("that makes more than {CELLS_MAX} cells"));
        }
        spec
    }
}

fn check_scheduler(backend: Backend, name: &str, how: Option<&str>) -> Result<(), String> {
    match (backend, how) {
        (Backend::Simulator, Some(how)) => {
            format!("{name}={how}").parse::<Simulated>().map(|_| ()).map_err(|error| format!("{name}: {error:#}"))
        }
        (Backend::Simulator, None) => {
            Err(format!("{name}: how does it decide? Say it as in balancer = \"rule:margin=1\""))
        }
        (_, None) if !contender::is_known(name) => Err(format!(
            "{name:?} is none that is known by its name ({}): give its command, as in command = \"scx_rl --heuristic\"",
            contender::known().join(", ")
        )),
        (_, how) => contender::of(name, how).map(|_| ()).map_err(|error| format!("{error:#}")),
    }
}

fn check_topology(backend: Backend, topology: &TopologySpec) -> Result<(), String> {
    if backend == Backend::Simulator {
        return topology.shape().places().map(|_| ()).map_err(|error| format!("{error:#}"));
    }
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let TopologySpec { cpus, llcs, nodes, smt } = *topology;
    let made = vm::Topology::new(number(cpus), number(llcs), number(nodes), smt, "64G");
    made.map(|_| ()).map_err(|error| error.to_string())
}

impl Spec {
    /// The schedulers' names, in their order.
    pub fn names(&self) -> Vec<String> {
        self.schedulers.iter().map(|scheduler| scheduler.name.clone()).collect()
    }

    /// The scheduler of this name.
    pub fn scheduler(&self, name: &str) -> Option<&SchedulerSpec> {
        self.schedulers.iter().find(|scheduler| scheduler.name == name)
    }

    /// Rounds of all seeds.
    pub fn all_rounds(&self) -> usize {
        self.seeds.len() * self.rounds
    }

    /// Reads a specification.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(text: &str) -> Result<Spec, Mistakes> {
        let mut reader = Reader { content: text, mistakes: Vec::new() };
        if text.len() > SIZE_MAX_BYTES {
            reader.mistake(&(0..0), format!("it has more than {SIZE_MAX_BYTES} bytes"));
            return Err(Mistakes(reader.mistakes));
        }
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            reader.mistake(&error.span().unwrap_or(0..0), error.message());
        }
        // What follows from a line that was not understood would only confuse.
        let spec = if reader.mistakes.is_empty() {
            Some(reader.spec(&Table { entries: table.get_ref(), span: 0..0, title: "" }))
        } else {
            None
        };
        reader.mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
        match spec {
            Some(spec) if reader.mistakes.is_empty() => Ok(spec),
            _ => Err(Mistakes(reader.mistakes)),
        }
    }
}

#[cfg(test)]
mod tests;
