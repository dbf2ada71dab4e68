//! Files into and out of containers, whether they run or not.
//!
//! The container's side is not trusted: every path is resolved beneath its root by descriptors, so a link in it
//! leads to a place in it, also while it runs and changes them.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use berth_archive::{Entry as Member, Kind, Reader, Time, Writer};
use berth_rootfs::Keep;
use berth_sys::beneath::{Entry, Owner, Root};
use berth_types::{Error, Mount, ProcessStatus, Result};
use rustix::fs::{FileType, Mode, OFlags, Stat, Timespec, Timestamps, major, minor};

use crate::{Found, Workload};

/// How to copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// Keeps owners as they are.
    pub archive: bool,
    /// Copies what a link points at, when the source itself is one.
    pub follow: bool,
}

/// A place on the host or in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A tar on standard input or output.
    Stream,
    /// A path of the host.
    Host(PathBuf),
    /// A container and a path in it.
    Container(String, PathBuf),
}

impl std::str::FromStr for Location {
    type Err = Error;

    /// `-`, `CONTAINER:PATH` or a path; a path with a colon needs a slash before it.
    fn from_str(text: &str) -> Result<Self> {
        if text == "-" {
            return Ok(Self::Stream);
        }
        match text.split_once(':') {
            Some((name, path)) if !name.is_empty() && !name.contains('/') && !name.starts_with('.') => {
                if path.is_empty() {
                    return Err(Error::invalid_argument(format!("{text}: a path is needed after the colon")));
                }
                Ok(Self::Container(name.to_owned(), PathBuf::from(path)))
            }
            _ => Ok(Self::Host(PathBuf::from(text))),
        }
    }
}

impl Workload {
    /// Copies from a container to the host.
    pub async fn copy_out(
        &self,
        found: &Found,
        source: &Path,
        target: &Path,
        options: CopyOptions,
    ) -> Result<()> {
        let owner = owner(options, rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let target = absolute(target)?;
        self.in_root(found, |root| {
            let host = Root::open(Path::new("/"))?;
            copy(root, source, &host, &target, owner, options)
        })
        .await
        .map_err(|error| {
            error.context(format!("cannot copy {} of container {}", source.display(), found.name()))
        })
    }

    /// Copies from the host into a container.
    pub async fn copy_in(
        &self,
        found: &Found,
        source: &Path,
        target: &Path,
        options: CopyOptions,
    ) -> Result<()> {
        let source = absolute(source)?;
        self.in_root(found, |root| {
            let host = Root::open(Path::new("/"))?;
            copy(&host, &source, root, target, owner(options, 0, 0), options)
        })
        .await
        .map_err(|error| {
            error.context(format!("cannot copy {} into container {}", source.display(), found.name()))
        })
    }

    /// Writes a file or folder of a container as a tar; the whole root without a prefix.
    pub async fn tar_out(&self, found: &Found, source: &Path, into: &mut (dyn Write + Send)) -> Result<()> {
        self.in_root(found, |root| {
            let entry = root.entry(source)?;
            let name = if entry.is_root() { PathBuf::new() } else { PathBuf::from(entry.name()) };
            let mut writer = Writer::new(into);
            pack(root, source, &name, &mut writer)?;
            writer.finish().map_err(io::Error::other)?.flush()
        })
        .await
        .map_err(|error| {
            error.context(format!("cannot read {} of container {}", source.display(), found.name()))
        })
    }

    /// Unpacks a tar in a folder of a container.
    pub async fn tar_in(&self, found: &Found, target: &Path, from: &mut (dyn Read + Send)) -> Result<()> {
        self.in_root(found, |root| unpack(root, target, from)).await.map_err(|error| {
            error.context(format!("cannot write to {} of container {}", target.display(), found.name()))
        })
    }

    /// Gives the root of a container, as it sees it if it runs, to `work`.
    async fn in_root<T: Send>(
        &self,
        found: &Found,
        work: impl FnOnce(&Root) -> io::Result<T> + Send,
    ) -> Result<T> {
        let failed = |error: io::Error| Error::io("the file system answers", error);
        let state = self.task_state(&found.container.id).await?;
        if let Some(state) = state.filter(|state| state.pid > 0 && state.status != ProcessStatus::Stopped) {
            let root = Root::open(Path::new(&format!("/proc/{}/root", state.pid))).map_err(failed)?;
            return work(&root).map_err(failed);
        }
        let definition = found.definition()?;
        if let Some(folder) = &definition.rootfs {
            return work(&Root::open(Path::new(folder)).map_err(failed)?).map_err(failed);
        }
        let mut mounts = self.rootfs_of(&found.container).await?;
        mounts.extend(definition.mounts.iter().filter(|point| Path::new(&point.source).is_dir()).map(
            |point| Mount {
                kind: "bind".to_owned(),
                source: point.source.clone(),
                target: point.destination.clone(),
                options: point.options.iter().filter(|option| *option != "rro").cloned().collect(),
            },
        ));
        // A volume whose mount point the runtime would have made is left out.
        let plain = self.rootfs_of(&found.container).await?;
        let mounts = if mounts.len() > plain.len() && !self.can_mount(&mounts) { plain } else { mounts };
        self.in_mounts(&mounts, |root, _| work(root).map_err(failed))
    }

    fn can_mount(&self, mounts: &[Mount]) -> bool {
        self.in_mounts(mounts, |_, _| Ok(())).is_ok()
    }
}

fn owner(options: CopyOptions, uid: u32, gid: u32) -> Keep {
    if options.archive { Keep::Everything } else { Keep::OwnedBy(Owner { uid, gid }) }
}

/// An absolute path that keeps what its end says (`/.`, `/`).
fn absolute(path: &Path) -> Result<PathBuf> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let cwd = std::env::current_dir().map_err(|error| Error::io("cannot find the current folder", error))?;
    let mut whole = cwd.into_os_string();
    whole.push("/");
    whole.push(path.as_os_str());
    Ok(whole.into())
}

