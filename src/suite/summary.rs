// SPDX-License-Identifier: GPL-2.0-only
//! What the cells say: for each figure and scheduler the median, the spread and the ratio to the baseline; for each
//! scheduler the geometric mean of its workloads.
//!
//! A ratio is that of medians over the rounds in which both schedulers have the figure, turned so that more than 1 is
//! better. A workload's ratio is the geometric mean of those of its figures that count, so that a workload with three
//! figures does not count three times; a scheduler's is the geometric mean of its workloads'. Intervals are of 95 %, from
//! rounds drawn with replacement, the same draws for all.

use std::collections::BTreeMap;

use serde::Serialize;

use super::cell::Cell;
use super::workload::{Better, Figure, Workload};
use crate::lab::statistics::{Bootstrap, Estimate, geometric_mean, median, quantile};
use crate::runqlat::{Histogram, Latency};

/// How often rounds are drawn.
const DRAWS: usize = 2000;

/// What schedulers are compared under: a name for each set of figures.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its name.
    pub name: String,
    /// What it is.
    pub about: String,
    /// What it measures.
    pub figures: &'static [Figure],
}

impl From<&Workload> for Subject {
    fn from(workload: &Workload) -> Self {
        Subject { name: workload.name.into(), about: workload.about.into(), figures: workload.figures }
    }
}

/// A figure under one scheduler.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// By round; none where the cell failed.
    pub values: Vec<Option<f64>>,
    /// Of these.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// A quarter is less.
    pub quartile_1: f64,
    /// A quarter is more.
    pub quartile_3: f64,
    /// The most.
    pub max: f64,
    /// To the baseline; more than 1 is better.
    pub ratio: Option<Estimate>,
}

/// A row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct FigureRow {
    /// What it is.
    #[serde(flatten)]
    pub figure: Figure,
    /// By scheduler; those without a value are missing.
    pub schedulers: BTreeMap<String, Measured>,
}

/// A workload's rows.
#[derive(Clone, Debug, Serialize)]
pub struct WorkloadRows {
    /// Its name.
    pub name: String,
    /// What it is.
    pub about: String,
    /// Its figures.
    pub figures: Vec<FigureRow>,
    /// The geometric mean of the ratios that count, by scheduler.
    pub ratio: BTreeMap<String, Estimate>,
}

/// A scheduler as a whole.
#[derive(Clone, Debug, Serialize)]
pub struct Overall {
    /// The geometric mean of the workloads' ratios.
    pub ratio: Estimate,
    /// How many workloads are in it. Fewer than others have: the rest failed, and the mean is not comparable.
    pub workloads: usize,
    /// The counted figure with the lowest ratio.
    pub worst: String,
    /// That ratio.
    pub worst_ratio: f64,
}

/// A cell without figures.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// Which round, from 0.
    pub round: usize,
    /// The scheduler.
    pub scheduler: String,
    /// The workload.
    pub workload: String,
    /// Why.
    pub complaint: String,
    /// The kernel's words.
    pub kernel: Vec<String>,
}

/// All that follows from the cells.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// The rows, by workload.
    pub workloads: Vec<WorkloadRows>,
    /// By scheduler.
    pub geometric_mean: BTreeMap<String, Overall>,
    /// What BPF programs cost, by scheduler and figure: medians.
    pub bpf_cost: BTreeMap<String, BTreeMap<String, f64>>,
    /// Waits of all tasks in all cells, by scheduler.
    pub runqueue_latency: BTreeMap<String, Latency>,
    /// The same, by workload and scheduler.
    pub runqueue_latency_by_workload: BTreeMap<String, BTreeMap<String, Latency>>,
    /// Cells without figures.
    pub failures: Vec<Failure>,
}

/// One figure's values: by scheduler, by round.
type Values = BTreeMap<String, Vec<Option<f64>>>;

/// A counted figure, for the ratios of draws.
struct Counted<'a> {
    workload: usize,
    label: String,
    better: Better,
    values: &'a Values,
}

impl Counted<'_> {
    /// Of these rounds; more than 1 is better. None where no round has both, or a median is not positive.
    fn ratio(&self, scheduler: &str, baseline: &str, rounds: &[usize]) -> Option<f64> {
        let (mine, base) = (self.values.get(scheduler)?, self.values.get(baseline)?);
        let both: (Vec<f64>, Vec<f64>) =
            rounds.iter().filter_map(|&round| (*mine.get(round)?).zip(*base.get(round)?)).unzip();
        let (mine, base) = (median(both.0), median(both.1));
        let ratio = if self.better == Better::Higher { mine / base } else { base / mine };
        (ratio.is_finite() && ratio > 0.0).then_some(ratio)
    }
}

/// The geometric mean over workloads of the geometric means over each one's figures; and over how many workloads.
fn mean_of(figures: &[&Counted<'_>], ratio: impl Fn(&Counted<'_>) -> Option<f64>) -> Option<(f64, usize)> {
    let mut by_workload: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for figure in figures {
        if let Some(ratio) = ratio(figure) {
            by_workload.entry(figure.workload).or_default().push(ratio);
        }
    }
    let count = by_workload.len();
    Some((geometric_mean(by_workload.into_values().filter_map(geometric_mean))?, count))
}

