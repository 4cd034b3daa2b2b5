// SPDX-License-Identifier: GPL-2.0-only
use clap::Parser;
#[derive(Parser)]
enum Cli { Bench(scx_rl::bench::BenchArgs) }
fn main() -> anyhow::Result<()> { match Cli::parse() { Cli::Bench(a) => scx_rl::bench::run(&a) } }
