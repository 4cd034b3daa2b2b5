// SPDX-License-Identifier: GPL-2.0-only
//! The subcommand `ablation`: balancers against each other under many regimes, in the simulator.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::adapt::{self, AdaptArgs};
use super::contender::{Contender, Start};
use super::machine::Shape;
use super::regime::Regime;
use super::trial::{self, Score, Setting};
use crate::agent::guard::Limits;
use crate::agent::{Hyper, Origin};
use crate::kernel::SchedulerConfig;
use crate::lab::statistics::{Estimate, geometric_mean, ratio_estimate};
use crate::process::print;

/// Compare balancers, fixed and learned, under regimes that differ in what a move costs, in the simulator.
///
/// A regime is what moves cost (none, middle: 0.2 ms, high: 2 ms, mixed between
/// tasks) x how long tasks run (short: 0.2 ms, long: 5 ms, mixed) x load (80,
/// 95 %, and 50 % as a control). Each is simulated under each contender for each
/// seed.
///
/// Examples:
///
///   scx_rl ablation train --out learned.safetensors --imitate --rounds 20 \
///       --seconds 1 --regimes=-80,-95 --hyper '{"actor_learning_rate":0.001}'
///   scx_rl ablation run --out-dir results --seeds 10 \
///       --contender learned=frozen:learned.safetensors
///   scx_rl ablation table results
///   scx_rl ablation adapt --before none-short-80 --regime high-short-95
#[derive(Clone, Debug, clap::Subcommand)]
#[command(verbatim_doc_comment)]
pub enum AblationCommand {
    /// Simulate. What is in the folder already is not simulated again, so a run that was stopped goes on.
    Run(RunArgs),
    /// Let an agent learn under regimes in random order, and write its checkpoint.
    Train(TrainArgs),
    /// How many decisions it takes a learner to find its way under a regime.
    Adapt(AdaptArgs),
    /// The table of what was simulated: response times against the best fixed balancer of each regime.
    Table(TableArgs),
}

/// What is simulated.
#[derive(Clone, Debug, clap::Args)]
pub struct Machine {
    /// CPUs of the simulated machine.
    #[arg(long, default_value_t = 16)]
    cpus: usize,

    /// Last-level caches; each is a domain.
    #[arg(long, default_value_t = 4)]
    llcs: usize,

    /// NUMA nodes, each with equally many caches.
    #[arg(long, default_value_t = 1)]
    nodes: usize,

    /// Simulated seconds before anything counts; an agent learns meanwhile.
    #[arg(long, value_name = "SEC", default_value_t = 2.0)]
    warm_up: f64,

    /// Simulated seconds that count (train: that each regime lasts).
    #[arg(long, value_name = "SEC", default_value_t = 10.0)]
    seconds: f64,

    /// Decisions logged for a learning agent, at most, per simulated second.
    #[arg(long, value_name = "N", default_value_t = 10_000.0)]
    events_per_sec: f64,

    /// Least probability of each action while learning.
    #[arg(long, value_name = "P", default_value_t = 0.001)]
    explore_floor: f64,

    /// Learning agents are guarded, as in a kernel.
    #[arg(long)]
    guard: bool,

    /// Learned policies choose how long turns last, too.
    #[arg(long)]
    slices: bool,

    /// Hyper-parameters of agents that begin from scratch, as JSON; what is absent has its default.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    hyper: String,
}

