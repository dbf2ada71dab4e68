//! Namespaces that no process is in: each is held by a file on which it is mounted, as `ip netns` does it.
//!
//! They live until the file is unmounted, whatever becomes of whoever made them (namespaces(7)).

use std::fs::OpenOptions;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::move_into_link_name_space;

use crate::thread::after;
use crate::userns::{IdMapping, Sleeper};

/// What statfs(2) says of a file of a namespace.
const NSFS: i64 = 0x6e73_6673;

/// The kinds of namespaces that can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Network devices, addresses, ports.
    Network,
    /// User and group ids. Those that are made with it belong to it.
    User,
    /// Host and domain name.
    Uts,
}

impl Kind {
    /// The name that proc(5) has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipc => "ipc",
            Self::Network => "net",
            Self::User => "user",
            Self::Uts => "uts",
        }
    }

    fn flag(self) -> i32 {
        match self {
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Network => libc::CLONE_NEWNET,
            Self::User => libc::CLONE_NEWUSER,
            Self::Uts => libc::CLONE_NEWUTS,
        }
    }
}

/// The maps of a user namespace.
#[derive(Clone, Copy, Debug)]
pub struct Maps<'a> {
    /// Users.
    pub uids: &'a [IdMapping],
    /// Groups.
    pub gids: &'a [IdMapping],
}

/// Makes namespaces and holds each at a path, whose folder is there. `maps` are for a user namespace, if one is among
/// them. If one cannot be held, none is.
///
/// Blocking, for about a millisecond. Needs `CAP_SYS_ADMIN`.
pub fn hold(places: &[(Kind, &Path)], maps: Option<Maps<'_>>) -> io::Result<()> {
    let flags = places.iter().fold(0, |flags, (kind, _)| flags | kind.flag());
    let child = Sleeper::born(flags)?;
    if let Some(maps) = maps {
        child.map(maps.uids, maps.gids)?;
    }
    let mut held = Vec::new();
    for (kind, path) in places {
        let done = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o444)
            .open(path)
            .and_then(|_| Ok(mount_bind(child.namespace(kind.name()), *path)?));
        held.push(path);
        if let Err(error) = done {
            for path in held {
                // The first error is the one to tell.
                let _ = release(path);
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Whether a namespace is held at `path`.
pub fn is_held(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == NSFS)
}

/// Lets go of what is held at `path`, and removes the file; one that is gone is fine.
pub fn release(path: &Path) -> io::Result<()> {
    while is_held(path) {
        unmount(path, UnmountFlags::DETACH)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Runs `work` in namespaces that are open, none of them a user namespace.
///
/// Blocking; on a thread of its own. Needs `CAP_SYS_ADMIN`.
pub fn inside<T: Send>(
    namespaces: &[BorrowedFd<'_>],
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    after(
        || {
            for namespace in namespaces {
                move_into_link_name_space(*namespace, None)?;
            }
            Ok(())
        },
        work,
    )
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn namespaces_outlive_whoever_made_them_and_end_when_they_are_let_go() {
        if !crate::tests::root() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let (uts, ipc, user) =
            (scratch.path().join("uts"), scratch.path().join("ipc"), scratch.path().join("user"));
        let map = [IdMapping { inside: 0, outside: 100_000, length: 1000 }];
        let places = [(Kind::Uts, uts.as_path()), (Kind::Ipc, &ipc), (Kind::User, &user)];
        hold(&places, Some(Maps { uids: &map, gids: &map })).unwrap();
        for (kind, path) in places {
            assert!(is_held(path));
            let own = fs::metadata(format!("/proc/self/ns/{}", kind.name())).unwrap().ino();
            assert_ne!(fs::metadata(path).unwrap().ino(), own, "{kind:?}");
        }
        let (first, second) = (File::open(&uts).unwrap(), File::open(&ipc).unwrap());
        let name = inside(&[first.as_fd(), second.as_fd()], || {
            rustix::system::sethostname(b"held")?;
            fs::read_to_string("/proc/sys/kernel/hostname")
        });
        assert_eq!(name.unwrap(), "held\n");
        assert_ne!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), "held\n");
        for path in [&uts, &ipc, &user] {
            release(path).unwrap();
            assert!(!path.exists());
            release(path).unwrap();
        }
    }
}
