// SPDX-License-Identifier: GPL-2.0-only
//! The command line: only `vm` for now.

use std::process::ExitCode;

use clap::Parser;
use simplelog::TermLogger;

#[derive(Parser)]
enum Cli {
    Vm(scx_rl::vm::VmArgs),
}

fn main() -> ExitCode {
    let config = simplelog::ConfigBuilder::new().set_time_level(log::LevelFilter::Off).build();
    let colours = simplelog::ColorChoice::Auto;
    if TermLogger::init(log::LevelFilter::Info, config, simplelog::TerminalMode::Stderr, colours).is_err() {
        eprintln!("no log: another one is set");
    }
    let Cli::Vm(args) = Cli::parse();
    match scx_rl::vm::run(&args) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("scx_rl: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