fn ends_with(path: &Path, end: &[u8]) -> bool {
    path.as_os_str().as_bytes().ends_with(end)
}

fn is_folder(root: &Root, path: &Path) -> bool {
    root.open_file(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).is_ok()
}

fn copy(
    from: &Root,
    source: &Path,
    to: &Root,
    target: &Path,
    keep: Keep,
    options: CopyOptions,
) -> io::Result<()> {
    let source = if options.follow { followed(from, source)? } else { source.to_owned() };
    let entry = from.entry(&source)?;
    let stat = entry.stat()?;
    let contents = ends_with(&source, b"/.") || entry.is_root();
    let folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if ends_with(&source, b"/") && !folder {
        return Err(rustix::io::Errno::NOTDIR.into());
    }
    let into = is_folder(to, target);
    let target = if into && !(folder && contents) {
        target.join(entry.name())
    } else if into {
        target.to_owned()
    } else if ends_with(target, b"/") && !folder {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the folder to copy into does not exist"));
    } else {
        target.to_owned()
    };
    if into && folder && contents {
        return into_folder(from, &source, to, &target, keep);
    }
    berth_rootfs::copy(from, &source, to, &target, keep)
}

/// Copies what is in a folder into a folder that is there, whose own owner and mode stay.
fn into_folder(from: &Root, source: &Path, to: &Root, target: &Path, keep: Keep) -> io::Result<()> {
    for name in from.entry(source)?.read_dir()? {
        berth_rootfs::copy(from, &source.join(&name), to, &target.join(&name), keep)?;
    }
    Ok(())
}

/// The path with a link at its end replaced by what it points at.
fn followed(root: &Root, path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..40 {
        let entry = root.entry(&path)?;
        let Some(stat) = entry.stat_if_present()? else { return Ok(path) };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return Ok(path);
        }
        let link = entry.read_link()?;
        path = path.parent().unwrap_or(Path::new("/")).join(link);
    }
    Err(rustix::io::Errno::LOOP.into())
}

