//! What a container changed in its image's files.

use std::path::{Path, PathBuf};

use berth_sys::beneath::Root;
use berth_types::{Error, Mount, Result};
use rustix::fs::FileType;

use crate::{Found, Workload};

/// How a path differs from the image's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is another.
    Changed,
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
}

impl ChangeKind {
    /// Docker's letter.
    pub fn letter(self) -> char {
        match self {
            Self::Changed => 'C',
            Self::Added => 'A',
            Self::Deleted => 'D',
        }
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What.
    pub kind: ChangeKind,
    /// Where, from the container's root.
    pub path: PathBuf,
}

impl Workload {
    /// Lists what differs between a container's files and its image's, by path.
    pub async fn changes(&self, found: &Found) -> Result<Vec<Change>> {
        let mounts = self.rootfs_of(&found.container).await?;
        let Some((upper, lower)) = layers(&mounts) else {
            return Err(Error::failed_precondition(format!(
                "the changes of container {} can't be told apart: snapshotter {:?} keeps no layer of its own for them",
                found.name(),
                found.container.snapshotter
            )));
        };
        // Mount points that the runtime made are no doing of the container's.
        let made: Vec<PathBuf> =
            found.spec()?.mounts.iter().map(|mount| PathBuf::from(&mount.destination)).collect();
        self.in_mounts(&lower, |lower, _| {
            let upper = Root::open(Path::new(&upper))
                .map_err(|error| Error::io(format!("cannot open the changes at {upper}"), error))?;
            let mut changes = Vec::new();
            walk(&upper, lower, Path::new(""), &mut changes)
                .map_err(|error| Error::io("cannot list the changes", error))?;
            changes.retain(|change| !made.contains(&change.path));
            changes.sort_by(|a, b| a.path.cmp(&b.path));
            Ok(changes)
        })
    }

    /// Bytes that a container's own layer takes.
    pub(crate) async fn size_of(&self, container: &berth_types::Container) -> Result<u64> {
        if container.snapshot_key.is_empty() {
            return Ok(0);
        }
        let snapshotter = self.catalog.snapshotter(&container.snapshotter.parse()?, &self.scope)?;
        Ok(snapshotter.usage(&container.snapshot_key.parse()?).await?.size)
    }
}

/// The upper folder of an overlay, and mounts for what lies beneath it.
fn layers(mounts: &[Mount]) -> Option<(String, Vec<Mount>)> {
    let [mount] = mounts else { return None };
    let option = |key: &str| mount.options.iter().find_map(|option| option.strip_prefix(key));
    let (upper, lower) = (option("upperdir=")?, option("lowerdir=")?);
    let below = if lower.contains(':') {
        let options = vec![format!("lowerdir={lower}"), "ro".to_owned()];
        Mount { kind: "overlay".to_owned(), source: "overlay".to_owned(), options, ..Mount::default() }
    } else {
        let options = vec!["rbind".to_owned(), "ro".to_owned()];
        Mount { kind: "bind".to_owned(), source: lower.to_owned(), options, ..Mount::default() }
    };
    Some((upper.to_owned(), vec![below]))
}

fn walk(upper: &Root, lower: &Root, at: &Path, changes: &mut Vec<Change>) -> std::io::Result<()> {
    for name in upper.entry(at)?.read_dir()? {
        let path = at.join(&name);
        let entry = upper.entry(&path)?;
        let stat = entry.stat()?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let before = lower.entry(&path).and_then(|entry| entry.stat_if_present()).unwrap_or(None);
        let whiteout = kind == FileType::CharacterDevice && stat.st_rdev == 0;
        let what = match (whiteout, before.is_some()) {
            (true, false) => continue,
            (true, true) => ChangeKind::Deleted,
            (false, true) => ChangeKind::Changed,
            (false, false) => ChangeKind::Added,
        };
        changes.push(Change { kind: what, path: Path::new("/").join(&path) });
        if kind == FileType::Directory && !whiteout {
            walk(upper, lower, &path, changes)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use testkit::{Scratch, need};

    #[test]
    fn changes_are_told_from_the_upper_folder() {
        if need::root().is_err() {
            return;
        }
        let scratch = Scratch::new();
        let (upper, lower) = (scratch.path("upper"), scratch.path("lower"));
        fs::create_dir_all(upper.join("etc")).unwrap();
        fs::create_dir_all(lower.join("etc")).unwrap();
        for file in ["etc/changed", "etc/gone"] {
            fs::write(lower.join(file), "x").unwrap();
        }
        fs::write(upper.join("etc/changed"), "y").unwrap();
        fs::write(upper.join("new"), "z").unwrap();
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, upper.join("etc/gone"), FileType::CharacterDevice, mode, 0)
            .unwrap();
        let mut changes = Vec::new();
        walk(&Root::open(&upper).unwrap(), &Root::open(&lower).unwrap(), Path::new(""), &mut changes)
            .unwrap();
        let lines: Vec<String> = changes
            .iter()
            .map(|change| format!("{} {}", change.kind.letter(), change.path.display()))
            .collect();
        assert_eq!(lines, ["C /etc", "C /etc/changed", "D /etc/gone", "A /new"]);
    }
}
