// SPDX-License-Identifier: GPL-2.0-only
use clap::Parser;
#[derive(Parser)]
enum Cli { Bench(scx_rl::bench::BenchArgs), Try { mode: u32, secs: u64 } }
fn main() -> anyhow::Result<()> {
    simplelog::TermLogger::init(simplelog::LevelFilter::Info, Default::default(), simplelog::TerminalMode::Stderr, simplelog::ColorChoice::Never)?;
    scx_utils::init_libbpf_logging(Some(libbpf_rs::PrintLevel::Warn));
    match Cli::parse() {
        Cli::Bench(a) => scx_rl::bench::run(&a),
        Cli::Try { mode, secs } => {
            use scx_rl::kernel::*;
            let d = domains::Domains::discover(&Default::default())?;
            println!("{}", d.description);
            let mut o = std::mem::MaybeUninit::uninit();
            let c = SchedulerConfig { slice_ns: 5_000_000, wait_bound_ns: 20_000_000, horizon_ns: 1_000_000_000, ring_bytes: 1 << 20 };
            let (w, _) = scx_rl::bench::random_network(&mut <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(1));
            let mut s = Scheduler::attach(&mut o, &c, &d, &slots::Publication { mode, floor_q16: 64, weights: w }, 0)?;
            let mut ev = vec![];
            for _ in 0..secs*10 { std::thread::sleep(std::time::Duration::from_millis(100)); s.poll(&mut ev)?; if s.exited() { break; } }
            println!("{:?}", s.counters()?);
            println!("events {}", ev.len());
            for e in ev.iter().rev().take(6) { println!("{e:?}"); }
            println!("{:?}", s.detach()?);
            Ok(())
        }
    }
}
