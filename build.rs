// SPDX-License-Identifier: GPL-2.0-only
//! Compiles the C of `src/bpf` three times: with clang to BPF objects and their skeletons; with the host's compiler to a
//! small library (`host.c`), so that tests and replay run the very same arithmetic; and with clang for the host, the whole
//! scheduler for the simulator (`src/sim/shim`).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

fn main() -> Result<()> {
    for (source, name) in [("main", "main"), ("runqlat", "runqlat"), ("probe", "probe")] {
        let mut builder = scx_cargo::BpfBuilder::new().context(
            "the BPF compiler is missing or too old: install clang >= 18 (Debian 12: clang-19) or set BPF_CLANG",
        )?;
        builder.add_cflag("-Werror").enable_skel(&format!("src/bpf/{source}.bpf.c"), name);
        builder.build().with_context(|| format!("building src/bpf/{source}.bpf.c"))?;
    }

    // Our own bindgen call: constants without prefixes, and Default for what tests and the agent fill in.
    bindgen::Builder::default()
        .header("src/bpf/bindings.h")
        .prepend_enum_name(false)
        .derive_default(true)
        .derive_partialeq(true)
        .generate()
        .context("generating Rust bindings of src/bpf/intf.h")?
        .write_to_file(PathBuf::from(std::env::var("OUT_DIR")?).join("intf.rs"))?;

    cc::Build::new()
        .file("src/bpf/host.c")
        .opt_level(2)
        .flag("-std=gnu11")
        .flag_if_supported("-Wno-unknown-pragmas")
        .warnings(true)
        .warnings_into_errors(true)
        .compile("rl_host");

    // With clang, as for BPF: the scheduler's C uses its dialect, and the shim a pragma that only it has.
    let clang = std::env::var("BPF_CLANG").unwrap_or_else(|_| "clang".into());
    cc::Build::new()
        .compiler(clang)
        .file("src/sim/shim/sim.c")
        .include("src/sim/shim")
        // Not -I: one of the headers there has the name of a header of libc.
        .flag("-iquote")
        .flag("src/bpf")
        .opt_level(2)
        .flag("-std=gnu11")
        .flag("-Wno-sign-compare")
        .flag("-Wno-unused-parameter")
        .warnings(true)
        .warnings_into_errors(true)
        .compile("rl_sim");
    for pattern in ["src/bpf/*", "src/sim/shim/*", "src/sim/shim/scx/*"] {
        for header in glob::glob(pattern)? {
            println!("cargo:rerun-if-changed={}", header?.display());
        }
    }
    println!("cargo:rerun-if-env-changed=BPF_CLANG");
    tell_commit();
    Ok(())
}

/// The commit that this is built from, for `--version` and the provenance of results. An archive without a repository has none.
/// (Whether files were changed since then is not told: to know it, this script would have to run at every build.)
fn tell_commit() {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
    };
    println!("cargo:rustc-env=SCX_RL_COMMIT={}", git(&["rev-parse", "--short=10", "HEAD"]).unwrap_or_default());
    // The log of HEAD changes with every commit and checkout.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(file) = git(&["rev-parse", "--git-path", name]).filter(|file| Path::new(file).exists()) {
            println!("cargo:rerun-if-changed={file}");
        }
    }
}
