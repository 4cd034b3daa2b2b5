// SPDX-License-Identifier: GPL-2.0-only
use clap::Parser;

#[derive(Parser)]
enum Cli {
    Runqlat(scx_rl::runqlat::RunqlatArgs),
    Demo(scx_rl::demo::DemoArgs),
}

fn main() -> anyhow::Result<()> {
    let level = if std::env::var_os("DEBUG").is_some() { log::LevelFilter::Debug } else { log::LevelFilter::Warn };
    simplelog::SimpleLogger::init(level, simplelog::Config::default())?;
    match Cli::parse() {
        Cli::Runqlat(args) => scx_rl::runqlat::run(args),
        Cli::Demo(args) => scx_rl::demo::run(args),
    }
}
