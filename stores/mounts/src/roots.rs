//! The folders below which folders and filesystems are made.

use std::io;
use std::path::{Component, Path, PathBuf};

use berth_sys::beneath::Root;
use berth_types::{Error, Result};

/// Folders that clients may have something made below. Whoever names a path names it in full, and no link in it is
/// followed out of the folder.
#[derive(Debug)]
pub(crate) struct Roots(Vec<PathBuf>);

impl Roots {
    pub(crate) fn new(folders: Vec<PathBuf>) -> Self {
        Self(folders)
    }

    /// The folder that `path` lies below, opened, and the rest of the path.
    pub(crate) fn find<'p>(&self, path: &'p Path, what: &str) -> Result<(Root, &'p Path)> {
        let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        let found = self.0.iter().find_map(|folder| {
            let rest = path.strip_prefix(folder).ok()?;
            (!rest.as_os_str().is_empty() && path.components().all(plain)).then_some((folder, rest))
        });
        let Some((folder, rest)) = found else {
            let allowed: Vec<String> = self.0.iter().map(|folder| folder.display().to_string()).collect();
            return Err(Error::failed_precondition(format!(
                "no root {:?} configured for {what}: only what is below {} is made",
                path.display().to_string(),
                allowed.join(" and ")
            )));
        };
        let root = Root::open(folder)
            .map_err(|error| Error::io(format!("cannot open {}", folder.display()), error))?;
        Ok((root, rest))
    }
}

/// An error at a path.
pub(crate) fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    Error::io(format!("cannot {what} {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots::new(vec![folder.path().to_owned()]);
        let below = folder.path().join("a/b");
        let (_, rest) = roots.find(&below, "mkdir").unwrap();
        assert_eq!(rest, Path::new("a/b"));
        let sibling = PathBuf::from(format!("{}-other/a", folder.path().display()));
        for path in [folder.path(), &folder.path().join("../x"), &sibling, Path::new("a"), Path::new("/")] {
            let error = roots.find(path, "mkdir").unwrap_err();
            assert!(error.message().contains("no root"), "{error}");
        }
    }
}
