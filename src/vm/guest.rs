// SPDX-License-Identifier: GPL-2.0-only
//! The script that runs in the guest: what the run needs, written in front of the fixed `guest.sh`.

use std::path::Path;

/// The name of the virtio port that carries the command's output.
pub(super) const PORT: &str = "scx_rl.output";
/// What `guest.sh` writes to the kernel log right before the command.
pub(super) const STARTED: &str = "scx_rl: the command starts";

/// Host variables that a guest gets, besides all that begin with [`OWN_PREFIX`].
const PASSED: [&str; 6] = ["PATH", "LANG", "TERM", "CI", "RUST_LOG", "RUST_BACKTRACE"];
const OWN_PREFIX: &str = "SCX_RL_";

/// The whole script. `variables` is the host's environment; of it only a short list is passed on.
pub(super) fn script(
    command: &[String],
    cwd: &Path,
    results: &Path,
    config: Option<&Path>,
    variables: impl Iterator<Item = (String, String)>,
) -> String {
    let mut script = String::from("#!/bin/bash\n");
    let mut set = |line: String| script.push_str(&(line + "\n"));
    for (name, value) in variables {
        if PASSED.contains(&name.as_str()) || name.starts_with(OWN_PREFIX) {
            set(format!("export {name}={}", quote(&value)));
        }
    }
    set("export SCX_RL_IN_VM=1".to_owned());
    set(format!("port={}", quote(PORT)));
    set(format!("cwd={}", quote(&cwd.to_string_lossy())));
    set(format!("results={}", quote(&results.to_string_lossy())));
    set(format!("config={}", quote(&config.map(|path| path.to_string_lossy()).unwrap_or_default())));
    set(format!("set -- {}", command.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")));
    script + include_str!("guest.sh")
}

/// A word for the shell, whatever it holds.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn words_survive_the_shell() {
        for word in ["", "plain", "it's", "a b\tc\nd", r#"$HOME `id` "x" \ * ;&|"#, "-n", "é中"] {
            let output = Command::new("sh").arg("-c").arg(format!("printf %s {}", quote(word))).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }

    #[test]
    fn only_listed_variables_are_passed() {
        let host = [("PATH", "/bin"), ("SECRET", "s3"), ("SCX_RL_SEED", "7"), ("SCX_RLX", "no")];
        let host = host.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let script = script(&["true".to_owned()], Path::new("/w"), Path::new("/r"), None, host);
        assert!(script.contains("export PATH='/bin'\n") && script.contains("export SCX_RL_SEED='7'\n"));
        assert!(!script.contains("s3") && !script.contains("SCX_RLX"));
        assert!(script.contains("config=''\nset -- 'true'\n"));
    }

    #[test]
    fn the_start_is_announced_as_the_host_expects_it() {
        assert!(include_str!("guest.sh").contains(&format!("echo '{STARTED}' >/dev/kmsg")));
    }
}
