// SPDX-License-Identifier: GPL-2.0-only
//! The command line. The doc comments are the help text.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::exporter;
use crate::kernel::SchedulerConfig;
use crate::kernel::domains::DomainSpec;
use crate::kernel::scheduler::MigrationLimits;
use crate::policy::rule::Rule;
use crate::policy::{
    RL_WITHOUT_credit, RL_WITHOUT_depth, RL_WITHOUT_preempt, RL_WITHOUT_queued, RL_WITHOUT_request, RL_WITHOUT_sync,
    RL_WITHOUT_yield,
};

/// scx_rl: a sched_ext scheduler whose load balancer learns from measured runqueue latency.
///
/// CPUs are grouped into domains, by default one for each last-level cache.
/// Within a domain tasks share a queue ordered by weighted virtual time.
/// Between domains a small neural network decides, in the kernel, in about
/// 0.1 us: when a task wakes and its home domain has no idle CPU (WAKE: stay or
/// go elsewhere?), and when a CPU runs out of work while tasks wait in another
/// domain (PULL: take one or not?). With --learn, a sample of these decisions is
/// logged with the wait that resulted, an agent in this process keeps improving
/// the network from them, publishes it into the kernel every second, and writes
/// checkpoints.
///
/// The network only chooses among legal actions: pinned tasks and per-CPU kernel
/// threads are never moved, and a bound on waiting (--wait-bound-ms) overrides
/// it. If this process dies, the kernel goes back to its default scheduler; if
/// it is stopped, scheduling goes on with the last weights.
///
/// Examples:
///
///   scx_rl                                 use the policy that comes with it
///   scx_rl --learn --checkpoint-dir DIR    learn, beginning as the fixed rule
///   scx_rl --learn --resume FILE           go on learning
///   scx_rl --frozen FILE                   use what was learned here
///   scx_rl --heuristic                     the fixed rule, to compare with
///   scx_rl --monitor 1                     watch one that runs
#[derive(Debug, Parser)]
#[command(name = "scx_rl", verbatim_doc_comment, disable_version_flag = true, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Options of the scheduler.
    #[clap(flatten)]
    pub opts: Opts,

    /// Tools.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Tools around the scheduler.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look at checkpoints, compare them, and export their policy.
    #[command(subcommand)]
    Checkpoint(crate::checkpoints::CheckpointCommand),
    /// Learn offline from a recording, exactly as the recorded run did, and write the checkpoint that results.
    Replay(ReplayArgs),
    Ope(crate::ope::OpeArgs),
    Explain(crate::explain::ExplainArgs),
    Timeline(crate::timeline::TimelineArgs),
    #[command(subcommand)]
    Fleet(crate::fleet::FleetCommand),
    Runqlat(crate::runqlat::RunqlatArgs),
    /// What a decision costs in the kernel of this machine, by BPF test_run (no sched_ext needed); or, with --learner, what
    /// learning costs.
    Bench(crate::bench::BenchArgs),
    Verifier(crate::verifier::VerifierArgs),
    /// Boot a kernel that has sched_ext in a VM, on this machine's own file system, and run a command in it.
    Vm(crate::vm::VmArgs),
    Demo(crate::demo::DemoArgs),
    Suite(crate::suite::SuiteArgs),
    #[command(subcommand)]
    Experiment(crate::experiment::ExperimentCommand),
    Progs(crate::progs::ProgsArgs),
    Sim(crate::sim::command::SimArgs),
    #[command(subcommand)]
    Ablation(crate::sim::ablation::AblationCommand),
    Locality(crate::locality::LocalityArgs),
    /// Print what completes the command line in a shell: source it, or put it where the shell looks for such files.
    Completions {
        /// The shell that it is for.
        shell: clap_complete::Shell,
    },
    /// Write the man pages: scx_rl.1, and one for each subcommand.
    Man {
        /// Where they go. Created if missing.
        dir: PathBuf,
    },
}