impl Machine {
    /// What all trials have in common.
    ///
    /// # Errors
    /// A number makes no sense.
    pub(super) fn setting(&self) -> Result<Setting> {
        for (name, value) in [("--warm-up", self.warm_up), ("--seconds", self.seconds)] {
            ensure!((0.0..1e6).contains(&value), "{name} {value} is not a time to simulate");
        }
        ensure!(self.seconds > 0.0, "--seconds 0 measures nothing");
        ensure!(self.events_per_sec >= 1.0, "--events-per-sec must be at least 1");
        ensure!((0.0..=0.5).contains(&self.explore_floor), "--explore-floor is from 0 to 0.5");
        let shape = Shape { cpus: self.cpus, llcs: self.llcs, nodes: self.nodes, threads: 1 };
        shape.places()?;
        Ok(Setting {
            shape,
            warm_up_ns: (self.warm_up * 1e9) as u64,
            measure_ns: (self.seconds * 1e9) as u64,
            events_per_s: self.events_per_sec,
            explore_floor: self.explore_floor,
            hyper: Hyper::from_json(&self.hyper)?,
            scheduler: SchedulerConfig { learn_slices: self.slices, ..SchedulerConfig::DEFAULT },
            guard: self.guard.then(Limits::default),
        })
    }
}

/// Options of `ablation run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Where results go, a line of JSON each. Created if missing.
    #[arg(long, value_name = "DIR")]
    out_dir: PathBuf,

    #[command(flatten)]
    machine: Machine,

    /// Only regimes whose name (COST-BURST-LOAD) contains one of these.
    #[arg(long, value_name = "TEXT,...", value_delimiter = ',')]
    regimes: Vec<String>,

    /// One more, beside the fixed ones. HOW is rule:PARTS; split:PARTS/PARTS, where tasks whose moves cost
    /// something, which nobody can know, are under the second rule; two-choices; rusty; frozen:FILE;
    /// greedy:FILE, likewise, and always the better action; learn, learn:rule, learn:FILE; or a learner that is broken on
    /// purpose: wreck:sign, wreck:rate, wreck:nan, wreck:foreign. May be given several times.
    #[arg(long = "contender", value_name = "NAME=HOW")]
    contenders: Vec<String>,

    /// Leave out the fixed ones.
    #[arg(long)]
    no_fixed: bool,

    /// How many seeds, from 1 on.
    #[arg(long, default_value_t = 10)]
    seeds: u64,

    /// Processes that simulate at the same time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    jobs: u64,

    /// Simulate only the K-th of N parts; how --jobs shares the work.
    #[arg(long, value_name = "K/N")]
    part: Option<String>,
}

/// Options of `ablation train`.
#[derive(Clone, Debug, clap::Args)]
pub struct TrainArgs {
    /// The checkpoint to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    #[command(flatten)]
    machine: Machine,

    /// Only regimes whose name (COST-BURST-LOAD) contains one of these.
    #[arg(long, value_name = "TEXT,...", value_delimiter = ',')]
    regimes: Vec<String>,

    /// Go on from this checkpoint.
    #[arg(long, value_name = "FILE", conflicts_with = "imitate")]
    resume: Option<PathBuf>,

    /// Begin with a network that imitates the fixed rule, instead of a random one.
    #[arg(long)]
    imitate: bool,

    /// How often each regime comes.
    #[arg(long, default_value_t = 3)]
    rounds: u64,

    /// Seed of the agent, the order, and the simulations; those of `ablation run` are others.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Options of `ablation table`.
#[derive(Clone, Debug, clap::Args)]
pub struct TableArgs {
    /// A folder that `ablation run` wrote.
    dir: PathBuf,

