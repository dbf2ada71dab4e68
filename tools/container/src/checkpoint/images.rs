//! The files of a checkpoint, as far as they are read here (criu.org/Images).
//!
//! A file is one or two magic numbers and then messages, each behind its length. CRIU reads from a folder of links within
//! the one that is given, in which the files that were looked at are copies, so that what was checked is what is used,
//! and what was given stays as it was. (Links with names would be looked up in the container's root: CRIU still reads
//! when it has changed to that.)

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};

use prost::Message;

use crate::error::{Doing as _, Error, Result};

/// First number of every image since CRIU 1.6; the second one says what it is of.
const COMMON: u32 = 0x5456_4319;
/// How the names of our folders begin.
const OWN: &str = ".berth-";
/// What is looked at is far smaller; pages and tars are not looked at.
const LONGEST: u64 = 16 << 20;

/// A file with its numbers.
struct Image<M> {
    head: Vec<u8>,
    messages: Vec<M>,
}

/// `mnt_entry`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SavedMount {
    #[prost(uint32, required, tag = "1")]
    pub kind: u32,
    #[prost(string, required, tag = "7")]
    pub point: String,
    #[prost(bool, optional, tag = "13")]
    pub external: Option<bool>,
    #[prost(string, optional, tag = "18")]
    pub key: Option<String>,
}

/// `seccomp_entry`.
#[derive(Clone, PartialEq, Message)]
struct SavedFilters {
    #[prost(message, repeated, tag = "1")]
    filters: Vec<SavedFilter>,
}

/// `seccomp_filter`: a program, and the one that was there before it.
#[derive(Clone, PartialEq, Message)]
struct SavedFilter {
    #[prost(bytes = "vec", required, tag = "1")]
    program: Vec<u8>,
    #[prost(uint32, optional, tag = "2")]
    previous: Option<u32>,
    #[prost(uint32, optional, tag = "3")]
    flags: Option<u32>,
}

/// A folder that CRIU can restore from. Removed when dropped.
#[derive(Debug)]
pub(super) struct Images(PathBuf);

impl Images {
    /// Makes one for container `id` within the checkpoint at `from`.
    pub(super) fn gather(from: &Path, id: &str) -> Result<Self> {
        let doing = || format!("cannot read the checkpoint {}", from.display());
        let from = std::path::absolute(from).doing(doing)?;
        let folder = from.join(format!("{OWN}{id}"));
        // What somebody left who was killed on the way.
        let _ = fs::remove_dir_all(&folder);
        let made = fs::DirBuilder::new().mode(0o700).create(&folder);
        made.doing(|| format!("cannot make {}, which a restore needs", folder.display()))?;
        let images = Self(folder);
        let mut complete = false;
        for entry in fs::read_dir(&from).doing(doing)? {
            let entry = entry.doing(doing)?;
            let (name, to) = (entry.file_name(), images.0.join(entry.file_name()));
            let text = name.to_string_lossy();
            if text.starts_with(OWN) || entry.file_type().doing(doing)?.is_dir() {
                continue;
            }
            complete |= text == "inventory.img";
            let linked = if is_looked_at(&text) { copy(&entry.path(), &to) } else { link(&entry, &to) };
            linked.doing(|| format!("cannot take over {}", entry.path().display()))?;
        }
        if complete { Ok(images) } else { Err(not_one(&from, "it has no inventory.img")) }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    /// The mounts that it has, of all its mount namespaces.
    pub(super) fn mounts(&self) -> Result<Vec<SavedMount>> {
        let mut mounts = Vec::new();
        for entry in fs::read_dir(&self.0).doing(|| format!("cannot read {}", self.0.display()))? {
            let path = entry.doing(|| format!("cannot read {}", self.0.display()))?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("mountpoints-")) {
                mounts.extend(Image::<SavedMount>::read(&path)?.messages);
            }
        }
        Ok(mounts)
    }

