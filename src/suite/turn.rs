// SPDX-License-Identifier: GPL-2.0-only
//! A turn: jobs one after the other under one scheduler, which is attached once.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::cell::{self, Cell, Job};
use super::contender::{Attached, Contender};
use super::workload::Site;
use crate::lab::system::{self, KernelLog};
use crate::runqlat::Tracer;

/// How often a scheduler is given the chance to attach in a turn.
const ATTACH_TRIES: usize = 2;

/// What turns need: where workloads run, what measures, and where schedulers' words go.
pub struct Rig<'a> {
    site: &'a Site<'a>,
    tracer: Option<Tracer>,
    kernel_log: KernelLog,
    logs: PathBuf,
}

impl<'a> Rig<'a> {
    /// `logs` is made if it is missing.
    ///
    /// # Errors
    /// The tracer does not start, the kernel's log cannot be read, or the folder cannot be made.
    pub fn new(site: &'a Site<'a>, with_tracer: bool, logs: PathBuf) -> Result<Self> {
        fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))?;
        let tracer = if with_tracer { Some(Tracer::start()?) } else { None };
        Ok(Self { site, tracer, kernel_log: KernelLog::from_now()?, logs })
    }

    /// Those jobs that concern the scheduler, under it. Each cell is handed on as it ends. A scheduler that is thrown out is
    /// attached again for the next job.
    ///
    /// # Errors
    /// The user's wish to stop, what `record` says, or the tracer or the kernel's log cannot be read.
    pub fn turn(
        &mut self,
        contender: &Contender,
        jobs: &[Job],
        (round, position): (usize, usize),
        record: &mut dyn FnMut(Cell) -> Result<()>,
    ) -> Result<()> {
        let place = (round, position, contender.name.as_str());
        let mut attached: Option<Attached> = None;
        let mut refusals = Vec::new();
        for job in jobs.iter().filter(|job| job.concerns(contender)) {
            if attached.is_none() && refusals.len() < ATTACH_TRIES {
                let log = self.logs.join(format!("{}-{}-{}.log", contender.name, round + 1, job.name()));
                match contender.attach(&log, self.site.stop) {
                    Ok(current) => attached = Some(current),
                    Err(_) if self.site.stop.requested() => bail!("interrupted"),
                    Err(error) => refusals.push(format!("it did not attach: {error:#}")),
                }
            }
            let Some(current) = &mut attached else {
                system::wait_detached()?;
                let kernel = self.kernel_log.complaints()?;
                let complaint = refusals.last().cloned().unwrap_or_default();
                record(Cell::refused(*job, place, complaint, kernel))?;
                continue;
            };
            let cell = cell::run(*job, place, current, self.site, &mut self.tracer, &mut self.kernel_log)?;
            let gone = if current.check().is_err() { attached.take() } else { None };
            record(cell)?;
            if let Some(Err(error)) = gone.map(Attached::detach) {
                log::warn!("{}: {error:#}", contender.name);
            }
        }
        if let Some(Err(error)) = attached.map(Attached::detach) {
            log::warn!("{} did not end as it should: {error:#}", contender.name);
        }
        Ok(())
    }
}
