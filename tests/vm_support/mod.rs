// SPDX-License-Identifier: GPL-2.0-only
//! What the tests with a VM share. Only that no VM can run on this machine makes one of them skip; under CI=true that
//! is a failure too.
#![allow(dead_code)] // each test binary uses its own part

use std::io::Write;

use scx_rl::vm::{Vm, VmError, VmOutput};

/// Runs `script` in the VM. `None`: no VM can run here, and the test is to return.
pub fn run_or_skip(vm: &Vm, script: &str) -> Option<VmOutput> {
    match vm.run(script) {
        Ok(output) => Some(output),
        Err(VmError::Unavailable(reason)) => {
            skip(&reason);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// For tests of failures. `Err`: the failure to look at. `Ok`: no VM can run here, and the test is to return.
pub fn skip_unavailable(result: Result<VmOutput, VmError>) -> Result<(), VmError> {
    match result {
        Ok(output) => panic!("it should have failed: {output:?}"),
        Err(VmError::Unavailable(reason)) => {
            skip(&reason);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Says so past the test harness, which keeps the output of tests that pass to itself.
fn skip(reason: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "no VM, and CI must not skip: {reason}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
}