/// Options of `scx_rl replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// A recording that --record wrote.
    pub recording: PathBuf,
    /// The checkpoint that the recorded run resumed from, if it did.
    #[clap(long, value_name = "FILE")]
    pub resume: Option<PathBuf>,
    /// Where to write the resulting checkpoint.
    #[clap(long, value_name = "FILE")]
    pub checkpoint: PathBuf,
}

/// Which balancer decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Balancer {
    /// The network, while it learns.
    Learn,
    /// The network, fixed.
    Frozen,
    /// The network, fixed, always its better action.
    Greedy,
    /// The fixed rule.
    Heuristic,
    /// A fair coin.
    Random,
}

/// What the options of learning contradict. (Besides `requires = "learn"`, which clap drops where another balancer is given.)
const NOT_LEARNING: [&str; 3] = ["frozen", "heuristic", "random"];

/// Options of the scheduler.
#[derive(Debug, Clone, Args)]
pub struct Opts {
    /// Learn online: act stochastically, log decisions with their outcome, update the network, publish, checkpoint.
    #[clap(long, group = "balancer", help_heading = "Balancer (choose one)")]
    pub learn: bool,

    /// Use the network of this checkpoint as it is, without learning and without the probability floor of --learn. Its actions
    /// are drawn: who takes the better one always, under all the same circumstances, never finds out what others would cost.
    #[clap(long, group = "balancer", value_name = "FILE", help_heading = "Balancer (choose one)")]
    pub frozen: Option<PathBuf>,

    /// Without learning: take the action of higher probability always. A comparison; it is worse in the simulator.
    #[clap(long, conflicts_with_all = ["learn", "heuristic", "random", "monitor"], help_heading = "Balancer (choose one)")]
    pub greedy: bool,

    /// Use the fixed rule: move where a CPU is idle, or where the queue is shorter by a task per CPU.
    #[clap(long, group = "balancer", help_heading = "Balancer (choose one)")]
    pub heuristic: bool,

    /// Change the fixed rule. A task moves if the queue at home is longer, per CPU, by margin=TASKS; by numa=TASKS at
    /// least across NUMA nodes; by hot-margin=TASKS if it left its CPU less than hot-ms=MS ago (give both). idle=TASKS:
    /// an idle CPU there counts as a queue shorter by this; idle=always: then it always moves. age-us=US: it moves only
    /// if somebody at home has waited for this long, or a CPU there is idle. Default: margin=1,numa=2,idle=always.
    #[clap(long, value_name = "PARTS", requires = "heuristic", help_heading = "Balancer (choose one)")]
    pub rule: Option<Rule>,

    /// Decide every migration by a fair coin: an ablation that shows what exploration alone does. Not for daily use.
    #[clap(long, group = "balancer", help_heading = "Balancer (choose one)")]
    pub random: bool,

    /// Go on from this checkpoint instead of an imitation of the fixed rule.
    #[clap(long, value_name = "FILE", requires = "learn", conflicts_with_all = NOT_LEARNING, help_heading = "Learning")]
    pub resume: Option<PathBuf>,

