//! The members of a layer, one after the other.

use std::ffi::OsStr;
use std::io::{self, BufRead, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use berth_archive::{Chunks, Data, Entry as Member, Finished, Kind, Whiteout, clean, parent};
use berth_sys::beneath::{Entry, Root};
use rustix::fs::{FileType, makedev};

use super::attributes::{HasMode, finish_open, finish_unopened};
use super::files::Files;
use super::ours::Ours;
use super::parents::Lowers;
use super::times::{Directories, both};
use super::whiteout::{directory_of, is_mark};
use super::{Target, UnpackError};
use crate::mounted::{Whiteouts, in_user_namespace};

/// A tree with a part of a layer in it.
pub(super) struct Unpack {
    pub(super) root: Arc<Root>,
    pub(super) whiteouts: Whiteouts,
    pub(super) ours: Ours,
    pub(super) directories: Directories,
    pub(super) lowers: Lowers,
    pub(super) files: Files,
    devices: Devices,
}

/// Whether device nodes can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Devices {
    Made,
    LeftOut,
}

/// What a new file took the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replaced {
    Nothing,
    /// overlayfs' mark that a lower file is gone.
    Mark,
    Something,
}

pub(super) fn path_of(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

impl Unpack {
    pub(super) fn new(root: Root, whiteouts: Whiteouts) -> Result<Self, UnpackError> {
        let ours =
            Ours::of(&root).map_err(|error| UnpackError::write("cannot read the tree", b"/", error))?;
        Ok(Self {
            root: Arc::new(root),
            lowers: Lowers::of(&whiteouts),
            files: Files::new(&ours, &whiteouts),
            whiteouts,
            ours,
            directories: Directories::default(),
            devices: if in_user_namespace() { Devices::LeftOut } else { Devices::Made },
        })
    }

    /// Writes one member with its data.
    fn member(&mut self, member: &Member, data: &mut impl BufRead) -> Result<(), UnpackError> {
        let path = clean(&member.path);
        let (_, name) = parent(&path);
        let device = matches!(member.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. });
        // The root has its attributes from the snapshotter, as in containerd.
        if name.is_empty() || (device && self.devices == Devices::LeftOut) {
            return Ok(());
        }
        let whiteout = Whiteout::parse(name);
        match whiteout {
            Some(Whiteout::Aufs) => return Ok(()),
            Some(Whiteout::Invalid) => {
                return Err(UnpackError::Whiteout { path: String::from_utf8_lossy(&path).into_owned() });
            }
            _ => {}
        }
        let root = Arc::clone(&self.root);
        let entry = match root.entry(path_of(&path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // What is missing may be a file that is on its way.
                self.files.settle()?;
                root.entry_making_parents(path_of(&path), &mut |made, dir| self.made_parent(made, dir))
            }
            found => found,
        }
        .map_err(|error| UnpackError::write("cannot make the folder of", &path, error))?;
        let new = match whiteout {
            None => self.files.take(&entry),
            Some(_) => Ok(false),
        }
        .map_err(|error| UnpackError::write("cannot look at the folder of", &path, error))?;
        if new && member.kind == Kind::File && self.files.add(&entry, member, data)? {
            return Ok(());
        }
        if !new || matches!(member.kind, Kind::HardLink(_)) {
            self.files.settle()?;
        }
        match whiteout {
            Some(Whiteout::Opaque) => self
                .white_out_all(directory_of(&path))
                .map_err(|error| UnpackError::write("cannot apply", &path, error)),
            Some(Whiteout::Name(hidden)) => self
                .white_out(&entry, directory_of(&path), hidden)
                .map_err(|error| UnpackError::write("cannot apply", &path, error)),
            _ => self.write(&entry, &path, member, data),
        }
    }

    /// The error as it is, or that the layers below were needed.
    fn missed(&self, error: UnpackError) -> UnpackError {
        match &self.lowers.missed {
            Some(path) => UnpackError::Apart { path: path.display().to_string() },
            None => error,
        }
    }

    fn write(
        &mut self,
        entry: &Entry<'_>,
        path: &[u8],
        member: &Member,
        data: &mut impl BufRead,
    ) -> Result<(), UnpackError> {
        let failed = |error| UnpackError::write("cannot write", path, error);
        match &member.kind {
            Kind::File => self.file(entry, path, member, data)?,
            Kind::Directory => self.directory(entry, path, member)?,
            Kind::HardLink(target) => self.hard_link(entry, member, target).map_err(failed)?,
            Kind::Symlink(target) => {
                let target = OsStr::from_bytes(target);
                self.unopened(entry, member, HasMode::No, || entry.create_symlink(target)).map_err(failed)?;
            }
            Kind::Fifo => self.node(entry, member, FileType::Fifo, 0).map_err(failed)?,
            Kind::CharDevice { major, minor } => {
                let device = makedev(*major, *minor);
                self.node(entry, member, FileType::CharacterDevice, device).map_err(failed)?;
            }
            Kind::BlockDevice { major, minor } => {
                let device = makedev(*major, *minor);
                self.node(entry, member, FileType::BlockDevice, device).map_err(failed)?;
            }
        }
        self.ours.add(&self.root, entry, path)
    }

    fn file(
        &mut self,
        entry: &Entry<'_>,
        path: &[u8],
        member: &Member,
        data: &mut impl BufRead,
    ) -> Result<(), UnpackError> {
        let failed = |error| UnpackError::write("cannot write", path, error);
        let (file, _) = make(entry, || entry.create_file()).map_err(failed)?;
        match &member.segments {
            None => copy(data, path, member.size, |bytes, _| (&file).write_all(bytes))?,
            Some(segments) => {
                file.set_len(member.size).map_err(failed)?;
                for run in segments {
                    let write = |bytes: &[u8], at| file.write_all_at(bytes, run.offset + at);
                    copy(data, path, run.length, write)?;
                }
            }
        }
        finish_open(file.as_fd(), member, &self.whiteouts).map_err(failed)?;
        rustix::fs::futimens(&file, &both(member.mtime)).map_err(|error| failed(error.into()))
    }

    fn directory(&mut self, entry: &Entry<'_>, path: &[u8], member: &Member) -> Result<(), UnpackError> {
        let failed = |error| UnpackError::write("cannot make", path, error);
        let made = match entry.create_dir() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match entry.open_dir() {
                Ok(_) => None,
                Err(_) => Some(make(entry, || entry.create_dir()).map_err(failed)?.1),
            },
            done => done.map(|()| Some(Replaced::Nothing)).map_err(failed)?,
        };
        let dir = entry.open_dir().map_err(failed)?;
        if made.is_some() {
            self.ours.add_cleared(&dir).map_err(failed)?;
        }
        if made.is_some_and(|replaced| replaced != Replaced::Nothing) {
            // Something else was here, so what a lower directory of that name holds is gone.
            self.make_opaque(&dir).map_err(failed)?;
        }
        finish_open(dir.as_fd(), member, &self.whiteouts).map_err(failed)?;
        self.directories.add(path, both(member.mtime))
    }

    fn hard_link(&mut self, entry: &Entry<'_>, member: &Member, target: &[u8]) -> io::Result<()> {
        let target = clean(target);
        let existing = self.root.entry(path_of(&target))?;
        match entry.create_link(&existing) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let (here, there) = (entry.stat()?, existing.stat()?);
                if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino) {
                    entry.remove_all()?;
                    entry.create_link(&existing)?;
                }
            }
            done => done?,
        }
        let symlink = FileType::from_raw_mode(entry.stat()?.st_mode) == FileType::Symlink;
        let has_mode = if symlink { HasMode::No } else { HasMode::Yes };
        finish_unopened(entry, member, &self.whiteouts, has_mode)?;
        entry.set_times(&both(member.mtime))
    }

    fn node(&self, entry: &Entry<'_>, member: &Member, kind: FileType, device: u64) -> io::Result<()> {
        self.unopened(entry, member, HasMode::Yes, || entry.create_node(kind, 0, device))
    }

    fn unopened(
        &self,
        entry: &Entry<'_>,
        member: &Member,
        has_mode: HasMode,
        create: impl Fn() -> io::Result<()>,
    ) -> io::Result<()> {
        make(entry, create)?;
        finish_unopened(entry, member, &self.whiteouts, has_mode)?;
        entry.set_times(&both(member.mtime))
    }
}

