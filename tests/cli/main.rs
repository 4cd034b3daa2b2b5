// SPDX-License-Identifier: GPL-2.0-only
//! The binary as a user meets it: what it says, and its exit code. 0: done; 1: it could not be done, and why; 2: the
//! command line makes no sense. Never a panic.

mod checkpoint;
#[path = "../common/mod.rs"]
mod common;
mod experiment;
mod flags;
mod fleet;
mod locality;
mod machine;
mod ope;
mod replay;

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::Folder;

const BINARY: &str = env!("CARGO_BIN_EXE_scx_rl");
/// Every command here is over in a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a command ended.
#[derive(Debug)]
struct Outcome {
    #[allow(dead_code)] // for messages
    args: Vec<String>,
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Outcome {
    /// It failed with this exit code, printed nothing but an error, and the error has all these parts.
    #[track_caller]
    fn fails(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(self.stdout.is_empty(), "an error belongs on stderr: {self:#?}");
        let error = self.stderr.find(if code == 2 { "error: " } else { "Error: " });
        let Some(error) = error.map(|at| &self.stderr[at..]) else { panic!("no error is named: {self:#?}") };
        for part in parts {
            assert!(error.contains(part), "the error lacks {part:?}: {self:#?}");
        }
    }

    /// It succeeded, and printed all these parts.
    #[track_caller]
    fn succeeds(&self, parts: &[&str]) {
        assert_eq!(self.code, Some(0), "{self:#?}");
        for part in parts {
            assert!(self.stdout.contains(part), "the output lacks {part:?}: {self:#?}");
        }
    }
}

/// Run the binary in an empty folder.
fn scx_rl(args: &[&str]) -> Outcome {
    let folder = Folder::new();
    let outcome = run(Command::new(BINARY).args(args).current_dir(folder.path()));
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{args:?} left {left:?} behind");
    outcome
}

/// Run a command to its end, within bounds, and look for panics.
fn run(command: &mut Command) -> Outcome {
    let folder = Folder::new();
    // Files, so that no full pipe can block it.
    let create = |name: &str| File::create(folder.file(name)).unwrap();
    command.stdout(create("stdout"));
    run_with_stdout(command, &folder)
}

/// As [`run`], for a command whose stdout is set already.
fn run_with_stdout(command: &mut Command, folder: &Folder) -> Outcome {
    let stderr = File::create(folder.file("stderr")).unwrap();
    let mut child = command.stdin(Stdio::null()).stderr(stderr).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{command:?} did not end within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let read = |name: &str| String::from_utf8_lossy(&std::fs::read(folder.file(name)).unwrap_or_default()).into_owned();
    let args = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
    let outcome = Outcome { args, code: status.code(), stdout: read("stdout"), stderr: read("stderr") };
    assert!(!outcome.stderr.contains("panicked") && outcome.code.is_some_and(|c| c != 101), "{outcome:#?}");
    outcome
}
