// SPDX-License-Identifier: GPL-2.0-only
//! stub
/// x
#[derive(Debug, clap::Args)]
pub struct VmArgs {}
/// x
pub fn run(_: &VmArgs) -> anyhow::Result<i32> {
    Ok(0)
}
