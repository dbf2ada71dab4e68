//! Copies of whole trees between two roots, neither of which is trusted.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use berth_sys::beneath::{Entry, Owner, Root};
use rustix::fs::{FileType, Mode, OFlags, Stat, Timespec, Timestamps};

/// How much of each thing is copied along with its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Owner, mode, times and attributes.
    Everything,
    /// Mode and times; the copy belongs to whoever `Owner` is.
    OwnedBy(Owner),
}

struct Copier<'r> {
    from: &'r Root,
    to: &'r Root,
    keep: Keep,
    /// Where a file with several names was copied to, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
    depth: usize,
}

const MAX_DEPTH: usize = 512;

/// Copies what `source` names to the place `target`, a folder into a folder that is there already; a file
/// takes the place of a file. Links are copied as links, never followed.
pub fn copy(from: &Root, source: &Path, to: &Root, target: &Path, keep: Keep) -> io::Result<()> {
    Copier { from, to, keep, links: HashMap::new(), depth: 0 }.copy(source, target)
}

/// Copies what is in the folder `source` into the folder `target`, and gives that the folder's own owner and mode.
pub fn copy_contents(from: &Root, source: &Path, to: &Root, target: &Path, keep: Keep) -> io::Result<()> {
    let mut copier = Copier { from, to, keep, links: HashMap::new(), depth: 0 };
    let entry = from.entry(source)?;
    copier.folder(&entry, source, target, &entry.stat()?)
}

impl Copier<'_> {
    fn copy(&mut self, source: &Path, target: &Path) -> io::Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(rustix::io::Errno::NAMETOOLONG.into());
        }
        let entry = self.from.entry(source)?;
        let stat = entry.stat()?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            self.folder(&entry, source, target, &stat)?;
        } else {
            self.single(&entry, target, &stat, kind)?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn folder(&mut self, entry: &Entry<'_>, source: &Path, target: &Path, stat: &Stat) -> io::Result<()> {
        let place = self.to.entry(target)?;
        match place.stat_if_present()? {
            Some(there) if FileType::from_raw_mode(there.st_mode) == FileType::Directory => {}
            Some(_) => return Err(rustix::io::Errno::NOTDIR.into()),
            None => place.create_dir()?,
        }
        for name in entry.read_dir()? {
            self.copy(&source.join(&name), &target.join(&name))?;
        }
        self.finish(entry, &self.to.entry(target)?, stat)
    }

    fn single(&mut self, entry: &Entry<'_>, target: &Path, stat: &Stat, kind: FileType) -> io::Result<()> {
        let place = self.to.entry(target)?;
        if let Some(there) = place.stat_if_present()? {
            if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
                return Err(rustix::io::Errno::ISDIR.into());
            }
            place.remove_file()?;
        }
        let node = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1
            && let Some(known) = self.links.get(&node)
        {
            return place.create_link(&self.to.entry(known)?);
        }
        match kind {
            FileType::RegularFile => {
                let fd = entry.open(OFlags::RDONLY | OFlags::NONBLOCK)?;
                let opened = rustix::fs::fstat(&fd)?;
                if FileType::from_raw_mode(opened.st_mode) != FileType::RegularFile {
                    return Err(rustix::io::Errno::AGAIN.into());
                }
                let mut file = place.create_file()?;
                io::copy(&mut File::from(fd), &mut file)?;
            }
            FileType::Symlink => place.create_symlink(entry.read_link()?.as_os_str())?,
            FileType::Socket => return Ok(()),
            kind => place.create_node(kind, stat.st_mode & 0o7777, stat.st_rdev)?,
        }
        if stat.st_nlink > 1 {
            self.links.insert(node, target.to_owned());
        }
        self.finish(entry, &place, stat)
    }

    fn finish(&self, entry: &Entry<'_>, place: &Entry<'_>, stat: &Stat) -> io::Result<()> {
        let owner = match self.keep {
            Keep::Everything => Owner { uid: stat.st_uid, gid: stat.st_gid },
            Keep::OwnedBy(owner) => owner,
        };
        if place.is_root() {
            rustix::fs::fchown(
                self.to.fd(),
                Some(rustix::fs::Uid::from_raw(owner.uid)),
                Some(rustix::fs::Gid::from_raw(owner.gid)),
            )?;
            rustix::fs::fchmod(self.to.fd().as_fd(), Mode::from_raw_mode(stat.st_mode & 0o7777))?;
            return Ok(());
        }
        place.set_owner(owner)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            place.set_mode(stat.st_mode & 0o7777)?;
        }
        if self.keep == Keep::Everything {
            for name in entry.xattr_names()? {
                // Attributes of another overlay or of a security module are not ours to give.
                let text = name.to_string_lossy();
                if (text.starts_with("user.") || text == "security.capability")
                    && let Some(value) = entry.xattr(&name)?
                {
                    place.set_xattr(&name, &value)?;
                }
            }
        }
        let time = |seconds: i64, nanos: u64| Timespec { tv_sec: seconds, tv_nsec: nanos as i64 };
        place.set_times(&Timestamps {
            last_access: time(stat.st_atime, stat.st_atime_nsec),
            last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;
    use testkit::Scratch;

    #[test]
    fn a_tree_arrives_whole_and_links_stay_links() {
        let scratch = Scratch::new();
        let (from, to) = (scratch.path("from"), scratch.path("to"));
        fs::create_dir_all(from.join("d/e")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("d/f"), "text").unwrap();
        fs::set_permissions(from.join("d/f"), fs::Permissions::from_mode(0o4750)).unwrap();
        fs::hard_link(from.join("d/f"), from.join("d/e/g")).unwrap();
        symlink("/etc/passwd", from.join("d/link")).unwrap();
        let (from, to_root) = (Root::open(&from).unwrap(), Root::open(&to).unwrap());
        copy(&from, Path::new("d"), &to_root, Path::new("x"), Keep::Everything).unwrap();
        let file = fs::metadata(to.join("x/f")).unwrap();
        assert_eq!(file.permissions().mode() & 0o7777, 0o4750);
        assert_eq!(file.ino(), fs::metadata(to.join("x/e/g")).unwrap().ino());
        assert_eq!(fs::read_link(to.join("x/link")).unwrap(), Path::new("/etc/passwd"));
        copy(&from, Path::new("d"), &to_root, Path::new("x"), Keep::Everything).unwrap();
    }

    #[test]
    fn a_link_in_the_target_does_not_lead_out() {
        let scratch = Scratch::new();
        let (from, to) = (scratch.path("from"), scratch.path("to"));
        fs::create_dir_all(&from).unwrap();
        fs::create_dir_all(&to).unwrap();
        fs::write(from.join("f"), "new").unwrap();
        let canary = scratch.file("canary", "old");
        symlink(&canary, to.join("f")).unwrap();
        symlink(scratch.folder(), to.join("out")).unwrap();
        let (from, to) = (Root::open(&from).unwrap(), Root::open(&to).unwrap());
        copy(&from, Path::new("f"), &to, Path::new("f"), Keep::Everything).unwrap();
        assert_eq!(fs::read(&canary).unwrap(), b"old");
        assert!(copy(&from, Path::new("f"), &to, Path::new("out/canary"), Keep::Everything).is_err());
        assert_eq!(fs::read(&canary).unwrap(), b"old");
    }
}
