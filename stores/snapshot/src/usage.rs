//! What a tree takes on disk.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use berth_types::Usage;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory on the way down: who it is, and the directories in it still to be entered.
struct Level {
    identity: (u64, u64),
    pending: Vec<CString>,
}

/// Counts the inodes and blocks of the tree at `path`, itself included, each inode once.
///
/// Holds one directory open at a time, so that no depth is too deep. In a tree that somebody changes
/// meanwhile, what vanishes is not counted.
pub(crate) fn measure(path: &Path) -> io::Result<Usage> {
    measure_since(path, None)
}

/// The same of what has changed since a time in seconds and nanoseconds.
pub(crate) fn measure_since(path: &Path, since: Option<(i64, i64)>) -> io::Result<Usage> {
    let mut walk = Walk { usage: Usage::default(), since, linked: HashSet::new() };
    let mut at = rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())?;
    let mut levels = vec![walk.enter(&at)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.pending.pop() {
            match rustix::fs::openat(&at, &name, DIRECTORY, Mode::empty()) {
                Ok(child) => {
                    levels.push(walk.enter(&child)?);
                    at = child;
                }
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(error.into()),
            }
            continue;
        }
        levels.pop();
        let Some(parent) = levels.last() else { break };
        at = rustix::fs::openat(&at, c"..", DIRECTORY, Mode::empty())?;
        if identity(&rustix::fs::fstat(&at)?) != parent.identity {
            return Err(io::Error::other("a folder was moved while it was being measured"));
        }
    }
    Ok(walk.usage)
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

struct Walk {
    usage: Usage,
    /// What has not changed since then is somebody else's.
    since: Option<(i64, i64)>,
    /// Inodes with several names that were counted. Directories cannot have two.
    linked: HashSet<(u64, u64)>,
}

impl Walk {
    fn enter(&mut self, dir: &OwnedFd) -> io::Result<Level> {
        let stat = rustix::fs::fstat(dir)?;
        self.count(&stat);
        let mut pending = Vec::new();
        for item in Dir::read_from(dir)? {
            let item = item?;
            let name = item.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if item.file_type() == FileType::Directory {
                pending.push(name.to_owned());
                continue;
            }
            match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                    pending.push(name.to_owned());
                }
                Ok(stat) => self.count(&stat),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Level { identity: identity(&stat), pending })
    }

    fn count(&mut self, stat: &Stat) {
        let changed = (stat.st_ctime, stat.st_ctime_nsec as i64);
        if self.since.is_some_and(|since| changed < since) {
            return;
        }
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !directory && stat.st_nlink > 1 && !self.linked.insert(identity(stat)) {
            return;
        }
        self.usage.inodes += 1;
        self.usage.size += stat.st_blocks.unsigned_abs() * 512;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn each_inode_counts_once_with_its_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::create_dir(path.join("d")).unwrap();
        fs::write(path.join("d/f"), vec![1; 10_000]).unwrap();
        fs::hard_link(path.join("d/f"), path.join("again")).unwrap();
        fs::File::create(path.join("hole")).unwrap().set_len(1 << 30).unwrap();
        symlink("/", path.join("link")).unwrap();
        let blocks: u64 = ["", "d", "d/f", "hole", "link"]
            .iter()
            .map(|name| fs::symlink_metadata(path.join(name)).unwrap().blocks() * 512)
            .sum();
        assert_eq!(measure(path).unwrap(), Usage { inodes: 5, size: blocks });
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_measured() {
        let folder = tempfile::tempdir().unwrap();
        let mut at = rustix::fs::openat(CWD, folder.path(), DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deeper", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "deeper", DIRECTORY, Mode::empty()).unwrap();
        }
        assert_eq!(measure(folder.path()).unwrap().inodes, 3001);
        let root = berth_sys::beneath::Root::open(folder.path()).unwrap();
        root.entry(Path::new("deeper")).unwrap().remove_all().unwrap();
    }
}