    /// Go on from latest.safetensors in --checkpoint-dir if it is there, as a service does that is started again. One that this
    /// version refuses is kept as refused.safetensors, and learning begins anew.
    #[clap(long = "continue", requires = "learn", conflicts_with_all = NOT_LEARNING, conflicts_with_all = ["resume", "from_scratch"],
           help_heading = "Learning")]
    pub go_on: bool,

    /// Begin with a network of random numbers: nearly a fair coin. Without it, a fresh one imitates the fixed rule.
    #[clap(long, requires = "learn", conflicts_with_all = NOT_LEARNING, conflicts_with = "resume", help_heading = "Learning")]
    pub from_scratch: bool,

    /// Switch the guard off, and the gate: the network decides all of the time, and every update is published that
    /// passes the checks. The guard compares it with the fixed rule in short windows of random order, gives it 20 to
    /// 95 % of the time, aiming at a cost of at most 3 % of response times, and pauses it if it is worse.
    #[clap(long, requires = "learn", conflicts_with_all = NOT_LEARNING, help_heading = "Learning")]
    pub no_guard: bool,

    /// Folder for checkpoints; the newest is always latest.safetensors. It is replaced atomically; a failure to write
    /// is reported, and learning goes on. SIGUSR1 writes one at once.
    #[clap(long, value_name = "DIR", default_value = "checkpoints", requires = "learn", conflicts_with_all = NOT_LEARNING, help_heading = "Learning")]
    pub checkpoint_dir: PathBuf,

    /// Seconds between checkpoints. One is also written at exit.
    #[clap(long, value_name = "SEC", default_value_t = 60.0, value_parser = positive, requires = "learn", conflicts_with_all = NOT_LEARNING,
           help_heading = "Learning")]
    pub checkpoint_every: f64,

    /// Keep the last N checkpoints as at-UPDATES.safetensors, too. Whatever N is, best.safetensors is the one whose
    /// policy cost least by what the guard measured, at the upper end of the 95 % interval; best.json says how much.
    #[clap(long, value_name = "N", default_value_t = 0, requires = "learn", conflicts_with_all = NOT_LEARNING, help_heading = "Learning")]
    pub checkpoint_keep: usize,

    /// Seconds between looks whether there is a newer network to publish.
    #[clap(long, value_name = "SEC", default_value_t = 1.0, value_parser = positive, requires = "learn", conflicts_with_all = NOT_LEARNING,
           help_heading = "Learning")]
    pub publish_every: f64,

    /// Seed of everything random in the agent. With --record, the same events give the same weights, bit for bit.
    #[clap(long, default_value_t = 1, requires = "learn", conflicts_with_all = NOT_LEARNING, help_heading = "Learning")]
    pub seed: u64,

    /// Least probability of each action while learning. Exploration costs latency: keep it small. (With --slices, where a turn
    /// may end: 1/50 at least, if it is not 0.)
    #[clap(long, value_name = "P", default_value_t = 0.001, value_parser = floor, requires = "learn", conflicts_with_all = NOT_LEARNING,
           help_heading = "Learning")]
    pub explore_floor: f64,

    /// Write every event to this file, to learn from offline (`scx_rl replay`), or to judge policies by (`scx_rl ope`).
    #[clap(long, value_name = "FILE", requires = "learn", conflicts_with_all = NOT_LEARNING, help_heading = "Learning")]
    pub record: Option<PathBuf>,

    /// Stop recording at this size.
    #[clap(long, value_name = "MIB", default_value_t = 1024, requires = "learn", conflicts_with_all = NOT_LEARNING, help_heading = "Learning")]
    pub record_limit_mib: u64,

    /// How many decisions to log, at most, per second: beyond that a random sample is taken (1 in 2, 4, 8, ...).
    #[clap(long, value_name = "N", default_value_t = 2000,
           value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "Learning")]
    pub events_per_sec: u32,

    /// Keep this process on these CPUs, such as 0 or 0-1, so that learning disturbs the others less.
    #[clap(long, value_name = "CPUS", help_heading = "Agent process")]
    pub agent_cpus: Option<String>,

    /// Nice value of this process.
    #[clap(long, default_value_t = 5, value_parser = clap::value_parser!(i32).range(-20..=19),
           allow_hyphen_values = true, help_heading = "Agent process")]
    pub agent_nice: i32,

    /// If this process grows beyond this, it stops learning (the last weights stay) and says so.
    #[clap(long, value_name = "MIB", default_value_t = 512,
           value_parser = clap::value_parser!(u64).range(32..), help_heading = "Agent process")]
    pub agent_memory_mib: u64,

    /// How CPUs form domains: llc, l2, numa, virt:MIN-MAX (LLCs split into parts of MIN to MAX cores), or explicit lists
    /// such as cpus:0-3/4-7. On a machine with a single LLC, choose one that gives at least two domains.
    #[clap(long, value_name = "HOW", default_value = "llc", help_heading = "Scheduling")]
    pub domains: DomainSpec,

    /// A task keeps its CPU for at most this long while others wait, microseconds. Divided by the number of tasks that
    /// share the CPU; tasks that run for a moment only do not wait for it, they preempt.
    #[clap(long, value_name = "USEC", default_value_t = SchedulerConfig::DEFAULT.slice_ns / 1000,
           value_parser = clap::value_parser!(u64).range(100..=100_000), help_heading = "Scheduling")]
    pub slice_us: u64,

    /// And for at least this long, however many wait, microseconds. Looked at when the kernel's timer ticks.
    #[clap(long, value_name = "USEC", default_value_t = SchedulerConfig::DEFAULT.slice_min_ns / 1000,
           value_parser = clap::value_parser!(u64).range(100..=100_000), help_heading = "Scheduling")]
    pub slice_min_us: u64,

    /// The policy chooses how long turns last, too: while others wait, each tick of the kernel's timer (often 4 ms) after
    /// --slice-min-us asks whether the turn goes on, up to --slice-us. With --learn, --frozen or --random; a checkpoint must
    /// have been learned with it. Experimental.
    #[clap(long, conflicts_with = "heuristic", help_heading = "Scheduling")]
    pub slices: bool,

    /// Of the checkpoint's policy only how long turns last: between domains the fixed rule decides. With --frozen and
    /// --slices.
    #[clap(long, requires = "slices", conflicts_with_all = ["learn", "heuristic", "random", "greedy"],
           help_heading = "Scheduling")]
    pub only_slices: bool,

    /// Switch off mechanisms of the base scheduler, to measure what each is worth. For experiments only.
    #[clap(long, value_name = "PART", value_enum, value_delimiter = ',', help_heading = "Scheduling")]
    pub without: Vec<Mechanism>,

    /// The policy cannot make a task wait longer than this while a CPU that may run it is idle, milliseconds.
    #[clap(long, value_name = "MSEC", default_value_t = SchedulerConfig::DEFAULT.wait_bound_ns / 1_000_000,
           value_parser = clap::value_parser!(u64).range(1..=1000), help_heading = "Scheduling")]
    pub wait_bound_ms: u64,

    /// Decisions move at most so many tasks out of each domain per second, by distance: CLASS=N with smt (one core), llc
    /// (one last-level cache), node (one NUMA node) and numa. The bound on waiting does not count. Default: no limit.
    #[clap(long, value_name = "CLASS=N,...", help_heading = "Scheduling")]
    pub max_migrations: Option<MigrationLimits>,

    /// Print statistics every SEC seconds while the scheduler runs. With --learn the default is 5; 0 for none.
    #[clap(long, value_name = "SEC", value_parser = not_negative, help_heading = "Watching")]
    pub stats: Option<f64>,

    /// Do not schedule: show a running scx_rl, every SEC seconds anew: busy domains, waits, decisions, learning. A line
    /// each time, as --stats does, if the output is not a terminal.
    #[clap(long, value_name = "SEC", value_parser = positive, conflicts_with = "balancer", help_heading = "Watching")]
    pub monitor: Option<f64>,

    /// Serve what is measured to Prometheus at this address, by default 127.0.0.1:9764, which only this machine can read.
    #[clap(long, value_name = "ADDRESS:PORT", num_args = 0..=1, require_equals = true,
           default_missing_value = exporter::DEFAULT_ADDRESS, conflicts_with = "monitor", help_heading = "Watching")]
    pub prometheus: Option<SocketAddr>,

    /// Describe the statistics and exit.
    #[clap(long, help_heading = "Watching")]
    pub help_stats: bool,

    /// Write the final statistics as JSON to this file at exit.
    #[clap(long, value_name = "FILE", conflicts_with = "monitor", help_heading = "Watching")]
    pub summary: Option<PathBuf>,

    /// Detach and exit after this many seconds. Default: run until SIGINT or SIGTERM.
    #[clap(long, value_name = "SEC", value_parser = positive, conflicts_with = "monitor")]
    pub duration: Option<f64>,

    /// More log messages, from libbpf too. Twice for debugging.
    #[clap(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,

    /// Print the version and exit.
    #[clap(long, short = 'V')]
    pub version: bool,
}