impl Target for Unpack {
    fn entry(&mut self, entry: &Member, data: &mut Data<'_, Chunks>) -> Result<(), UnpackError> {
        self.member(entry, data).map_err(|error| self.missed(error))
    }

    /// Sets what had to wait, and waits for the disk if asked.
    fn finish(mut self, _layer: &Finished, sync: bool) -> Result<(), UnpackError> {
        self.files.settle()?;
        self.directories.set(&self.root)?;
        if sync {
            let synced = rustix::fs::syncfs(self.root.fd());
            synced
                .map_err(|error| UnpackError::write("cannot flush the filesystem of", b"/", error.into()))?;
        }
        Ok(())
    }
}

/// Makes something new, in the place of whatever is there.
fn make<T>(entry: &Entry<'_>, create: impl Fn() -> io::Result<T>) -> io::Result<(T, Replaced)> {
    match create() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mark = entry.stat_if_present()?.is_some_and(|stat| is_mark(&stat));
            entry.remove_all()?;
            Ok((create()?, if mark { Replaced::Mark } else { Replaced::Something }))
        }
        made => Ok((made?, Replaced::Nothing)),
    }
}

/// Moves `length` bytes of data; `write` gets each part with its offset.
fn copy(
    data: &mut impl BufRead,
    path: &[u8],
    length: u64,
    write: impl Fn(&[u8], u64) -> io::Result<()>,
) -> Result<(), UnpackError> {
    let mut at = 0;
    while at < length {
        let part = data.fill_buf().map_err(|error| UnpackError::data(path, error))?;
        let part = &part[..part.len().min(usize::try_from(length - at).unwrap_or(usize::MAX))];
        if part.is_empty() {
            return Err(UnpackError::data(path, io::ErrorKind::UnexpectedEof.into()));
        }
        write(part, at).map_err(|error| UnpackError::write("cannot write", path, error))?;
        let taken = part.len();
        data.consume(taken);
        at += taken as u64;
    }
    Ok(())
}
