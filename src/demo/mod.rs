// SPDX-License-Identifier: GPL-2.0-only
//! stub
/// x
#[derive(clap::Args)]
pub struct DemoArgs {}
/// x
pub fn run(_: DemoArgs) -> anyhow::Result<()> {
    Ok(())
}
