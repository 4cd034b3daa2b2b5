// SPDX-License-Identifier: GPL-2.0-only
//! What goes wrong on purpose. All of it is drawn from the simulation's seed.

use anyhow::{Result, ensure};

/// Faults; the default has none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Faults {
    /// Share of the scheduler's events that are lost, as if the ring buffer were full.
    pub lose_events: f64,
    /// A publication takes this long to arrive, ns.
    pub publish_delay_ns: u64,
    /// A CPU is lost to a higher scheduling class, on the mean this long after the last one was, ns; 0: never.
    pub lose_cpu_every_ns: u64,
    /// For this long, on the mean, ns.
    pub lose_cpu_for_ns: u64,
}

impl Faults {
    /// Do the numbers make sense?
    ///
    /// # Errors
    /// They do not.
    pub fn check(&self) -> Result<()> {
        ensure!((0.0..=1.0).contains(&self.lose_events), "{} is not a share of events to lose", self.lose_events);
        ensure!(
            self.lose_cpu_every_ns == 0 || self.lose_cpu_for_ns > 0,
            "a CPU that is lost must be lost for some time"
        );
        Ok(())
    }
}