/// A mechanism of the base scheduler that an ablation can switch off; `RL_MECHANISMS` in intf.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mechanism {
    /// A waking task takes a CPU from one with a much later deadline
    Preempt,
    /// A wakee waits for its waker's CPU when that is faster than an idle one
    Sync,
    /// A yield just after a task began to run is ignored
    Yield,
    /// Slices are shorter for tasks that do not sleep, and in long queues
    Depth,
    /// Deadlines: short bursts go first among tasks with equal service
    Request,
    /// A sleeper comes back ahead of those that ran meanwhile
    Credit,
    /// Wakeups get to other CPUs by interrupts
    Queued,
}

impl Mechanism {
    /// Its bit for BPF.
    pub fn bit(self) -> u32 {
        match self {
            Mechanism::Preempt => RL_WITHOUT_preempt,
            Mechanism::Sync => RL_WITHOUT_sync,
            Mechanism::Yield => RL_WITHOUT_yield,
            Mechanism::Depth => RL_WITHOUT_depth,
            Mechanism::Request => RL_WITHOUT_request,
            Mechanism::Credit => RL_WITHOUT_credit,
            Mechanism::Queued => RL_WITHOUT_queued,
        }
    }
}

impl Opts {
    /// The balancer that was chosen; without a choice the network of the built-in checkpoint.
    pub fn balancer(&self) -> Balancer {
        match (self.learn, self.heuristic, self.random) {
            (true, ..) => Balancer::Learn,
            (_, true, _) => Balancer::Heuristic,
            (.., true) => Balancer::Random,
            _ if self.greedy => Balancer::Greedy,
            _ => Balancer::Frozen,
        }
    }
}

