// SPDX-License-Identifier: GPL-2.0-only
//! The command line: only `vm` for now.

use clap::Parser;

#[derive(Parser)]
enum Cli {
    Vm(scx_rl::vm::VmArgs),
}

fn main() -> anyhow::Result<()> {
    let config = simplelog::ConfigBuilder::new().build();
    simplelog::TermLogger::init(
        log::LevelFilter::Info,
        config,
        simplelog::TerminalMode::Stderr,
        simplelog::ColorChoice::Auto,
    )?;
    let Cli::Vm(args) = Cli::parse();
    std::process::exit(scx_rl::vm::run(&args)?)
}