    /// Ratios are to this contender, not to the best fixed one of each regime.
    #[arg(long, value_name = "NAME")]
    against: Option<String>,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The subcommand `ablation`.
///
/// # Errors
/// The options make no sense, files cannot be read or written, or a simulation fails.
pub fn run(command: &AblationCommand) -> Result<()> {
    match command {
        AblationCommand::Run(args) => simulate(args),
        AblationCommand::Train(args) => train(args),
        AblationCommand::Adapt(args) => adapt::run(args),
        AblationCommand::Table(args) => table(args),
    }
}

/// A line of results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Cell {
    regime: String,
    contender: String,
    seed: u64,
    score: Score,
}

fn simulate(args: &RunArgs) -> Result<()> {
    fs::create_dir_all(&args.out_dir).with_context(|| format!("creating {}", args.out_dir.display()))?;
    let (part, parts) = match &args.part {
        None => (0, 1),
        Some(text) => text
            .split_once('/')
            .and_then(|(k, n)| Some((k.parse::<usize>().ok()?, n.parse::<usize>().ok()?)))
            .with_context(|| format!("--part {text:?} is not K/N"))?,
    };
    // Before anything starts: that all of it makes sense.
    let setting = args.machine.setting()?;
    let regimes = Regime::named(&args.regimes)?;
    let mut contenders = if args.no_fixed { Vec::new() } else { Contender::all_fixed()? };
    for text in &args.contenders {
        contenders.push(text.parse()?);
    }
    ensure!(!contenders.is_empty(), "nothing is compared: give --contender, or leave out --no-fixed");
    if args.jobs > 1 && args.part.is_none() {
        return share_out(args.jobs);
    }
    let done: Vec<Cell> = read(&args.out_dir)?;
    let is_done = |regime: &str, contender: &str, seed| {
        done.iter().any(|c| c.regime == regime && c.contender == contender && c.seed == seed)
    };
    let mut cells = Vec::new();
    for seed in 1..=args.seeds {
        for regime in &regimes {
            cells.extend(
                contenders.iter().filter(|c| !is_done(&regime.name(), &c.name, seed)).map(|c| (seed, regime, c)),
            );
        }
    }
    let path = args.out_dir.join(format!("results-{part}.jsonl"));
    let cannot_write = || format!("cannot write {}", path.display());
    let torn = fs::read(&path).is_ok_and(|old| old.last().is_some_and(|&last| last != b'\n'));
    let mut out = OpenOptions::new().create(true).append(true).open(&path).with_context(cannot_write)?;
    if torn {
        writeln!(out).with_context(cannot_write)?;
    }
    for (i, (seed, regime, contender)) in cells.into_iter().enumerate() {
        if i % parts.max(1) != part {
            continue;
        }
        let (score, _) = trial::run(&setting, &regime.workload(setting.shape.cpus), contender, seed)
            .with_context(|| format!("{} under {}", contender.name, regime.name()))?;
        let cell = Cell { regime: regime.name(), contender: contender.name.clone(), seed, score };
        writeln!(out, "{}", serde_json::to_string(&cell)?).with_context(cannot_write)?;
    }
    Ok(())
}

/// The same command once for each job, each with a part of the work. A process simulates one machine at a time.
fn share_out(jobs: u64) -> Result<()> {
    let exe = std::env::current_exe().context("finding scx_rl's own program file")?;
    let mut children = Vec::new();
    for k in 0..jobs {
        let child =
            Command::new(&exe).args(std::env::args_os().skip(1)).arg("--part").arg(format!("{k}/{jobs}")).spawn();
        children.push(child.context("starting another scx_rl")?);
    }
    let mut failed = 0;
    for mut child in children {
        failed += u64::from(!child.wait().context("waiting for another scx_rl")?.success());
    }
    ensure!(
        failed == 0,
        "{failed} of {jobs} jobs failed; what they did is kept, and the same command goes on from there"
    );
    Ok(())
}

/// All results in a folder. A last line that is not whole is left out: its writer was stopped.
fn read(dir: &Path) -> Result<Vec<Cell>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .with_context(|| format!("cannot read {}", dir.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "jsonl"))
        .collect();
    paths.sort();
    let mut cells = Vec::new();
    for path in paths {
        let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for (i, line) in BufReader::new(file).lines().enumerate() {
            let line = line.with_context(|| format!("cannot read {}", path.display()))?;
            match serde_json::from_str(&line) {
                Ok(cell) => cells.push(cell),
                Err(e) if e.is_eof() => log::warn!("{}, line {}: not whole, left out", path.display(), i + 1),
                Err(e) => bail!("{}, line {}: {e}", path.display(), i + 1),
            }
        }
    }
    Ok(cells)
}

