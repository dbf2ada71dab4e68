//! The changes of a tree as the members of a layer.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::SystemTime;

use berth_archive::{Entry as Member, Kind, TarError, Time, Whiteout, Writer, parent};
use berth_sys::beneath::{Entry, Root};
use berth_types::{Error, Result};
use rustix::fs::{FileType, OFlags, Stat, major, minor};

use super::changes::{Change, What};
use super::same::attributes;

type Inode = (u64, u64);

/// A layer being written from the tree that has the changes.
pub(super) struct Layer<'r, W> {
    root: &'r Root,
    writer: Writer<W>,
    latest: Option<SystemTime>,
    /// Directories that are members already.
    directories: HashSet<Vec<u8>>,
    /// The first member of each inode with several names.
    sources: HashMap<Inode, Vec<u8>>,
    /// Unchanged names of inodes, to be linked if another name of theirs changed after all.
    unchanged: HashMap<Inode, Vec<Vec<u8>>>,
    buffer: Vec<u8>,
}

/// Why a member cannot be written.
#[derive(Debug, thiserror::Error)]
enum MemberError {
    #[error("cannot read it")]
    Read(#[from] io::Error),
    #[error("it became shorter while it was read")]
    Shrunk,
    #[error("cannot write it to the layer")]
    Write(#[from] TarError),
}

impl<'r, W: Write> Layer<'r, W> {
    /// Begins a layer of what is in `root`; no time in it is later than `latest`.
    pub(super) fn new(root: &'r Root, output: W, latest: Option<SystemTime>) -> Self {
        Self {
            root,
            writer: Writer::new(output),
            latest,
            directories: HashSet::new(),
            sources: HashMap::new(),
            unchanged: HashMap::new(),
            buffer: vec![0; 256 << 10],
        }
    }

    /// Adds one change. Directories come before what is in them.
    pub(super) fn add(&mut self, change: &Change) -> Result<()> {
        let Change { path, what } = change;
        self.add_member(path, *what).map_err(|error| {
            let text = format!("cannot take {:?} into the layer", String::from_utf8_lossy(path));
            let kind = match &error {
                MemberError::Read(error) => Error::io(String::new(), kind_of(error)).kind(),
                MemberError::Shrunk => berth_types::ErrorKind::Aborted,
                MemberError::Write(_) => berth_types::ErrorKind::Unknown,
            };
            Error::new(kind, text).caused_by(error)
        })
    }

    /// Ends the layer.
    pub(super) fn finish(self) -> Result<()> {
        let mut output = self.writer.finish().map_err(io::Error::from).map_err(ended)?;
        output.flush().map_err(ended)
    }

    fn add_member(&mut self, path: &[u8], what: What) -> Result<(), MemberError> {
        let (above, name) = parent(path);
        if what == What::Removed {
            self.parents(above)?;
            return self.marker(above, &Whiteout::marker(name));
        }
        if Whiteout::parse(name).is_some() {
            // In a layer it would mean a removal.
            tracing::warn!(path = %String::from_utf8_lossy(path), "a reserved name is left out of the layer");
            return Ok(());
        }
        let entry = self.root.entry(Path::new(OsStr::from_bytes(path)))?;
        let stat = entry.stat()?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::Socket => Ok(()),
            FileType::Directory => {
                self.parents(above)?;
                self.directory(path, &entry, &stat)?;
                if what == What::Replaced { self.marker(path, Whiteout::OPAQUE_NAME) } else { Ok(()) }
            }
            _ if stat.st_nlink > 1 => self.linked(path, &entry, &stat, what),
            _ => {
                self.parents(above)?;
                self.file(path, &entry, &stat)
            }
        }
    }

    fn linked(&mut self, path: &[u8], entry: &Entry<'_>, stat: &Stat, what: What) -> Result<(), MemberError> {
        let inode = (stat.st_dev, stat.st_ino);
        if let Some(source) = self.sources.get(&inode) {
            let source = source.clone();
            return self.link(path, stat, source);
        }
        if what == What::SameLinked {
            self.unchanged.entry(inode).or_default().push(path.to_vec());
            return Ok(());
        }
        self.parents(parent(path).0)?;
        self.file(path, entry, stat)?;
        self.sources.insert(inode, path.to_vec());
        for other in self.unchanged.remove(&inode).unwrap_or_default() {
            self.link(&other, stat, path.to_vec())?;
        }
        Ok(())
    }

    fn link(&mut self, path: &[u8], stat: &Stat, source: Vec<u8>) -> Result<(), MemberError> {
        self.parents(parent(path).0)?;
        let member = self.member(path, Kind::HardLink(source), stat);
        Ok(self.writer.append(&member)?)
    }

    /// Adds the directories on the way to a member that aren't there yet.
    fn parents(&mut self, above: &[u8]) -> Result<(), MemberError> {
        if above.is_empty() || self.directories.contains(above) {
            return Ok(());
        }
        let slashes = above.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in slashes.chain([above.len()]).collect::<Vec<_>>() {
            let path = &above[..end];
            if !self.directories.contains(path) {
                let entry = self.root.entry(Path::new(OsStr::from_bytes(path)))?;
                let stat = entry.stat()?;
                self.directory(path, &entry, &stat)?;
            }
        }
        Ok(())
    }

    fn directory(&mut self, path: &[u8], entry: &Entry<'_>, stat: &Stat) -> Result<(), MemberError> {
        if !self.directories.insert(path.to_vec()) {
            return Ok(());
        }
        let mut member = self.member(path, Kind::Directory, stat);
        member.xattrs = xattrs(entry, stat)?;
        Ok(self.writer.append(&member)?)
    }

    fn file(&mut self, path: &[u8], entry: &Entry<'_>, stat: &Stat) -> Result<(), MemberError> {
        let device = (major(stat.st_rdev), minor(stat.st_rdev));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return self.regular(path, entry),
            FileType::Symlink => Kind::Symlink(entry.read_link()?.into_os_string().into_vec()),
            FileType::CharacterDevice => Kind::CharDevice { major: device.0, minor: device.1 },
            FileType::BlockDevice => Kind::BlockDevice { major: device.0, minor: device.1 },
            _ => Kind::Fifo,
        };
        let member = self.member(path, kind, stat);
        Ok(self.writer.append(&member)?)
    }

