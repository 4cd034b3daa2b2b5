// SPDX-License-Identifier: GPL-2.0-only
//! `scx_rl verifier`: what the kernel's verifier had to do for each of our BPF programs, now and in a record that is
//! kept, so that a change that makes verification much dearer is seen before some kernel refuses to load the program.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::kernel::preflight::kernel_release;
use crate::kernel::programs::{self, ProgramCost};
use crate::process::print;
use crate::runqlat;

/// What a program may cost more than in the record: both this part of it...
const TOLERATED_PERCENT: u64 = 10;
/// ... and this many instructions.
const TOLERATED_INSNS: u64 = 500;

/// What the kernel's verifier has to do for each BPF program (verified instructions), and how large they are. Loads the
/// programs, attaches nothing. Needs root and a kernel with sched_ext.
#[derive(Debug, clap::Args)]
pub struct VerifierArgs {
    /// Print JSON.
    #[clap(long)]
    pub json: bool,

    /// Fail if a program needs more than 10 % and more than 500 instructions more than this record has for this kernel.
    #[clap(long, value_name = "FILE", conflicts_with = "record")]
    pub compare: Option<PathBuf>,

    /// Put what is found into this record, in the place of what it has for this kernel.
    #[clap(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

/// Programs of each kernel series (`6.17`).
type Record = BTreeMap<String, Vec<ProgramCost>>;

/// The subcommand.
///
/// # Errors
/// When the programs do not load, the record cannot be used, or a program costs more than the record allows.
pub fn run(args: &VerifierArgs) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "loading BPF programs needs root: run it with sudo");
    let record = args.compare.as_deref().map(read).transpose()?;
    let mut costs = programs::of_scheduler().context("the scheduler's programs do not load")?;
    costs.extend(runqlat::programs().context("the tracer's programs do not load")?);
    let series = series(&kernel_release());
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&costs)?))?;
    } else {
        print(&table(&series, &costs))?;
    }
    if let Some(path) = &args.record {
        let mut record = if path.exists() { read(path)? } else { Record::new() };
        record.insert(series, costs);
        let text = serde_json::to_string_pretty(&record)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write the record {}", path.display()))?;
    } else if let (Some(record), Some(path)) = (record, &args.compare) {
        let programs = costs.len();
        let dearer = compare(&record, &series, &costs).with_context(|| format!("compared with {}", path.display()))?;
        if !dearer.is_empty() {
            bail!(
                "dearer to verify on Linux {series} than the record {} allows:\n  {}\nIf that is wanted, refresh the \
                 record with `make verifier-record`.",
                path.display(),
                dearer.join("\n  ")
            );
        }
        print(&format!("{programs} programs, none much dearer to verify on Linux {series} than in the record\n"))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Record> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the verifier record {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is no verifier record; `make verifier-record` writes one", path.display()))
}

/// `6.17` of `6.17.13+deb13-cloud-amd64`.
fn series(release: &str) -> String {
    let end = |c: char| !c.is_ascii_digit();
    release.split('.').take(2).filter_map(|part| part.split(end).next()).collect::<Vec<_>>().join(".")
}

/// A sentence for each program that costs too much more than in the record.
fn compare(record: &Record, series: &str, costs: &[ProgramCost]) -> Result<Vec<String>> {
    let known: Vec<_> = record.keys().cloned().collect();
    let recorded = record.get(series).with_context(|| {
        format!("it has no kernel {series}, only {}: `make verifier-record` refreshes it", known.join(", "))
    })?;
    let mut dearer = Vec::new();
    for cost in costs {
        let now = u64::from(cost.verified_insns);
        let before = recorded.iter().find(|r| r.name == cost.name).map(|r| u64::from(r.verified_insns));
        let base = before.unwrap_or(0);
        if now > base + TOLERATED_INSNS && now * 100 > base * (100 + TOLERATED_PERCENT) {
            dearer.push(match before {
                Some(before) => {
                    format!("{}: {now} verified instructions; {before} instructions in the record", cost.name)
                }
                None => format!("{}: {now} verified instructions; it is not in the record", cost.name),
            });
        }
    }
    Ok(dearer)
}

fn table(series: &str, costs: &[ProgramCost]) -> String {
    let mut text = format!("Linux {series:<22} verified insns  jited bytes  xlated bytes\n");
    for c in costs {
        let _ =
            writeln!(text, "{:<28} {:>14}  {:>11}  {:>12}", c.name, c.verified_insns, c.jited_bytes, c.xlated_bytes);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(name: &str, verified_insns: u32) -> ProgramCost {
        ProgramCost { name: name.into(), verified_insns, jited_bytes: 1, xlated_bytes: 1 }
    }

    #[test]
    fn only_what_is_much_dearer_is_told() {
        let record = Record::from([("6.17".to_owned(), vec![cost("small", 100), cost("large", 100_000)])]);
        let compare = |costs: &[ProgramCost]| compare(&record, "6.17", costs).unwrap();
        assert!(compare(&[cost("small", 600), cost("large", 110_000), cost("new", 500)]).is_empty());
        assert!(compare(&[cost("small", 50)]).is_empty());
        assert_eq!(
            compare(&[cost("small", 601)]),
            ["small: 601 verified instructions; 100 instructions in the record"]
        );
        assert_eq!(compare(&[cost("large", 110_001)]).len(), 1);
        assert_eq!(compare(&[cost("new", 501)]), ["new: 501 verified instructions; it is not in the record"]);
    }

    #[test]
    fn an_unknown_kernel_is_an_error() {
        let record = Record::from([("6.17".to_owned(), vec![]), ("7.2".to_owned(), vec![])]);
        let error = compare(&record, "6.19", &[]).unwrap_err().to_string();
        assert_eq!(error, "it has no kernel 6.19, only 6.17, 7.2: `make verifier-record` refreshes it");
    }

    #[test]
    fn a_series_is_two_numbers() {
        assert_eq!(series("6.17.13+deb13-cloud-amd64"), "6.17");
        assert_eq!(series("7.0-rc3"), "7.0");
        assert_eq!(series("6.18+"), "6.18");
    }
}
