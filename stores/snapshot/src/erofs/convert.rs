//! The upper folder of an overlay as an image, with all that its files are.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use berth_archive::{Segment, Time};
use berth_erofs::{Attributes, Builder, ErofsError, NodeId, Special};
use berth_sys::beneath::Root;
use berth_types::{Error, Result};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, SeekFrom, Stat, major, minor};
use rustix::io::Errno;

const OPEN: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);
const DIRECTORY: OFlags = OPEN.union(OFlags::RDONLY).union(OFlags::DIRECTORY);
/// Runs of data of one file, beyond which the rest counts as one.
const RUNS: usize = 1 << 16;
/// The tree is walked with a directory open for each level.
const MAX_DEPTH: usize = 400;

/// overlayfs' notes that say something to whoever mounts the layer below another one; the others are about the mount
/// in which the files were written.
const KEPT: [&[u8]; 4] = [b"opaque", b"redirect", b"metacopy", b"whiteout"];

/// Why a tree cannot be an image.
#[derive(Debug, thiserror::Error)]
enum ConvertError {
    #[error("cannot read {path:?}")]
    Read { path: String, source: io::Error },
    #[error(transparent)]
    Image(#[from] ErofsError),
    #[error("the tree has more than {MAX_DEPTH} levels")]
    Depth,
}

/// Writes the tree as an image to the file of that name, whatever is there. Nobody changes the tree meanwhile.
pub(super) fn tree(from: &Path, image: &Path) -> Result<()> {
    write(from, image).map_err(|error| {
        let text = format!("cannot make {} of {}", image.display(), from.display());
        match error {
            ConvertError::Image(ErofsError::Write(source)) => Error::io(text, source),
            ConvertError::Image(ErofsError::TooLarge | ErofsError::TooMany(_)) | ConvertError::Depth => {
                Error::resource_exhausted(text).caused_by(error)
            }
            ConvertError::Image(_) | ConvertError::Read { .. } => Error::internal(text).caused_by(error),
        }
    })
}

/// Removes everything in a folder.
pub(super) fn empty(folder: &Path) -> io::Result<()> {
    let root = Root::open(folder)?;
    for name in root.entry(Path::new(""))?.read_dir()? {
        root.entry(Path::new(&name))?.remove_all()?;
    }
    Ok(())
}

fn write(from: &Path, image: &Path) -> Result<(), ConvertError> {
    let output = File::create(image).map_err(ErofsError::Write)?;
    let mut convert = Convert { builder: Builder::new(output)?, links: HashMap::new(), path: Vec::new() };
    let dir = rustix::fs::openat(CWD, from, DIRECTORY, Mode::empty()).map_err(|error| convert.read(error))?;
    let stat = rustix::fs::fstat(&dir).map_err(|error| convert.read(error))?;
    let attributes = convert.attributes(
        &stat,
        |list| rustix::fs::flistxattr(&dir, list),
        |name, value| rustix::fs::fgetxattr(&dir, name, value),
    )?;
    let root = convert.builder.root();
    convert.builder.set_attributes(root, b"/", &attributes)?;
    convert.directory(&dir, root)?;
    // Two layers with the same files may have one name: nothing finds them by it.
    convert.builder.finish([0; 16])?;
    Ok(())
}

struct Convert {
    builder: Builder<File>,
    /// Files with several names that were met.
    links: HashMap<(u64, u64), NodeId>,
    /// Names from the root to where the walk is.
    path: Vec<CString>,
}

impl Convert {
    fn read(&self, source: impl Into<io::Error>) -> ConvertError {
        let names: Vec<_> = self.path.iter().map(|name| name.to_string_lossy()).collect();
        ConvertError::Read { path: format!("/{}", names.join("/")), source: source.into() }
    }

    fn directory(&mut self, from: &OwnedFd, to: NodeId) -> Result<(), ConvertError> {
        if self.path.len() > MAX_DEPTH {
            return Err(ConvertError::Depth);
        }
        let mut names = Vec::new();
        for item in Dir::read_from(from).map_err(|error| self.read(error))? {
            let name = item.map_err(|error| self.read(error))?.file_name().to_owned();
            if name.as_c_str() != c"." && name.as_c_str() != c".." {
                names.push(name);
            }
        }
        // The same tree makes the same image.
        names.sort_unstable();
        for name in names {
            self.path.push(name.clone());
            self.entry(from, &name, to)?;
            self.path.pop();
        }
        Ok(())
    }

