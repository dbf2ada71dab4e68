//! `mkdir/`: folders that a mount needs, `X-containerd.mkdir.path=PATH[:MODE[:UID:GID]]`.
//!
//! The mode is octal and 0700 if it is not given, the owner whoever the daemon runs as. A folder that is there gets both.
//! (containerd 2.3 refuses an owner, and a mode other than the one that a folder has.)

use std::path::Path;

use berth_sys::beneath::Owner;
use berth_types::{Mount, Result};
use rustix::fs::{FileType, OFlags};

use crate::roots::{Roots, failed};
use crate::steps::{options_for, wrong};

const PREFIX: &str = "X-containerd.mkdir.";
const MODE: u32 = 0o700;

/// A folder that is wanted.
#[derive(Debug, PartialEq, Eq)]
struct Wanted<'o> {
    path: &'o Path,
    mode: u32,
    owner: Option<Owner>,
}

/// Makes the folders, and takes the options away.
pub(crate) fn make(mount: Mount, roots: &Roots) -> Result<Mount> {
    let (own, mount) = options_for(mount, PREFIX);
    for option in &own {
        folder(&Wanted::parse(option)?, roots)?;
    }
    Ok(mount)
}

impl<'o> Wanted<'o> {
    fn parse(option: &'o str) -> Result<Self> {
        let wrong = |why: &str| wrong(PREFIX, option, why);
        let value = option.strip_prefix("path=").ok_or_else(|| wrong("only path=PATH is known"))?;
        let parts: Vec<&str> = value.splitn(4, ':').collect();
        let number = |text: &str| text.parse::<u32>().map_err(|_| wrong("an owner is two numbers"));
        let (path, mode, owner) = match parts[..] {
            [path] => (path, None, None),
            [path, mode] => (path, Some(mode), None),
            [path, mode, uid, gid] => {
                (path, Some(mode), Some(Owner { uid: number(uid)?, gid: number(gid)? }))
            }
            _ => return Err(wrong("it is PATH, PATH:MODE or PATH:MODE:UID:GID")),
        };
        let mode = match mode {
            None => MODE,
            Some(text) => u32::from_str_radix(text, 8)
                .ok()
                .filter(|mode| *mode <= 0o777)
                .ok_or_else(|| wrong("the mode is octal, up to 777"))?,
        };
        Ok(Self { path: Path::new(path), mode, owner })
    }
}

fn folder(wanted: &Wanted<'_>, roots: &Roots) -> Result<()> {
    let failed = |error| failed("make the folder", wanted.path, error);
    let (root, rest) = roots.find(wanted.path, "mkdir")?;
    let entry = root.entry(rest).map_err(failed)?;
    if entry.stat_if_present().map_err(failed)?.is_none() {
        entry.create_dir().map_err(failed)?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = entry.open(flags).map_err(failed)?;
    let stat = rustix::fs::fstat(&dir).map_err(|error| failed(error.into()))?;
    debug_assert_eq!(FileType::from_raw_mode(stat.st_mode), FileType::Directory);
    if let Some(owner) = wanted.owner {
        entry.set_owner(owner).map_err(failed)?;
    }
    if stat.st_mode & 0o7777 != wanted.mode {
        entry.set_mode(wanted.mode).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn wanting(paths: &[String]) -> Mount {
        let mut options: Vec<String> = paths.iter().map(|path| format!("{PREFIX}path={path}")).collect();
        options.push("ro".to_owned());
        Mount { kind: "overlay".to_owned(), options, ..Mount::default() }
    }

    #[test]
    fn folders_are_made_and_the_options_go() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let roots = Roots::new(vec![folder.path().to_owned()]);
        let paths = [at("a"), format!("{}:0755", at("a/b"))];
        for _ in 0..2 {
            let mount = make(wanting(&paths), &roots).unwrap();
            assert_eq!(mount.options, ["ro"]);
        }
        let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().mode() & 0o7777;
        assert_eq!((mode("a"), mode("a/b")), (0o700, 0o755));
        fs::set_permissions(folder.path().join("a"), fs::Permissions::from_mode(0o777)).unwrap();
        make(wanting(&[at("a")]), &roots).unwrap();
        assert_eq!(mode("a"), 0o700);
    }

    #[test]
    fn an_owner_is_given() {
        let Ok(()) = testkit::need::root() else { return };
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots::new(vec![folder.path().to_owned()]);
        let path = folder.path().join("a");
        make(wanting(&[format!("{}:0711:33:44", path.display())]), &roots).unwrap();
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (33, 44, 0o711));
    }

    #[test]
    fn nothing_is_made_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        symlink(other.path(), folder.path().join("link")).unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let roots = Roots::new(vec![folder.path().to_owned()]);
        let inside = folder.path().display();
        for path in [
            format!("{}/a", other.path().display()),
            format!("{inside}/link/a"),
            format!("{inside}/link"),
            format!("{inside}/file"),
            format!("{inside}/../a"),
            format!("{inside}/missing/a"),
            format!("{inside}/a:0999"),
            format!("{inside}/a:07777"),
            format!("{inside}/a:0755:1"),
            format!("{inside}/a:0755:x:y"),
        ] {
            make(wanting(std::slice::from_ref(&path)), &roots).unwrap_err();
        }
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
        let unknown = Mount { options: vec![format!("{PREFIX}mode=1")], ..Mount::default() };
        make(unknown, &roots).unwrap_err();
    }
}
