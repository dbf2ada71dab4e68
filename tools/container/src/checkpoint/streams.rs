//! Standard streams, whose other ends are outside: what they were when a container was saved, and what the restored
//! one gets in their place.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::error::{Doing as _, Error, Result};

/// Where they are noted beside the images; runc has the file under this name too.
const FILE: &str = "descriptors.json";
/// The file is a few words.
const LONGEST: u64 = 64 << 10;

/// What each of the three streams is, in the words by which CRIU knows it: `pipe:[N]`, `file[MOUNT:INODE]`, or anything
/// else for what it saves and restores itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Streams(Vec<String>);

impl Streams {
    /// Those of process `pid`.
    pub(super) fn of(pid: i32) -> Result<Self> {
        (0..3).map(|fd| one(pid, fd)).collect::<Result<_>>().map(Self)
    }

    /// Those that CRIU cannot save, because they lie in nobody's mounts: it is told to leave them out.
    pub(super) fn external(&self) -> impl Iterator<Item = String> {
        let mut files: Vec<_> = self.0.iter().filter(|name| name.starts_with("file[")).cloned().collect();
        files.sort();
        files.dedup();
        files.into_iter()
    }

    /// The name of each that the restored process gets from us, with its number.
    pub(super) fn given(&self) -> impl Iterator<Item = (usize, &str)> {
        let named = self.0.iter().map(String::as_str).enumerate();
        named.filter(|(_, name)| name.starts_with("file[") || name.starts_with("pipe:["))
    }

    /// Notes them in a folder.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let text = serde_json::to_vec(&self.0).unwrap_or_default();
        fs::write(&path, text).doing(|| format!("cannot write {}", path.display()))
    }

    /// Those that were noted.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let doing = || format!("cannot read {}", path.display());
        let about = fs::metadata(&path).doing(doing)?;
        if !about.is_file() || about.len() > LONGEST {
            return Err(Error::Config { what: format!("{} is no list of streams", path.display()) });
        }
        let text = fs::read(&path).doing(doing)?;
        serde_json::from_slice(&text).map(Self).map_err(|source| Error::Document { path, source })
    }
}

fn one(pid: i32, fd: i32) -> Result<String> {
    let path = format!("/proc/{pid}/fd/{fd}");
    let target = match fs::read_link(&path) {
        // A program may close its streams.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        done => done.doing(|| format!("cannot read {path}"))?,
    };
    let target = target.to_string_lossy().into_owned();
    if !target.starts_with('/') {
        return Ok(target);
    }
    let info = format!("/proc/{pid}/fdinfo/{fd}");
    let text = fs::read_to_string(&info).doing(|| format!("cannot read {info}"))?;
    let mount = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse::<u64>().ok());
    let Some(mount) = mount.filter(|mount| !has_mount(pid, *mount)) else { return Ok(target) };
    let inode = fs::metadata(&path).doing(|| format!("cannot look at {path}"))?.ino();
    Ok(format!("file[{mount:x}:{inode:x}]"))
}

/// Whether a mount is one of the process' own.
fn has_mount(pid: i32, mount: u64) -> bool {
    let mounts = berth_sys::mount::info::read(Path::new(&format!("/proc/{pid}/mountinfo")));
    mounts.is_ok_and(|mounts| mounts.iter().any(|one| one.id == mount))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_have_names_and_are_found_again() {
        let scratch = tempfile::tempdir().unwrap();
        let streams = Streams::of(std::process::id() as i32).unwrap();
        assert_eq!(streams.0.len(), 3);
        streams.write(scratch.path()).unwrap();
        assert_eq!(Streams::read(scratch.path()).unwrap(), streams);
        let streams = Streams(vec!["/dev/null".into(), "pipe:[7]".into(), "file[1a:2b]".into()]);
        assert_eq!(streams.given().collect::<Vec<_>>(), [(1, "pipe:[7]"), (2, "file[1a:2b]")]);
        assert_eq!(streams.external().collect::<Vec<_>>(), ["file[1a:2b]"]);
        fs::write(scratch.path().join(FILE), "{").unwrap();
        assert!(Streams::read(scratch.path()).is_err());
    }
}
