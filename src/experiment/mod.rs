// SPDX-License-Identifier: GPL-2.0-only
//! `scx_rl experiment`: studies. One file says which schedulers are measured under which workloads, on which machines, how
//! often; everything else follows from it. A study can be interrupted at any moment, and goes on where it was.
//!
//! Reading order: `spec` (the file, by `reader`), `plan` (which cells, in which order), `study` (the folder), `subject` (what a workload
//! is), `work` (who measures), `run` (who starts them), `show`, `report` with `plot`.

mod plan;
mod plot;
mod reader;
mod report;
mod run;
mod show;
mod spec;
mod study;
mod subject;
mod work;

use anyhow::Result;

pub use report::ReportArgs;
pub use run::RunArgs;
pub use show::{CompareArgs, ListArgs, ShowArgs};
pub use work::WorkArgs;

/// Studies: schedulers x workloads x machines x seeds x rounds, from one file.
///
/// A specification (experiments/specs has some) looks like this:
///
///   name = "smoke"
///   about = "Does the fixed rule cost anything?"
///   backend = "vm"                     # or host, or simulator
///   rounds = 3
///   workloads = ["compile", "schbench"]
///
///   [[scheduler]]
///   name = "eevdf"
///
///   [[scheduler]]
///   name = "heuristic"
///   command = "scx_rl --heuristic"     # simulator: balancer = "rule:margin=1"
///
///   [[topology]]
///   cpus = 4
///   llcs = 2
///
/// All of it is checked before anything runs. Each result (cell) is a file of its own; Ctrl-C, a kill or a power cut
/// loses the running cell at most.
///
/// Examples:
///
///   scx_rl experiment run smoke.toml
///   scx_rl experiment run --resume scx_rl-experiments/smoke
///   scx_rl experiment show scx_rl-experiments/smoke
///   scx_rl experiment report scx_rl-experiments/smoke
#[derive(Clone, Debug, clap::Subcommand)]
#[command(verbatim_doc_comment)]
pub enum ExperimentCommand {
    /// Measure all cells of a study, or go on with one.
    Run(RunArgs),
    /// Which studies there are, and how far they are.
    List(ListArgs),
    /// What a study found.
    Show(ShowArgs),
    /// Write a study as a page (report.html, which needs nothing else), as Markdown, and its data: cells as JSON lines, figures as a Parquet
    /// table.
    Report(ReportArgs),
    /// How the schedulers that two studies have in common differ between them.
    Compare(CompareArgs),
    /// What `run` starts.
    #[command(hide = true)]
    Work(WorkArgs),
}

/// The subcommand `experiment`.
///
/// # Errors
/// See its subcommands.
pub fn run(command: &ExperimentCommand) -> Result<()> {
    match command {
        ExperimentCommand::Run(args) => run::run(args),
        ExperimentCommand::List(args) => show::list(args),
        ExperimentCommand::Show(args) => show::run_show(args),
        ExperimentCommand::Report(args) => report::run(args),
        ExperimentCommand::Compare(args) => show::compare(args),
        ExperimentCommand::Work(args) => work::run(args),
    }
}