fn pack(root: &Root, at: &Path, name: &Path, writer: &mut Writer<&mut (dyn Write + Send)>) -> io::Result<()> {
    let entry = root.entry(at)?;
    let stat = entry.stat()?;
    let Some(kind) = member_kind(&entry, &stat)? else { return Ok(()) };
    if !name.as_os_str().is_empty() {
        let mut member = Member::new(name.as_os_str().as_bytes(), kind.clone(), stat.st_mode & 0o7777);
        (member.uid, member.gid) = (stat.st_uid, stat.st_gid);
        member.mtime = Time { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 };
        for attribute in entry.xattr_names()? {
            let text = attribute.as_bytes();
            if (text.starts_with(b"user.") || text == b"security.capability")
                && let Some(value) = entry.xattr(&attribute)?
            {
                member.xattrs.push((text.to_vec(), value));
            }
        }
        if kind == Kind::File {
            return pack_file(&entry, member, writer);
        }
        writer.append(&member).map_err(io::Error::other)?;
    }
    if kind == Kind::Directory {
        for child in entry.read_dir()? {
            match pack(root, &at.join(&child), &name.join(&child), writer) {
                // A container that runs may remove a file between the listing and the look.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    Ok(())
}

fn pack_file(
    entry: &Entry<'_>,
    mut member: Member,
    writer: &mut Writer<&mut (dyn Write + Send)>,
) -> io::Result<()> {
    let fd = entry.open(OFlags::RDONLY | OFlags::NONBLOCK)?;
    let stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(());
    }
    member.size = stat.st_size as u64;
    writer.append(&member).map_err(io::Error::other)?;
    let mut data = std::fs::File::from(fd).take(member.size);
    let copied = io::copy(&mut data, writer)?;
    // A file that shrank meanwhile is filled up, or the archive would be broken.
    io::copy(&mut io::repeat(0).take(member.size - copied), writer)?;
    Ok(())
}

fn member_kind(entry: &Entry<'_>, stat: &Stat) -> io::Result<Option<Kind>> {
    let (major, minor) = (major(stat.st_rdev), minor(stat.st_rdev));
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Some(Kind::File),
        FileType::Directory => Some(Kind::Directory),
        FileType::Symlink => Some(Kind::Symlink(entry.read_link()?.into_os_string().into_vec())),
        FileType::CharacterDevice => Some(Kind::CharDevice { major, minor }),
        FileType::BlockDevice => Some(Kind::BlockDevice { major, minor }),
        FileType::Fifo => Some(Kind::Fifo),
        _ => None,
    })
}

fn unpack(root: &Root, target: &Path, from: &mut (dyn Read + Send)) -> io::Result<()> {
    if !is_folder(root, target) {
        let text = format!("{} is no folder: a tar is unpacked into one", target.display());
        return Err(io::Error::new(io::ErrorKind::NotADirectory, text));
    }
    let input = berth_archive::Decoder::new(BufReader::new(from), berth_archive::Limits::default())?;
    let mut reader = Reader::new(BufReader::new(input));
    while let Some(member) = reader.next_entry().map_err(io::Error::other)? {
        let name = berth_archive::clean(&member.path);
        if name.is_empty() {
            continue;
        }
        let path = target.join(Path::new(std::ffi::OsStr::from_bytes(&name)));
        let place = root.entry_making_parents(&path, &mut |_, _| Ok(()))?;
        let there = place.stat_if_present()?;
        let folder = there.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        if there.is_some() && !folder {
            place.remove_file()?;
        }
        match &member.kind {
            Kind::Directory if folder => {}
            Kind::Directory => place.create_dir()?,
            Kind::File => {
                let mut file = place.create_file()?;
                write_data(&mut file, &member, &mut reader.data())?;
            }
            Kind::Symlink(link) => place.create_symlink(std::ffi::OsStr::from_bytes(link))?,
            Kind::HardLink(other) => {
                let other = target.join(Path::new(std::ffi::OsStr::from_bytes(&berth_archive::clean(other))));
                place.create_link(&root.entry(&other)?)?;
                continue;
            }
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                let block = matches!(member.kind, Kind::BlockDevice { .. });
                let kind = if block { FileType::BlockDevice } else { FileType::CharacterDevice };
                place.create_node(kind, member.mode, rustix::fs::makedev(*major, *minor))?;
            }
            Kind::Fifo => place.create_node(FileType::Fifo, member.mode, 0)?,
        }
        place.set_owner(Owner { uid: member.uid, gid: member.gid })?;
        if !matches!(member.kind, Kind::Symlink(_)) {
            place.set_mode(member.mode)?;
        }
        let time = Timespec { tv_sec: member.mtime.seconds, tv_nsec: i64::from(member.mtime.nanos) };
        place.set_times(&Timestamps { last_access: time, last_modification: time })?;
    }
    Ok(())
}

