// SPDX-License-Identifier: GPL-2.0-only
//! House rules that no other tool checks. Each failure lists every offender as `file:line: text`.

use std::fs;
use std::path::{Path, PathBuf};

/// A file must fit in a head; this is the hard limit.
const LINES_MAX: usize = 600;
/// How far above an unsafe block its reason may begin.
const SAFETY_LINES: usize = 8;
/// Source files by the ends of their names.
const SOURCES: [&str; 6] = ["rs", "c", "h", "sh", "py", "bt"];

/// A source file.
struct Source {
    /// Relative to the project.
    path: PathBuf,
    lines: Vec<String>,
}

impl Source {
    fn is_rust(&self) -> bool {
        self.path.extension().is_some_and(|e| e == "rs")
    }

    /// Tests of the library stand in `mod tests { ... }`, in files of a folder `tests`, or in `tests.rs`.
    fn is_test(&self) -> bool {
        self.path.components().any(|c| c.as_os_str() == "tests" || c.as_os_str() == "tests.rs")
    }

    /// Number (from 1) and text of the lines outside of `#[cfg(test)]` modules. rustfmt guarantees that such a module
    /// ends with a brace at the beginning of a line.
    fn lines_outside_tests(&self) -> Vec<(usize, &str)> {
        let mut kept = Vec::new();
        let mut lines = self.lines.iter().map(String::as_str).enumerate().peekable();
        while let Some((i, line)) = lines.next() {
            let module = |(_, next): &(usize, &str)| next.starts_with("mod ") && next.ends_with('{');
            if line == "#[cfg(test)]" && lines.peek().is_some_and(module) {
                lines.by_ref().find(|(_, line)| *line == "}");
            } else {
                kept.push((i + 1, line));
            }
        }
        kept
    }

    fn offence(&self, line: usize, text: &str) -> String {
        format!("{}:{line}: {}", self.path.display(), text.trim())
    }
}

/// All source files in and under these files and folders of the project.
fn sources(roots: &[&str]) -> Vec<Source> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut open: Vec<PathBuf> = roots.iter().map(|r| project.join(r)).filter(|p| p.exists()).collect();
    let mut found = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|e| SOURCES.iter().any(|s| e == *s)) {
            let lines = fs::read_to_string(&path).unwrap().lines().map(String::from).collect();
            found.push(Source { path: path.strip_prefix(project).unwrap().to_path_buf(), lines });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 3, "no sources in {roots:?}");
    found
}

fn everything() -> Vec<Source> {
    sources(&["src", "tests", "build.rs", "scripts", "experiments", ".ci"])
}

fn assert_none(offences: &[String], rule: &str) {
    assert!(offences.is_empty(), "{rule}:\n{}", offences.join("\n"));
}

/// Code before a line comment. (`//` within a string hides the rest of the line; good enough here.)
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

#[test]
fn files_fit_in_a_head() {
    let long: Vec<_> = sources(&["src"])
        .iter()
        .filter(|s| s.lines.len() > LINES_MAX)
        .map(|s| s.offence(s.lines.len(), "lines"))
        .collect();
    assert_none(&long, &format!("files of more than {LINES_MAX} lines: split them"));
}

#[test]
fn nothing_panics_outside_of_tests() {
    let calls = [".unwrap()", ".expect(", ".unwrap_err()", "panic!(", "unreachable!(", "todo!(", "unimplemented!("];
    let mut offences = Vec::new();
    for source in sources(&["src", "build.rs"]).iter().filter(|s| s.is_rust() && !s.is_test()) {
        for (number, line) in source.lines_outside_tests() {
            if calls.iter().any(|call| code(line).contains(call)) {
                offences.push(source.offence(number, line));
            }
        }
    }
    assert_none(&offences, "these can panic: return an error with context instead");
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    let (mut offences, mut blocks) = (Vec::new(), 0);
    for source in everything().iter().filter(|s| s.is_rust()) {
        // Spelled in two parts, or these lines would be offences.
        let marks = [concat!("uns", "afe {"), concat!("uns", "afe impl ")];
        for (i, line) in source.lines.iter().enumerate() {
            if !marks.iter().any(|mark| code(line).contains(mark)) {
                continue;
            }
            blocks += 1;
            let above = &source.lines[i.saturating_sub(SAFETY_LINES)..=i];
            if !above.iter().any(|l| l.contains("SAFETY:")) {
                offences.push(source.offence(i + 1, line));
            }
        }
    }
    assert!(blocks > 10, "only {blocks} blocks were found: does this test still look for the right thing?");
    assert_none(&offences, "unsafe without a SAFETY comment above it");
}

#[test]
fn every_source_names_its_licence() {
    // A script begins with its interpreter.
    let named = |s: &Source| s.lines.iter().take(2).any(|l| l.contains("SPDX-License-Identifier: GPL-2.0-only"));
    let offences: Vec<_> = everything().iter().filter(|s| !named(s)).map(|s| s.offence(1, "no SPDX line")).collect();
    assert_none(&offences, "the first line of a source file names its licence");
}

#[test]
fn no_long_dashes_and_no_trailing_blanks() {
    let mut offences = Vec::new();
    for source in everything() {
        for (i, line) in source.lines.iter().enumerate() {
            if line.contains('\u{2014}') || line.ends_with([' ', '\t']) {
                offences.push(source.offence(i + 1, line));
            }
        }
    }
    assert_none(&offences, "write a comma, a colon or a full stop; and end the line where its text ends");
}

/// The rules above see what they should: tried on sources that break them.
#[test]
fn the_rules_notice_offences() {
    let source = |text: &str| Source { path: "src/x.rs".into(), lines: text.lines().map(String::from).collect() };
    let mixed = source("a\n#[cfg(test)]\nmod tests {\n    b.unwrap()\n}\nc.unwrap()\n#[cfg(test)]\nmod more;\nd");
    let kept: Vec<_> = mixed.lines_outside_tests().into_iter().map(|(i, l)| format!("{i}{l}")).collect();
    assert_eq!(kept, ["1a", "6c.unwrap()", "7#[cfg(test)]", "8mod more;", "9d"]);
    assert_eq!(code("x // y.unwrap()"), "x ");
    assert!(source("").is_rust() && !source("").is_test());
    assert!(Source { path: "src/agent/tests/mod.rs".into(), lines: vec![] }.is_test());
}