    fn regular(&mut self, path: &[u8], entry: &Entry<'_>) -> Result<(), MemberError> {
        // Not blocking: a fifo may have taken the file's place since.
        let mut file = File::from(entry.open(OFlags::RDONLY | OFlags::NONBLOCK)?);
        let stat = rustix::fs::fstat(&file).map_err(io::Error::from)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(MemberError::Shrunk);
        }
        let mut member = self.member(path, Kind::File, &stat);
        member.size = stat.st_size.unsigned_abs();
        member.xattrs = xattrs(entry, &stat)?;
        self.writer.append(&member)?;
        let mut left = member.size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let length = file.read(&mut self.buffer[..want])?;
            if length == 0 {
                return Err(MemberError::Shrunk);
            }
            self.writer.write_all(&self.buffer[..length])?;
            left -= length as u64;
        }
        Ok(())
    }

    fn marker(&mut self, above: &[u8], name: &[u8]) -> Result<(), MemberError> {
        let path = super::changes::join(above, name);
        Ok(self.writer.append(&Member::new(path, Kind::File, 0))?)
    }

    fn member(&self, path: &[u8], kind: Kind, stat: &Stat) -> Member {
        let mut member = Member::new(path, kind, stat.st_mode & 0o7777);
        (member.uid, member.gid) = (stat.st_uid, stat.st_gid);
        // Whole seconds, as every other tool writes into layers.
        member.mtime = Time { seconds: self.clamp(stat.st_mtime), nanos: 0 };
        member
    }

    fn clamp(&self, seconds: i64) -> i64 {
        let latest = self.latest.map(|time| match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
        });
        latest.map_or(seconds, |latest| seconds.min(latest))
    }
}

fn xattrs(entry: &Entry<'_>, stat: &Stat) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let found = attributes(entry, stat)?;
    Ok(found.into_iter().map(|(name, value)| (name.into_vec(), value)).collect())
}

fn ended(error: io::Error) -> Error {
    Error::io("cannot end the layer", error)
}

fn kind_of(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}
