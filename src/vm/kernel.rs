// SPDX-License-Identifier: GPL-2.0-only
//! Finds the kernel to boot: in the cache that `scripts/fetch-kernel.sh` fills, or where the user says.

use std::fs;
use std::path::{Path, PathBuf};

use super::VmError;

/// Debian kernels whose kfunc BTF is malformed, so that no scheduler loads; `scripts/fetch-kernel.sh` has the same list.
const BROKEN: [&str; 2] = ["7.1.13", "7.2.12+deb13"];

/// The series that is booted without --kernel, if it is there. Under emulation 6.18.15 now and then dies while it patches
/// its own text (`Oops: int3`), most of all when a scheduler is attached; this one has not.
const PREFERRED: &str = "6.17";

/// A bootable kernel image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kernel {
    /// The image: `vmlinuz-RELEASE` or a built tree's `bzImage`.
    pub image: PathBuf,
    /// Its build configuration, where it is known. Schedulers with `__kconfig` variables do not load without it.
    pub config: Option<PathBuf>,
    /// The release as far as the file's name tells.
    pub release: String,
}

impl Kernel {
    /// The kernel that `wanted` stands for: a release or the beginning of one (`6.18`), an image, or a folder with one.
    /// Without it [`PREFERRED`], or else the newest of the cache that works.
    ///
    /// # Errors
    /// [`VmError::Unavailable`] when there is none, with the command that fetches it.
    pub fn find(wanted: Option<&str>, cache: &Path) -> Result<Self, VmError> {
        let Some(wanted) = wanted else {
            return newest(cache, PREFERRED).or_else(|| newest(cache, "")).ok_or_else(|| {
                VmError::Unavailable(format!("no kernel in {}: run `make kernels`", cache.join("kernels").display()))
            });
        };
        let path = Path::new(wanted);
        if path.is_file() {
            return Ok(Self::of_image(path));
        }
        if path.is_dir() {
            return in_folder(path).ok_or_else(|| {
                VmError::Unavailable(format!(
                    "{wanted} holds no kernel: looked for vmlinuz-*, boot/vmlinuz-* and arch/x86/boot/bzImage"
                ))
            });
        }
        newest(cache, wanted).ok_or_else(|| {
            VmError::Unavailable(format!(
                "no kernel {wanted} in {} (and no such file): run `scripts/fetch-kernel.sh {wanted}`",
                cache.join("kernels").display()
            ))
        })
    }

    fn of_image(image: &Path) -> Self {
        let name = image.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let folder = image.parent().unwrap_or(Path::new("."));
        let (release, config) = match name.strip_prefix("vmlinuz-") {
            Some(release) => (release.to_owned(), folder.join(format!("config-{release}"))),
            // A built tree: TREE/arch/x86/boot/bzImage and TREE/.config.
            None => (name, folder.join("../../../.config")),
        };
        Self { image: image.to_owned(), config: config.is_file().then_some(config), release }
    }
}

/// The newest working kernel of the cache whose release begins with `prefix`.
fn newest(cache: &Path, prefix: &str) -> Option<Kernel> {
    let folders = fs::read_dir(cache.join("kernels")).ok()?;
    folders
        .filter_map(|folder| in_folder(&folder.ok()?.path()))
        .filter(|kernel| begins_with(&kernel.release, prefix))
        .filter(|kernel| !BROKEN.iter().any(|broken| begins_with(&kernel.release, broken)))
        .max_by_key(|kernel| version(&kernel.release))
}

/// The kernel of one folder; the newest, should there be several.
fn in_folder(folder: &Path) -> Option<Kernel> {
    let images = |folder: PathBuf| {
        let files = fs::read_dir(folder).ok()?;
        files
            .filter_map(|file| Some(file.ok()?.path()))
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
            .map(|path| Kernel::of_image(&path))
            .max_by_key(|kernel| version(&kernel.release))
    };
    let built = folder.join("arch/x86/boot/bzImage");
    images(folder.to_owned())
        .or_else(|| images(folder.join("boot")))
        .or_else(|| built.is_file().then(|| Kernel::of_image(&built)))
}

/// Whether `release` is `prefix` or continues it at a boundary: 6.18 is 6.18.15+deb13, but not 6.180.
fn begins_with(release: &str, prefix: &str) -> bool {
    release
        .strip_prefix(prefix)
        .is_some_and(|rest| prefix.is_empty() || !rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// A release as numbers that compare: `6.18.15+deb13` is `[6, 18, 15]`.
fn version(release: &str) -> Vec<u64> {
    let numbers = release.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or_default();
    numbers.split('.').map_while(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache folder of this test's own with kernels of these releases; removed when dropped.
    struct Cache(PathBuf);

    impl Cache {
        fn with(name: &str, releases: &[&str]) -> Self {
            let cache = std::env::temp_dir().join(format!("scx_rl-kernels-{name}-{}", std::process::id()));
            for release in releases {
                let folder = cache.join("kernels").join(release);
                fs::create_dir_all(&folder).unwrap();
                fs::write(folder.join(format!("vmlinuz-{release}")), "").unwrap();
                fs::write(folder.join(format!("config-{release}")), "").unwrap();
            }
            Self(cache)
        }

        fn find(&self, wanted: Option<&str>) -> Result<String, String> {
            Kernel::find(wanted, &self.0).map(|kernel| kernel.release).map_err(|e| e.to_string())
        }
    }

    impl Drop for Cache {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn newest_by_number_and_never_a_broken_one() {
        let cache =
            Cache::with("newest", &["6.9.1", "6.18.15+deb13-cloud-amd64", "7.1.13+deb13", "7.2.12+deb13-cloud"]);
        assert_eq!(cache.find(None).unwrap(), "6.18.15+deb13-cloud-amd64");
        let cache = Cache::with("preferred", &["6.17.13+deb13-cloud-amd64", "6.18.15+deb13-cloud-amd64"]);
        assert_eq!(cache.find(None).unwrap(), "6.17.13+deb13-cloud-amd64");
        assert!(cache.find(Some("7.1")).unwrap_err().contains("fetch-kernel.sh 7.1"));
    }

    #[test]
    fn a_prefix_ends_at_a_boundary() {
        let cache = Cache::with("prefix", &["6.1.2", "6.18.15+deb13", "6.18.3+deb13", "7.2.13+deb14"]);
        assert_eq!(cache.find(Some("6.1")).unwrap(), "6.1.2");
        assert_eq!(cache.find(Some("6.18")).unwrap(), "6.18.15+deb13");
        assert_eq!(cache.find(Some("6.18.3")).unwrap(), "6.18.3+deb13");
        assert_eq!(cache.find(Some("7.2.13+deb14")).unwrap(), "7.2.13+deb14");
    }

    #[test]
    fn a_folder_or_an_image_works_too_and_brings_its_configuration() {
        let cache = Cache::with("paths", &["6.18.15"]);
        let folder = cache.0.join("kernels/6.18.15");
        let by_folder = Kernel::find(folder.to_str(), &cache.0).unwrap();
        assert_eq!(by_folder.config, Some(folder.join("config-6.18.15")));
        assert_eq!(Kernel::find(by_folder.image.to_str(), &cache.0).unwrap(), by_folder);
        assert!(Kernel::find(cache.0.to_str(), &cache.0).unwrap_err().to_string().contains("holds no kernel"));
    }

    #[test]
    fn an_empty_cache_names_the_command() {
        assert!(Cache::with("empty", &[]).find(None).unwrap_err().contains("make kernels"));
    }
}