    fn entry(&mut self, from: &OwnedFd, name: &CString, to: NodeId) -> Result<(), ConvertError> {
        let stat =
            rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| self.read(error))?;
        let inode = (stat.st_dev, stat.st_ino);
        let kind = FileType::from_raw_mode(stat.st_mode);
        let linked = stat.st_nlink > 1 && kind != FileType::Directory;
        if let Some(known) = self.links.get(&inode).filter(|_| linked) {
            return Ok(self.builder.hard_link(to, name.as_bytes(), *known)?);
        }
        let path = through_proc(from.as_fd(), name);
        let attributes = self.attributes(
            &stat,
            |list| rustix::fs::llistxattr(&path, list),
            |name, value| rustix::fs::lgetxattr(&path, name, value),
        )?;
        let node = match kind {
            FileType::Directory => {
                let node = self.builder.directory(to, name.as_bytes(), &attributes)?;
                let dir = rustix::fs::openat(from, name, DIRECTORY, Mode::empty());
                let dir = dir.map_err(|error| self.read(error))?;
                self.directory(&dir, node)?;
                node
            }
            FileType::RegularFile => self.file(from, name, to, &stat, &attributes)?,
            FileType::Symlink => {
                let text =
                    rustix::fs::readlinkat(from, name, Vec::new()).map_err(|error| self.read(error))?;
                self.builder.symlink(to, name.as_bytes(), &attributes, text.as_bytes())?
            }
            kind => {
                let device = (major(stat.st_rdev), minor(stat.st_rdev));
                let special = match kind {
                    FileType::CharacterDevice => Special::Character(device.0, device.1),
                    FileType::BlockDevice => Special::Block(device.0, device.1),
                    FileType::Fifo => Special::Fifo,
                    _ => Special::Socket,
                };
                self.builder.special(to, name.as_bytes(), &attributes, special)?
            }
        };
        if linked {
            self.links.insert(inode, node);
        }
        Ok(())
    }

    fn file(
        &mut self,
        from: &OwnedFd,
        name: &CString,
        to: NodeId,
        stat: &Stat,
        attributes: &Attributes,
    ) -> Result<NodeId, ConvertError> {
        let opened = rustix::fs::openat(from, name, OPEN | OFlags::RDONLY, Mode::empty());
        let file = File::from(opened.map_err(|error| self.read(error))?);
        let size = stat.st_size.unsigned_abs();
        let name = name.as_bytes();
        if stat.st_blocks.unsigned_abs() * 512 >= size {
            return Ok(self.builder.file(
                to,
                name,
                attributes,
                size,
                &mut BufReader::with_capacity(PART, file),
            )?);
        }
        let runs = runs(&file, size).map_err(|error| self.read(error))?;
        let data = Runs { file: &file, left: runs.iter(), current: None };
        let mut data = BufReader::with_capacity(PART, data);
        Ok(self.builder.sparse_file(to, name, attributes, (size, &runs), &mut data)?)
    }

    fn attributes(
        &self,
        stat: &Stat,
        list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
        get: impl Fn(&CString, &mut [u8]) -> Result<usize, Errno>,
    ) -> Result<Attributes, ConvertError> {
        let xattrs = xattrs(list, get).map_err(|error| self.read(error))?;
        Ok(Attributes {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Time { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 },
            xattrs,
        })
    }
}

/// Bytes read at a time.
const PART: usize = 256 << 10;

/// Where a file has data.
fn runs(file: &File, size: u64) -> io::Result<Vec<Segment>> {
    let mut runs = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let last = runs.len() + 1 == RUNS;
        let end = if last { size } else { rustix::fs::seek(file, SeekFrom::Hole(start))?.min(size) };
        if end > start {
            runs.push(Segment { offset: start, length: end - start });
        }
        at = end;
    }
    Ok(runs)
}

/// The data of a file without its holes.
struct Runs<'f> {
    file: &'f File,
    left: std::slice::Iter<'f, Segment>,
    /// The run that is being read, and how much of it was.
    current: Option<(Segment, u64)>,
}

impl Read for Runs<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (run, read) = match self.current.filter(|(run, read)| *read < run.length) {
            Some(current) => current,
            None => match self.left.next() {
                Some(run) => (*run, 0),
                None => return Ok(0),
            },
        };
        let length = usize::try_from(run.length - read).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.file.read_at(&mut buffer[..length], run.offset + read)?;
        self.current = Some((run, read + length as u64));
        Ok(length)
    }
}

fn through_proc(dir: BorrowedFd<'_>, name: &CString) -> Vec<u8> {
    [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name.as_bytes()].concat()
}

fn xattrs(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&CString, &mut [u8]) -> Result<usize, Errno>,
) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let found = crate::native::read_xattrs(list, get)?;
    let pairs = found.into_iter().map(|(name, value)| (name.into_bytes(), value));
    Ok(pairs.filter(|(name, _)| is_kept(name)).collect())
}

fn is_kept(name: &[u8]) -> bool {
    let note = name.strip_prefix(b"trusted.overlay.").or_else(|| name.strip_prefix(b"user.overlay."));
    note.is_none_or(|note| KEPT.contains(&note))
}
