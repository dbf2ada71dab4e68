//! `mkfs/`: a filesystem in a file, made the first time (`X-containerd.mkfs.size=`, `.fs=`, `.uuid=`).
//!
//! `mkfs.ext4` (or `ext2`, `ext3`, `xfs`) of the machine makes it, in a file beside that gets its name when it is whole:
//! a file that is there is a filesystem.

use std::path::Path;

use berth_sys::filesystem::{MakeError, NewFilesystem};
use berth_types::{Error, Mount, Result, parse_bytes};
use rustix::fs::FileType;

use crate::roots::{Roots, failed};
use crate::steps::{options_for, wrong};

const PREFIX: &str = "X-containerd.mkfs.";

/// Makes the filesystem in the mount's source, and takes the options away.
pub(crate) fn make(mount: Mount, roots: &Roots) -> Result<Mount> {
    let (own, mount) = options_for(mount, PREFIX);
    let wanted = wanted(&own)?;
    let path = Path::new(&mount.source);
    let failed = |error| failed("make a filesystem in", path, error);
    let (root, rest) = roots.find(path, "mkfs")?;
    let entry = root.entry(rest).map_err(failed)?;
    match entry.stat_if_present().map_err(failed)? {
        Some(there) if FileType::from_raw_mode(there.st_mode) == FileType::RegularFile => {}
        Some(_) => {
            let text = format!("{} is not a file that a filesystem could be in", path.display());
            return Err(Error::failed_precondition(text));
        }
        None => wanted.make(entry.parent(), entry.name()).map_err(|error| refused(path, error))?,
    }
    Ok(mount)
}

fn wanted(options: &[String]) -> Result<NewFilesystem> {
    let mut wanted = NewFilesystem { kind: "ext4".to_owned(), size: 0, uuid: None };
    for option in options {
        match option.split_once('=') {
            Some(("size", value)) => {
                wanted.size = parse_bytes(value).map_err(|error| error.context("bad option size"))?;
            }
            Some(("fs", value)) => value.clone_into(&mut wanted.kind),
            Some(("uuid", value)) => wanted.uuid = Some(value.to_owned()),
            _ => return Err(wrong(PREFIX, option, "size=, fs= and uuid= are known")),
        }
    }
    if wanted.size == 0 {
        return Err(Error::invalid_argument("mkfs requires mkfs.size option"));
    }
    Ok(wanted)
}

fn refused(path: &Path, error: MakeError) -> Error {
    let text = format!("cannot make a filesystem in {}", path.display());
    match error {
        MakeError::Io(_, source) => Error::io(text, source),
        MakeError::Kind(_) => Error::invalid_argument(text).caused_by(error),
        MakeError::Missing(_) => Error::failed_precondition(text).caused_by(error),
        MakeError::Failed { .. } => Error::unknown(text).caused_by(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn wanting(source: &Path, options: &[&str]) -> Mount {
        let options = options.iter().map(|option| format!("{PREFIX}{option}"));
        Mount {
            kind: "ext4".to_owned(),
            source: source.display().to_string(),
            options: options.chain(["loop".to_owned()]).collect(),
            ..Mount::default()
        }
    }

    #[test]
    fn a_filesystem_is_made_once() {
        let Ok(_) = testkit::need::program("mkfs.ext4") else { return };
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots::new(vec![folder.path().to_owned()]);
        let file = folder.path().join("rw.img");
        let options = ["size=8MiB", "fs=ext4", "uuid=0f1e2d3c-0000-4000-8000-000000000001"];
        let mount = make(wanting(&file, &options), &roots).unwrap();
        assert_eq!(mount.options, ["loop"]);
        let bytes = fs::read(&file).unwrap();
        assert_eq!(bytes.len(), 8 << 20);
        // The superblock's magic number and identifier.
        assert_eq!(bytes[1024 + 0x38..1024 + 0x3a], [0x53, 0xef]);
        assert_eq!(bytes[1024 + 0x68..1024 + 0x6c], [0x0f, 0x1e, 0x2d, 0x3c]);
        fs::write(&file, "somebody's").unwrap();
        make(wanting(&file, &options), &roots).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"somebody's");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_made_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots::new(vec![folder.path().to_owned()]);
        let file = folder.path().join("rw.img");
        for options in [
            &["fs=ext4"][..],
            &["size=0"],
            &["size=many"],
            &["size=8m", "fs=zfs"],
            &["size=8m", "label=x"],
            &["size=8m", "uuid=nonsense"],
            &["size=8m", "quick"],
        ] {
            make(wanting(&file, options), &roots).unwrap_err();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{options:?}");
        }
        make(wanting(Path::new("/tmp/elsewhere.img"), &["size=8m"]), &roots).unwrap_err();
        make(wanting(folder.path(), &["size=8m"]), &roots).unwrap_err();
    }
}
