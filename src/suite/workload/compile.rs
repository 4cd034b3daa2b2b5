// SPDX-License-Identifier: GPL-2.0-only
//! The compile: C files that a seeded generator wrote, so that every run of every machine has the same, in memory. Alone,
//! and beside readers of a file.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{END_LIMIT, Site, found, read};
use crate::lab::child::Process;
use crate::lab::tools;

/// Files, and functions in each: 8 to 10 s on four emulated CPUs.
const FILES: usize = 14;
const FUNCTIONS: usize = 1;
/// Of the file that is read.
const READ_MIB: usize = 64;

pub fn prepare(site: &Site<'_>) -> Result<()> {
    let folder = site.path("compile");
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("Makefile"), makefile())?;
        let mut rng = ChaCha8Rng::seed_from_u64(site.seed);
        for file in 0..FILES {
            fs::write(folder.join(format!("f{file}.c")), source(&mut rng, file))?;
        }
        Ok(())
    };
    write().with_context(|| format!("writing sources to {}", folder.display()))
}

pub fn run(site: &Site<'_>) -> Result<Vec<f64>> {
    Ok(vec![make(site, "all")?])
}

pub fn prepare_mix(site: &Site<'_>) -> Result<()> {
    prepare(site)?;
    let path = site.path("fio.data");
    fs::write(&path, vec![1u8; READ_MIB << 20]).with_context(|| format!("writing {}", path.display()))
}

pub fn run_mix(site: &Site<'_>) -> Result<Vec<f64>> {
    let mut command = Command::new("fio");
    // The file is in memory, so kernel threads do the reads (force_async) and a pause stands for the disk: without, fio
    // would compute and never sleep. The pause is long, as fio spins through short ones: all that is shorter than a sleep of
    // 1 us took when it started, which in a VM may be more than a millisecond. It reads until the compile has ended.
    command.args(["--name=read", "--filename=fio.data", "--rw=randread", "--bs=4k", "--ioengine=io_uring"]);
    command.args(["--force_async=1", "--iodepth=1", "--thinktime=10000", "--numjobs=2", "--group_reporting"]);
    command.args(["--time_based", "--runtime=600", "--output-format=json", "--output=fio.json"]);
    command.args([format!("--size={READ_MIB}m"), format!("--randseed={}", site.seed)]);
    let mut fio = site.start("fio", &mut command)?;
    let seconds = make(site, "half")?;
    site.still_runs("fio", &mut fio)?;
    fio.interrupt(END_LIMIT)?;
    let json = read(&site.path("fio.json"))?;
    let (reads_per_s, p99_us) = found(tools::fio_reads(&json), "fio", &json)?;
    Ok(vec![seconds, reads_per_s, p99_us])
}

/// Compiles afresh; how long it took.
fn make(site: &Site<'_>, target: &str) -> Result<f64> {
    let folder = site.path("compile");
    clean(&folder).with_context(|| format!("removing objects from {}", folder.display()))?;
    let jobs = format!("-j{}", 2 * site.cpus);
    Ok(site.run("make", Command::new("make").args(["-s", "-C", "compile", &jobs, target]))?.seconds)
}

/// Begins to compile afresh, and again when that has ended.
pub fn start(site: &Site<'_>) -> Result<Process> {
    let again = format!("while rm -f compile/*.o && make -s -C compile -j{} all; do :; done", 2 * site.cpus);
    site.start("make", Command::new("sh").args(["-c", &again]))
}

fn clean(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "o") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn makefile() -> String {
    let objects = |count| (0..count).map(|file| format!("f{file}.o")).collect::<Vec<_>>().join(" ");
    format!("all: {}\nhalf: {}\n%.o: %.c\n\tgcc -O1 -c -o $@ $<\n", objects(FILES), objects(FILES / 2))
}

/// A C file: functions with loops, branches and memory, so that each stage of the compiler has something to do.
fn source(rng: &mut ChaCha8Rng, file: usize) -> String {
    let mut out = String::from("#include <stdint.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\n");
    out += "struct item { uint64_t key; int32_t weight[8]; struct item *next; };\n\n";
    for function in 0..FUNCTIONS {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "static uint64_t work{file}_{function}(struct item *list, uint64_t seed, int n)\n{{");
        let _ = writeln!(out, "\tuint64_t sum = seed * {}u;\n\tint i, j;", rng.random_range(3..10_000u32) | 1);
        let _ = writeln!(out, "\tfor (i = 0; i < n && list; i++, list = list->next) {{\n\t\tswitch (list->key % 9) {{");
        for case in 0..8 {
            let (a, b, c) = (rng.random_range(1..60), rng.random_range(1..8), rng.random_range(1..1000));
            let _ = writeln!(out, "\t\tcase {case}:");
            match rng.random_range(0..4) {
                0 => writeln!(
                    out,
                    "\t\t\tfor (j = 0; j < {b}; j++)\n\t\t\t\tsum += list->weight[j] * (sum >> {a} ^ {c});"
                ),
                1 => writeln!(
                    out,
                    "\t\t\tif ((sum ^ {c}) & 1u << {b})\n\t\t\t\tsum = sum / {c} + list->weight[{b} - 1];"
                ),
                2 => writeln!(
                    out,
                    "\t\t\tsum = (sum << {a} | sum >> (64 - {a})) + (uint64_t)list->weight[{b} - 1] * {c};"
                ),
                _ => writeln!(
                    out,
                    "\t\t\tmemcpy(&sum, list->weight, sizeof(sum));\n\t\t\tsum %= {c}u + (unsigned)strlen(\"{c}\");"
                ),
            }
            .unwrap_or_default();
            let _ = writeln!(out, "\t\t\tbreak;");
        }
        let _ = writeln!(out, "\t\tdefault:\n\t\t\tsum ^= list->key;\n\t\t}}\n\t}}\n\treturn sum;\n}}\n");
    }
    let _ = writeln!(out, "uint64_t all{file}(struct item *list, int n)\n{{\n\tuint64_t sum = 0;\n");
    for function in 0..FUNCTIONS {
        let _ = writeln!(out, "\tsum += work{file}_{function}(list, sum, n);");
    }
    out + "\tprintf(\"%llu\\n\", (unsigned long long)sum);\n\treturn sum;\n}\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_repeatable_and_compile() {
        let write = |seed| source(&mut ChaCha8Rng::seed_from_u64(seed), 0);
        assert_eq!(write(1), write(1));
        assert_ne!(write(1), write(2));
        if tools::find("gcc").is_none() {
            eprintln!("skipped: no gcc");
            return;
        }
        let path = std::env::temp_dir().join(format!("scx_rl-source-{}.c", std::process::id()));
        for seed in 0..3 {
            fs::write(&path, write(seed)).unwrap();
            let gcc = Command::new("gcc").args(["-fsyntax-only", "-Wall", "-Werror"]).arg(&path).output().unwrap();
            assert!(gcc.status.success(), "{}", String::from_utf8_lossy(&gcc.stderr));
        }
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn half_is_half() {
        let text = makefile();
        let count =
            |target: &str| text.lines().find(|line| line.starts_with(target)).unwrap().split_whitespace().count() - 1;
        assert_eq!((count("all:"), count("half:")), (FILES, FILES / 2));
    }
}