fn positive(s: &str) -> Result<f64, String> {
    match s.parse::<f64>() {
        Ok(v) if v > 0.0 && v < 1e9 => Ok(v),
        _ => Err(format!("{s:?} is not a positive number of seconds")),
    }
}

fn not_negative(s: &str) -> Result<f64, String> {
    if s == "0" { Ok(0.0) } else { positive(s) }
}

pub(crate) fn floor(s: &str) -> Result<f64, String> {
    match s.parse::<f64>() {
        Ok(v) if (0.0..=0.5).contains(&v) => Ok(v),
        _ => Err(format!("{s:?} is not a probability between 0 and 0.5")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn contradictions_are_refused() {
        for args in [
            &["--learn", "--heuristic"][..],
            &["--learn", "--frozen", "x"],
            &["--frozen", "x", "--resume", "y"],
            &["--learn", "--greedy"],
            &["--heuristic", "--greedy"],
            &["--heuristic", "--checkpoint-dir", "d"],
            &["--monitor", "1", "--learn"],
            &["--heuristic", "--slices"],
            &["--frozen", "x", "--only-slices"],
            &["--learn", "--slices", "--only-slices"],
            &["--learn", "--explore-floor", "0.6"],
            &["--learn", "--duration", "-1"],
            &["--learn", "--domains", "l9"],
            &["--learn", "--stats", "x"],
            &["--learn", "--stats", "-1"],
        ] {
            let parsed = Cli::try_parse_from([&["scx_rl"], args].concat());
            let Err(err) = parsed else { panic!("{args:?} must be refused") };
            assert_eq!(err.exit_code(), 2, "{args:?}: {err}");
        }
        assert!(Cli::try_parse_from(["scx_rl", "--learn", "--seed", "7", "--domains", "cpus:0-1/2-3"]).is_ok());
    }
}