    /// Puts `program` in the place of every filter that has none before it: of the one that the container was made
    /// with. True when there is such a filter.
    pub(super) fn set_first_filter(&self, program: &[u8], flags: u32) -> Result<bool> {
        let path = self.0.join("seccomp.img");
        if !path.exists() {
            return Ok(false);
        }
        let mut image = Image::<SavedFilters>::read(&path)?;
        let filters = image.messages.iter_mut().flat_map(|saved| &mut saved.filters);
        let mut any = false;
        for first in filters.filter(|filter| filter.previous.is_none()) {
            program.clone_into(&mut first.program);
            first.flags = Some(flags);
            any = true;
        }
        image.write(&path).doing(|| format!("cannot write {}", path.display()))?;
        Ok(any)
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        // The next restore of this container tries again.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether its content decides about something here.
fn is_looked_at(name: &str) -> bool {
    name == "seccomp.img" || name.starts_with("mountpoints-")
}

/// The same file under another name; a link to an earlier checkpoint goes one folder further up.
fn link(entry: &fs::DirEntry, to: &Path) -> io::Result<()> {
    if entry.file_type()?.is_symlink() {
        return symlink(Path::new("..").join(fs::read_link(entry.path())?), to);
    }
    fs::hard_link(entry.path(), to)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let about = fs::metadata(from)?;
    if !about.is_file() || about.len() > LONGEST {
        return Err(io::Error::other(format!("it is no file of at most {LONGEST} bytes")));
    }
    fs::copy(from, to).map(drop)
}

fn not_one(path: &Path, why: &str) -> Error {
    Error::Config { what: format!("{} is no checkpoint: {why}", path.display()) }
}

impl<M: Message + Default> Image<M> {
    fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).doing(|| format!("cannot read {}", path.display()))?;
        Self::parse(&bytes).ok_or_else(|| not_one(path, "its messages are not whole"))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let head = if number(0)? == COMMON { 8 } else { 4 };
        let mut image = Self { head: bytes.get(..head)?.to_vec(), messages: Vec::new() };
        let mut at = head;
        while at < bytes.len() {
            let end = (at + 4).checked_add(number(at)? as usize)?;
            image.messages.push(M::decode(bytes.get(at + 4..end)?).ok()?);
            at = end;
        }
        Some(image)
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut bytes = self.head.clone();
        for message in &self.messages {
            let encoded = message.encode_to_vec();
            bytes.extend((encoded.len() as u32).to_le_bytes());
            bytes.extend(encoded);
        }
        fs::write(path, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(byte: u8, previous: Option<u32>) -> SavedFilter {
        SavedFilter { program: vec![byte; 8], previous, flags: None }
    }

    fn checkpoint(folder: &Path) -> PathBuf {
        let from = folder.join("from");
        fs::create_dir(&from).unwrap();
        let head = [COMMON.to_le_bytes(), 7u32.to_le_bytes()].concat();
        let filters = SavedFilters { filters: vec![filter(1, None), filter(2, Some(0)), filter(3, None)] };
        Image { head: head.clone(), messages: vec![filters] }.write(&from.join("seccomp.img")).unwrap();
        let mount = |point: &str| SavedMount { kind: 5, point: point.into(), ..SavedMount::default() };
        Image { head, messages: vec![mount("/"), mount("/tmp")] }
            .write(&from.join("mountpoints-9.img"))
            .unwrap();
        fs::write(from.join("inventory.img"), b"").unwrap();
        fs::write(from.join("pages-1.img"), b"pages").unwrap();
        from
    }

    #[test]
    fn first_filters_are_replaced_in_a_copy_and_later_ones_are_kept() {
        let scratch = tempfile::tempdir().unwrap();
        let from = checkpoint(scratch.path());
        let before = fs::read(from.join("seccomp.img")).unwrap();
        symlink("../first", from.join("parent")).unwrap();
        let images = Images::gather(&from, "c").unwrap();
        assert!(images.set_first_filter(b"new", 4).unwrap());
        let image = Image::<SavedFilters>::read(&images.folder().join("seccomp.img")).unwrap();
        let programs: Vec<_> =
            image.messages[0].filters.iter().map(|f| (f.program.clone(), f.flags)).collect();
        let new = (b"new".to_vec(), Some(4));
        assert_eq!(programs, [new.clone(), (vec![2; 8], None), new]);
        assert_eq!(fs::read(from.join("seccomp.img")).unwrap(), before);
        assert_eq!(fs::read(images.folder().join("pages-1.img")).unwrap(), b"pages");
        assert_eq!(fs::read_link(images.folder().join("parent")).unwrap(), Path::new("../../first"));
        let points: Vec<_> = images.mounts().unwrap().into_iter().map(|mount| mount.point).collect();
        assert_eq!(points, ["/", "/tmp"]);
        let again = Images::gather(&from, "d").unwrap();
        assert!(again.mounts().is_ok() && !again.folder().join(".berth-c").exists());
        drop((images, again));
        assert_eq!(fs::read_dir(&from).unwrap().count(), 5);
    }

    #[test]
    fn broken_files_are_errors() {
        let scratch = tempfile::tempdir().unwrap();
        let from = checkpoint(scratch.path());
        let path = from.join("mountpoints-9.img");
        let whole = fs::read(&path).unwrap();
        for length in [0, 3, 9, 12, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            let images = Images::gather(&from, "c").unwrap();
            assert!(images.mounts().is_err(), "{length}");
        }
        let huge = [&whole[..8], &u32::MAX.to_le_bytes()[..]].concat();
        fs::write(&path, huge).unwrap();
        assert!(Images::gather(&from, "c").unwrap().mounts().is_err());
        fs::remove_file(from.join("inventory.img")).unwrap();
        let error = Images::gather(&from, "c").unwrap_err().chain();
        assert!(error.contains("inventory.img"), "{error}");
    }
}