impl Findings {
    /// What these cells say of these schedulers, compared with `baseline`.
    pub fn new(cells: &[Cell], schedulers: &[String], baseline: &str, workloads: &[Subject], seed: u64) -> Findings {
        let rounds = cells.iter().map(|cell| cell.round + 1).max().unwrap_or(0);
        let bootstrap = Bootstrap::new(rounds, DRAWS, seed);
        let tables: Vec<Vec<Values>> = workloads
            .iter()
            .map(|workload| workload.figures.iter().map(|f| values(cells, &workload.name, f.name, rounds)).collect())
            .collect();
        let every: Vec<Vec<Counted<'_>>> = workloads
            .iter()
            .zip(&tables)
            .enumerate()
            .map(|(number, (workload, table))| {
                let counted = |(figure, values): (&Figure, _)| Counted {
                    workload: number,
                    label: format!("{} {}", workload.name, figure.name),
                    better: figure.better,
                    values,
                };
                workload.figures.iter().zip(table).map(counted).collect()
            })
            .collect();
        let counts = |number: usize| -> Vec<&Counted<'_>> {
            every[number].iter().zip(workloads[number].figures).filter(|(_, f)| f.counts).map(|(c, _)| c).collect()
        };
        let mean = |figures: &[&Counted<'_>], scheduler: &str| {
            bootstrap.estimate(|draw| Some(mean_of(figures, |f| f.ratio(scheduler, baseline, draw))?.0))
        };
        let rows = workloads.iter().enumerate().map(|(number, workload)| WorkloadRows {
            name: workload.name.clone(),
            about: workload.about.clone(),
            figures: workload
                .figures
                .iter()
                .zip(&every[number])
                .map(|(figure, counted)| FigureRow {
                    figure: *figure,
                    schedulers: schedulers
                        .iter()
                        .filter_map(|name| {
                            let ratio = bootstrap.estimate(|draw| counted.ratio(name, baseline, draw));
                            Some((name.clone(), measured(counted.values.get(name)?, ratio)?))
                        })
                        .collect(),
                })
                .collect(),
            ratio: schedulers.iter().filter_map(|name| Some((name.clone(), mean(&counts(number), name)?))).collect(),
        });
        let all_counted: Vec<&Counted<'_>> = (0..workloads.len()).flat_map(counts).collect();
        let all_rounds: Vec<usize> = (0..rounds).collect();
        let overall = |name: &String| {
            let of_all = |figure: &Counted<'_>| figure.ratio(name, baseline, &all_rounds);
            let worst = all_counted.iter().filter_map(|figure| Some((figure.label.clone(), of_all(figure)?)));
            let (worst, worst_ratio) = worst.min_by(|a, b| a.1.total_cmp(&b.1))?;
            let (_, workloads) = mean_of(&all_counted, of_all)?;
            Some((name.clone(), Overall { ratio: mean(&all_counted, name)?, workloads, worst, worst_ratio }))
        };
        Findings {
            workloads: rows.collect(),
            geometric_mean: schedulers.iter().filter_map(overall).collect(),
            bpf_cost: bpf_cost(cells, schedulers),
            runqueue_latency: waits(cells, schedulers, |_| true),
            runqueue_latency_by_workload: workloads
                .iter()
                .map(|workload| {
                    (workload.name.clone(), waits(cells, schedulers, |cell| cell.workload == workload.name))
                })
                .collect(),
            failures: failures(cells),
        }
    }
}

fn values(cells: &[Cell], workload: &str, figure: &str, rounds: usize) -> Values {
    let mut values = Values::new();
    for cell in cells.iter().filter(|cell| cell.workload == workload) {
        let row = values.entry(cell.scheduler.clone()).or_insert_with(|| vec![None; rounds]);
        row[cell.round] = cell.figures.get(figure).copied();
    }
    values
}

fn measured(values: &[Option<f64>], ratio: Option<Estimate>) -> Option<Measured> {
    let known: Vec<f64> = values.iter().flatten().copied().collect();
    let at = |q| quantile(known.iter().copied(), q);
    (!known.is_empty()).then(|| Measured {
        values: values.to_vec(),
        median: at(0.5),
        min: at(0.0),
        quartile_1: at(0.25),
        quartile_3: at(0.75),
        max: at(1.0),
        ratio,
    })
}

fn bpf_cost(cells: &[Cell], schedulers: &[String]) -> BTreeMap<String, BTreeMap<String, f64>> {
    let of = |name: &String| {
        let mine: Vec<&Cell> =
            cells.iter().filter(|c| c.workload == super::bpf_cost::NAME && &c.scheduler == name).collect();
        let figures = super::bpf_cost::figures().into_iter().filter_map(|figure| {
            let known: Vec<f64> = mine.iter().filter_map(|cell| cell.figures.get(figure).copied()).collect();
            (!known.is_empty()).then(|| (figure.to_string(), median(known)))
        });
        let figures: BTreeMap<String, f64> = figures.collect();
        (!figures.is_empty()).then(|| (name.clone(), figures))
    };
    schedulers.iter().filter_map(of).collect()
}

fn waits(cells: &[Cell], schedulers: &[String], which: impl Fn(&Cell) -> bool) -> BTreeMap<String, Latency> {
    let of = |name: &String| {
        let mut histogram = Histogram::default();
        // Not the cost of BPF: there every program is slower. Nor failures: somebody else scheduled.
        let fit = |cell: &&Cell| {
            &cell.scheduler == name && cell.workload != super::bpf_cost::NAME && cell.complaint.is_none() && which(cell)
        };
        for counts in cells.iter().filter(fit).filter_map(|cell| cell.counts.as_ref()) {
            counts.waits.iter().for_each(|waits| histogram.merge(waits));
        }
        (histogram.samples() > 0).then(|| (name.clone(), Latency::new(&histogram)))
    };
    schedulers.iter().filter_map(of).collect()
}

fn failures(cells: &[Cell]) -> Vec<Failure> {
    let failed = cells.iter().filter_map(|cell| {
        Some(Failure {
            round: cell.round,
            scheduler: cell.scheduler.clone(),
            workload: cell.workload.clone(),
            complaint: cell.complaint.clone()?,
            kernel: cell.kernel.clone(),
        })
    });
    failed.collect()
}

#[cfg(test)]
mod tests;
