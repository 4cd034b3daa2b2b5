// SPDX-License-Identifier: GPL-2.0-only
//! A place for files that machines share: a folder, or an object store.

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, parse_url_opts};
use tokio::runtime::Runtime;
use url::Url;

/// What URLs may begin with.
pub const SCHEMES: &str = "s3://BUCKET/..., gs://BUCKET/..., az://CONTAINER/..., file:///..., or a path";

/// A place, from its URL.
pub struct Store {
    runtime: Runtime,
    store: Box<dyn ObjectStore>,
    base: Path,
    /// As the user gave it, for messages.
    name: String,
}

impl Store {
    /// The place that a URL or a path names. Object stores take credentials and endpoints from the environment, by the names
    /// that their own tools use. Nothing is asked of it yet.
    ///
    /// # Errors
    /// It is neither, or what the environment says of the store makes no sense.
    pub fn open(name: &str) -> Result<Self> {
        let context = || format!("cannot use {name:?} as a store");
        let url = if name.contains("://") {
            Url::parse(name).with_context(context)?
        } else {
            let path = std::path::absolute(name).with_context(context)?;
            Url::from_file_path(path).ok().context("it is not a path").with_context(context)?
        };
        let (store, base) =
            parse_url_opts(&url, std::env::vars()).with_context(|| format!("{}: give {SCHEMES}", context()))?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot begin to transfer")?;
        Ok(Self { runtime, store, base, name: name.to_string() })
    }

    /// Write an object below this place, whole or not at all. One of that name is replaced.
    ///
    /// # Errors
    /// The store refuses, or is not to be had.
    pub fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let path = Path::parse(format!("{}/{name}", self.base)).context("not a name for an object")?;
        self.runtime
            .block_on(self.store.put(&path, bytes.into()))
            .map_err(told)
            .map(|_| ())
            .with_context(|| format!("cannot write {name} to {}", self.name))
    }

    /// The object at this place itself.
    ///
    /// # Errors
    /// There is none, or it cannot be had.
    pub fn get(&self) -> Result<Bytes> {
        self.read(&self.base)
    }

    /// An object that [`Store::list`] found.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn read(&self, path: &Path) -> Result<Bytes> {
        self.runtime
            .block_on(async { self.store.get(path).await?.bytes().await })
            .map_err(told)
            .with_context(|| format!("cannot read {path} of {}", self.name))
    }

    /// Objects below this place, or the one at it: where they are, and their bytes; in the order of their names.
    ///
    /// # Errors
    /// The store cannot be listed, or there is nothing.
    pub fn list(&self) -> Result<Vec<(Path, u64)>> {
        let found: object_store::Result<Vec<(Path, u64)>> = self.runtime.block_on(async {
            let (mut folders, mut found) = (vec![self.base.clone()], Vec::new());
            while let Some(folder) = folders.pop() {
                let listed = self.store.list_with_delimiter(Some(&folder)).await?;
                folders.extend(listed.common_prefixes);
                found.extend(listed.objects.into_iter().map(|object| (object.location, object.size)));
            }
            if found.is_empty() {
                // Not a folder: perhaps an object.
                found.extend(self.store.head(&self.base).await.map(|object| (object.location, object.size)));
            }
            Ok(found)
        });
        let mut found = found.map_err(told).with_context(|| format!("cannot list {}", self.name))?;
        ensure!(!found.is_empty(), "there is nothing at {}", self.name);
        found.sort();
        Ok(found)
    }

    /// Where an object is, below this place.
    pub fn below<'a>(&self, path: &'a Path) -> &'a str {
        path.as_ref().strip_prefix(self.base.as_ref()).unwrap_or(path.as_ref()).trim_start_matches('/')
    }
}

/// An error whose text has those of its causes already: without them, which would be told again.
fn told(error: object_store::Error) -> anyhow::Error {
    anyhow!("{error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_a_store() {
        let folder = std::env::temp_dir().join(format!("scx_rl store {}", std::process::id()));
        let store = Store::open(folder.to_str().unwrap()).unwrap();
        assert!(format!("{:#}", store.list().unwrap_err()).contains("there is nothing at"));
        store.put("b/machine=x/two", b"22".to_vec()).unwrap();
        store.put("a", b"1".to_vec()).unwrap();
        store.put("a", b"11".to_vec()).unwrap();
        let found = store.list().unwrap();
        let names: Vec<_> = found.iter().map(|(path, bytes)| (store.below(path), *bytes)).collect();
        assert_eq!(names, [("a", 2), ("b/machine=x/two", 2)]);
        assert_eq!(store.read(&found[1].0).unwrap(), "22");
        let one = Store::open(&format!("file://{}/a", folder.display()).replace(' ', "%20")).unwrap();
        assert_eq!((one.get().unwrap().as_ref(), one.list().unwrap().len()), (b"11".as_ref(), 1));
        std::fs::remove_dir_all(&folder).unwrap();
        for bad in ["ftp://host/x", "s3://", "://"] {
            let error = format!("{:#}", Store::open(bad).err().unwrap());
            assert!(error.contains("cannot use") && error.contains(bad), "{error}");
        }
    }
}
