// SPDX-License-Identifier: GPL-2.0-only
//! What this process may do: as root, no more than it needs, and most of that only while it loads and attaches, at the start
//! and when the kernel asks for a restart. Without root, what it was given (dist/scx_rl.service gives it three).

use anyhow::{Context, Result};
use caps::{CapSet, Capability, CapsHashSet};

/// For loading BPF programs and attaching them, and for a moment of real time meanwhile.
const ATTACHING: [Capability; 3] = [Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_SYS_NICE];
/// For checkpoints, recordings and summaries in a folder of the user that called sudo.
const FILES: [Capability; 1] = [Capability::CAP_DAC_OVERRIDE];

/// What of these the process may take up.
fn permitted(wanted: impl IntoIterator<Item = Capability>) -> Result<CapsHashSet> {
    let has = caps::read(None, CapSet::Permitted).context("cannot read this process's capabilities")?;
    Ok(wanted.into_iter().filter(|capability| has.contains(capability)).collect())
}

/// Give up for good what is never needed, and for now what is needed to attach only. Of the calling thread and of those that
/// it starts afterwards.
///
/// # Errors
/// The kernel refuses.
pub fn limit() -> Result<()> {
    let context = "cannot give up capabilities";
    let keep = permitted(ATTACHING.into_iter().chain(FILES))?;
    // What has none of root's power cannot, and need not, take it from programs that it might run.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).context(context)? {
        for capability in caps::read(None, CapSet::Bounding).context(context)?.difference(&keep) {
            caps::drop(None, CapSet::Bounding, *capability).context(context)?;
        }
    }
    caps::clear(None, CapSet::Ambient).context(context)?;
    caps::clear(None, CapSet::Inheritable).context(context)?;
    caps::set(None, CapSet::Effective, &permitted(FILES)?).context(context)?;
    caps::set(None, CapSet::Permitted, &keep).context(context)
}

/// Do something that takes what attaching takes.
///
/// # Errors
/// Those of `work`, or the kernel refuses what was permitted.
pub fn while_attaching<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let all = permitted(ATTACHING.into_iter().chain(FILES))?;
    caps::set(None, CapSet::Effective, &all).context("cannot take up the capabilities to attach")?;
    let result = work();
    caps::set(None, CapSet::Effective, &permitted(FILES)?).context("cannot give up the capabilities to attach")?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a thread of its own: capabilities are a thread's.
    #[test]
    fn what_is_given_up_is_gone_and_the_rest_is_there_while_it_is_needed() {
        std::thread::spawn(|| {
            let had = caps::read(None, CapSet::Permitted).unwrap();
            limit().unwrap();
            let effective = || caps::read(None, CapSet::Effective).unwrap();
            let files: CapsHashSet = FILES.into_iter().filter(|c| had.contains(c)).collect();
            assert_eq!(effective(), files);
            let all: CapsHashSet = ATTACHING.into_iter().chain(FILES).filter(|c| had.contains(c)).collect();
            while_attaching(|| {
                assert_eq!(effective(), all);
                Ok(())
            })
            .unwrap();
            assert_eq!(effective(), files);
            assert_eq!(caps::read(None, CapSet::Permitted).unwrap(), all);
            assert!(caps::raise(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).is_err());
        })
        .join()
        .unwrap();
    }
}