fn train(args: &TrainArgs) -> Result<()> {
    let setting = args.machine.setting()?;
    let regimes = Regime::named(&args.regimes)?;
    let start = match &args.resume {
        None if args.imitate => Start::Rule,
        None => Start::Random,
        Some(path) => Start::Checkpoint(Box::new(crate::run::load(path)?)),
    };
    let mut agent = start.agent(&setting.hyper, args.seed)?;
    let mut rng = ChaCha8Rng::seed_from_u64(args.seed);
    for round in 0..args.rounds {
        let mut order = regimes.clone();
        order.shuffle(&mut rng);
        for (i, regime) in order.iter().enumerate() {
            // Others than those of `run`, which count from 1.
            let seed = u64::MAX - (args.seed * 1000 + round * 100 + i as u64);
            trial::train(&setting, &regime.workload(setting.shape.cpus), &mut agent, seed, setting.measure_ns)
                .with_context(|| format!("while learning under {}", regime.name()))?;
            let m = agent.metrics();
            log::info!(
                "round {}/{}, {:<18} {:>6} updates, reward {:>8.3} ms, entropy {:.3}, migrated {:.0} %",
                round + 1,
                args.rounds,
                regime.name(),
                m.updates,
                m.reward_ms,
                m.entropy,
                m.migrated_share * 100.0
            );
        }
    }
    let origin = Origin {
        kernel: "simulator".into(),
        topology: format!("{} CPUs, {} LLCs, {} nodes", setting.shape.cpus, setting.shape.llcs, setting.shape.nodes),
        created_at: crate::learning::now_utc(),
        ..Origin::default()
    };
    agent.checkpoint(origin)?.save(&args.out)?;
    print(&format!("checkpoint after {} updates: {}\n", agent.metrics().updates, args.out.display()))
}

/// What the table says of a contender in a group of regimes.
#[derive(Debug, Clone, Serialize)]
struct Row {
    contender: String,
    /// Response of the best fixed balancer of each regime over that of this one: geometric mean over regimes, 95 %
    /// interval over seeds. 1: as good as the best in hindsight.
    response: Estimate,
    /// The same of 99th percentiles, the other way round than throughput: more is better.
    p99: Estimate,
    /// Its throughput over that of the best (by response) fixed one.
    throughput: Estimate,
}

/// The table.
#[derive(Debug, Clone, Serialize)]
struct Table {
    seeds: usize,
    /// By group: `all` (without the control), each cost with each burst, and `control`.
    groups: BTreeMap<String, Vec<Row>>,
    /// The best fixed balancer of each regime, by mean response over all seeds; or what ratios are to instead.
    best: BTreeMap<String, String>,
}

/// Scores of a regime: by contender, then in the order of seeds.
type Scores = BTreeMap<String, Vec<Score>>;

fn table(args: &TableArgs) -> Result<()> {
    let table = summarise(&read(&args.dir)?, args.against.as_deref())?;
    if args.json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&table)?));
    }
    let one = args.against.as_deref().unwrap_or("the best fixed balancer of each regime");
    let mut text = format!("{} seeds; more is better; 1 is {one}\n", table.seeds);
    for (group, rows) in &table.groups {
        text += &format!("\n{group}\n  {:<14}{:>24}{:>24}{:>24}\n", "", "mean response", "p99 response", "throughput");
        for row in rows {
            let [a, b, c] = [&row.response, &row.p99, &row.throughput].map(Estimate::to_string);
            text += &format!("  {:<14}{a:>24}{b:>24}{c:>24}\n", row.contender);
        }
    }
    if args.against.is_none() {
        text += "\nbest fixed balancer\n";
        for (regime, name) in &table.best {
            text += &format!("  {regime:<20}{name}\n");
        }
    }
    print(&text)
}

