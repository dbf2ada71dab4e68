//! `/proc/PID/mountinfo`, parsed (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// One mounted filesystem as a process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// The mount's id, unique while it is mounted.
    pub id: u64,
    /// The id of the mount it sits on.
    pub parent: u64,
    /// `major:minor` of the filesystem's device.
    pub device: (u32, u32),
    /// The folder of the filesystem that forms the mount's root.
    pub root: PathBuf,
    /// Where it is mounted, relative to the process' root.
    pub point: PathBuf,
    /// Options of the mount, such as `rw,nosuid`.
    pub options: String,
    /// Tags such as `shared:2` and `master:1`.
    pub tags: Vec<String>,
    /// The filesystem's type.
    pub kind: String,
    /// What is mounted, as the filesystem tells it.
    pub source: OsString,
    /// Options of the filesystem.
    pub super_options: String,
}

impl MountInfo {
    /// Parses one line; `None` when it does not have the documented shape.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|b| *b == b' ');
        let id = number(fields.next()?)?;
        let parent = number(fields.next()?)?;
        let device = text(fields.next()?);
        let (major, minor) = device.split_once(':')?;
        let device = (major.parse().ok()?, minor.parse().ok()?);
        let root = path(fields.next()?);
        let point = path(fields.next()?);
        let options = text(fields.next()?);
        let tags = fields.by_ref().take_while(|f| *f != b"-").map(text).collect();
        let kind = text(fields.next()?);
        let source = OsString::from_vec(unescape(fields.next()?));
        let super_options = text(fields.next().unwrap_or_default());
        Some(Self { id, parent, device, root, point, options, tags, kind, source, super_options })
    }

    /// Whether it takes on what another mount gets, without giving its own.
    pub fn is_slave(&self) -> bool {
        self.tags.iter().any(|tag| tag.starts_with("master:"))
    }

    /// The peer group this mount shares with, when its propagation is shared.
    pub fn is_shared(&self) -> bool {
        self.tags.iter().any(|tag| tag.starts_with("shared:"))
    }
}

/// The mount that a path lies on, without links in it: the last one made at the deepest folder above it.
pub fn of(path: &Path) -> io::Result<MountInfo> {
    let above = own()?.into_iter().filter(|mount| path.starts_with(&mount.point));
    above
        .max_by_key(|mount| mount.point.components().count())
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// Every mount the calling process sees, in the kernel's order (parents before children).
pub fn own() -> io::Result<Vec<MountInfo>> {
    read(Path::new("/proc/self/mountinfo"))
}

/// Every mount in a mountinfo file; lines of an unknown shape are left out.
pub fn read(file: &Path) -> io::Result<Vec<MountInfo>> {
    Ok(fs::read(file)?.split(|b| *b == b'\n').filter_map(MountInfo::parse).collect())
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

/// Undoes the kernel's `\ooo` for space, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'\\'
            && let [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] = rest
        {
            out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = tail;
        } else {
            out.push(*first);
        }
    }
    out
}