fn write_data(file: &mut std::fs::File, member: &Member, data: &mut dyn Read) -> io::Result<()> {
    use std::io::{Seek, SeekFrom};
    let Some(segments) = &member.segments else { return io::copy(data, file).map(drop) };
    for segment in segments {
        file.seek(SeekFrom::Start(segment.offset))?;
        io::copy(&mut data.take(segment.length), file)?;
    }
    file.set_len(member.size)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use testkit::Scratch;

    fn place(text: &str) -> Location {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_told_apart_as_docker_does() {
        assert_eq!(place("-"), Location::Stream);
        assert_eq!(place("web:/etc"), Location::Container("web".into(), "/etc".into()));
        assert_eq!(place("./web:x"), Location::Host("./web:x".into()));
        assert_eq!(place("/a:b"), Location::Host("/a:b".into()));
        assert!("web:".parse::<Location>().is_err());
    }

    #[test]
    fn where_a_copy_lands_follows_dockers_table() {
        let scratch = Scratch::new();
        for folder in ["s/d", "t/there"] {
            fs::create_dir_all(scratch.path(folder)).unwrap();
        }
        fs::write(scratch.path("s/f"), "file").unwrap();
        fs::write(scratch.path("s/d/in"), "in").unwrap();
        let (from, to) = (Root::open(&scratch.path("s")).unwrap(), Root::open(&scratch.path("t")).unwrap());
        let copy = |source: &str, target: &str| {
            copy(&from, Path::new(source), &to, Path::new(target), Keep::Everything, CopyOptions::default())
        };
        let there = |path: &str| scratch.path("t").join(path).exists();
        copy("f", "new").unwrap();
        assert!(there("new"));
        copy("f", "there").unwrap();
        assert!(there("there/f"));
        copy("d", "fresh").unwrap();
        assert!(there("fresh/in"));
        copy("d", "there").unwrap();
        assert!(there("there/d/in"));
        copy("d/.", "there").unwrap();
        assert!(there("there/in"));
        assert!(copy("f", "missing/").is_err());
        assert!(copy("d", "new").is_err());
        assert!(copy("f/", "x").is_err());
    }

    #[test]
    fn a_tar_comes_back_and_cannot_leave() {
        let scratch = Scratch::new();
        fs::create_dir_all(scratch.path("s/d")).unwrap();
        fs::create_dir_all(scratch.path("t")).unwrap();
        fs::write(scratch.path("s/d/f"), "text").unwrap();
        symlink("f", scratch.path("s/d/link")).unwrap();
        let (from, to) = (Root::open(&scratch.path("s")).unwrap(), Root::open(&scratch.path("t")).unwrap());
        let mut bytes = Vec::new();
        let sink: &mut (dyn Write + Send) = &mut bytes;
        let mut writer = Writer::new(sink);
        pack(&from, Path::new("d"), Path::new("d"), &mut writer).unwrap();
        writer.append(&Member::new("../../evil", Kind::Directory, 0o755)).unwrap();
        writer.finish().unwrap();
        unpack(&to, Path::new("/"), &mut bytes.as_slice()).unwrap();
        assert_eq!(fs::read(scratch.path("t/d/link")).unwrap(), b"text");
        assert!(!scratch.path("evil").exists());
        assert!(unpack(&to, Path::new("d/f"), &mut bytes.as_slice()).is_err());
    }
}