fn summarise(cells: &[Cell], against: Option<&str>) -> Result<Table> {
    ensure!(!cells.is_empty(), "there are no results");
    let fixed: Vec<String> = match against {
        None => Contender::all_fixed()?.into_iter().map(|c| c.name).collect(),
        Some(name) => vec![name.to_string()],
    };
    let mut by_regime: BTreeMap<String, BTreeMap<String, BTreeMap<u64, Score>>> = BTreeMap::new();
    for cell in cells {
        by_regime
            .entry(cell.regime.clone())
            .or_default()
            .entry(cell.contender.clone())
            .or_default()
            .insert(cell.seed, cell.score.clone());
    }
    // A seed counts if it was simulated everywhere.
    let seeds: Vec<u64> = {
        let all = |seed: &u64| by_regime.values().flat_map(|r| r.values()).all(|scores| scores.contains_key(seed));
        let some = by_regime.values().flat_map(|r| r.values()).flat_map(|s| s.keys()).copied();
        let some: std::collections::BTreeSet<u64> = some.collect();
        some.into_iter().filter(all).collect()
    };
    ensure!(
        seeds.len() >= 2,
        "fewer than two seeds were simulated under all regimes with all contenders: run with --seeds 2 or more"
    );
    let by_regime: BTreeMap<String, Scores> = by_regime
        .into_iter()
        .map(|(regime, scores)| {
            let ordered = scores
                .into_iter()
                .map(|(name, of)| (name, seeds.iter().filter_map(|seed| of.get(seed).cloned()).collect()))
                .collect();
            (regime, ordered)
        })
        .collect();

    let mut best = BTreeMap::new();
    for (regime, scores) in &by_regime {
        let of = |name: &String| scores.get(name).map(|s| mean(s, |s| s.response_mean_us));
        let winner = fixed.iter().filter_map(|name| Some((name, of(name)?))).min_by(|a, b| a.1.total_cmp(&b.1));
        let (winner, _) =
            winner.with_context(|| format!("none of {} was simulated under {regime}", fixed.join(", ")))?;
        best.insert(regime.clone(), winner.clone());
    }

    let mut groups: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for regime in by_regime.keys() {
        let known = Regime::of_name(regime);
        let known = known.with_context(|| format!("the results are of a regime {regime:?}, which this build lacks"))?;
        if known.is_control() {
            groups.entry("control".into()).or_default().push(regime);
        } else {
            groups.entry("all".into()).or_default().push(regime);
            let group = format!("{:?} cost, {:?} bursts", known.cost, known.burst).to_lowercase();
            groups.entry(group).or_default().push(regime);
        }
    }
    let names: std::collections::BTreeSet<&String> = by_regime.values().flat_map(|s| s.keys()).collect();
    let groups = groups
        .into_iter()
        .map(|(group, regimes)| {
            let mut rows: Vec<Row> =
                names.iter().filter_map(|name| row(name, &regimes, &by_regime, &best, seeds.len())).collect();
            rows.sort_by(|a, b| b.response.value.total_cmp(&a.response.value));
            (group, rows)
        })
        .collect();
    Ok(Table { seeds: seeds.len(), groups, best })
}

fn mean(scores: &[Score], of: impl Fn(&Score) -> f64) -> f64 {
    scores.iter().map(of).sum::<f64>() / scores.len().max(1) as f64
}

/// None if the contender was not simulated under all of the regimes.
fn row(
    name: &str,
    regimes: &[&String],
    by_regime: &BTreeMap<String, Scores>,
    best: &BTreeMap<String, String>,
    seeds: usize,
) -> Option<Row> {
    // A seed is one repetition of everything: regimes with the same seed are not independent of each other.
    let of_seed = |seed: usize, of: fn(&Score) -> f64, less_is_better: bool| {
        let ratios: Option<Vec<f64>> = regimes
            .iter()
            .map(|regime| {
                let scores = by_regime.get(*regime)?;
                let (mine, its) = (of(&scores.get(name)?[seed]), of(&scores.get(best.get(*regime)?)?[seed]));
                let ratio = if less_is_better { its / mine } else { mine / its };
                (ratio.is_finite() && ratio > 0.0).then_some(ratio)
            })
            .collect();
        geometric_mean(ratios?)
    };
    let estimate = |of: fn(&Score) -> f64, less_is_better: bool| {
        let values: Option<Vec<f64>> = (0..seeds).map(|seed| of_seed(seed, of, less_is_better)).collect();
        ratio_estimate(&values?)
    };
    Some(Row {
        contender: name.to_string(),
        response: estimate(|s| s.response_mean_us, true)?,
        p99: estimate(|s| s.response_p99_us, true)?,
        throughput: estimate(|s| s.bursts_per_s, false)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(regime: &str, contender: &str, seed: u64, response_mean_us: f64) -> Cell {
        let score = Score {
            bursts_per_s: 1e6 / response_mean_us,
            response_mean_us,
            response_p99_us: 3.0 * response_mean_us,
            wait_mean_us: 0.0,
            utilisation: 0.8,
            refill_share: 0.0,
            moved_share: 0.1,
            decisions_per_s: 1.0,
            migrated_share: 0.5,
            updates: 0,
            entropy: 0.0,
            trusted_share: 1.0,
            distrusted: 0,
        };
        Cell { regime: regime.into(), contender: contender.into(), seed, score }
    }

    #[test]
    fn ratios_are_to_the_best_fixed_one_of_each_regime() {
        let mut cells = Vec::new();
        for seed in 1..=5 {
            for (regime, stay, greedy) in [("none-short-80", 400.0, 200.0), ("high-short-80", 300.0, 600.0)] {
                cells.push(cell(regime, "stay", seed, stay));
                cells.push(cell(regime, "greedy", seed, greedy));
                cells.push(cell(regime, "mine", seed, 150.0));
            }
        }
        // Half a seed does not count.
        cells.push(cell("none-short-80", "stay", 6, 1.0));
        let table = summarise(&cells, None).unwrap();
        assert_eq!(table.seeds, 5);
        assert_eq!((table.best["none-short-80"].as_str(), table.best["high-short-80"].as_str()), ("greedy", "stay"));
        let value = |group: &str, name: &str| {
            table.groups[group].iter().find(|r| r.contender == name).map(|r| r.response.value).unwrap()
        };
        assert!((value("all", "stay") - 0.5f64.sqrt()).abs() < 1e-9);
        assert!((value("all", "mine") - (200.0 / 150.0 * 2.0f64).sqrt()).abs() < 1e-9);
        assert!((value("none cost, short bursts", "greedy") - 1.0).abs() < 1e-9);
        assert_eq!(table.groups["all"][0].contender, "mine", "the best comes first");
        let against = summarise(&cells, Some("mine")).unwrap();
        let stay = against.groups["all"].iter().find(|r| r.contender == "stay").unwrap();
        assert!((stay.response.value - (150.0 * 150.0 / (400.0 * 300.0f64)).sqrt()).abs() < 1e-9);
        assert!(summarise(&cells, Some("nobody")).unwrap_err().to_string().contains("nobody"));
    }

    #[test]
    fn a_line_cut_off_is_left_out_and_a_wrong_one_is_an_error() {
        let dir = std::env::temp_dir().join(format!("scx_rl-ablation-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let whole = serde_json::to_string(&cell("none-short-80", "stay", 1, 1.0)).unwrap();
        let path = dir.join("results-0.jsonl");
        fs::write(&path, format!("{whole}\n{}", &whole[..whole.len() / 2])).unwrap();
        assert_eq!(read(&dir).unwrap().len(), 1);
        fs::write(&path, format!("{{\"regime\": 1}}\n{whole}\n")).unwrap();
        assert!(read(&dir).unwrap_err().to_string().contains("line 1"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
