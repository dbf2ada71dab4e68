//! Network namespaces that are held by a file, as `ip netns` holds them.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use berth_sys::held::{self, is_held};
use berth_sys::thread;
use berth_types::{Error, Result};
use rustix::mount::mount_bind;

use crate::netlink::Socket;

/// A network namespace, open, with a socket into it.
pub(crate) struct Namespace {
    pub(crate) file: File,
    pub(crate) inside: Socket,
}

impl Namespace {
    /// Makes one and holds it at `path`. The kernel keeps it for as long as the file is mounted, whoever dies.
    pub(crate) fn make(path: &Path) -> Result<Self> {
        let wrong = |error| Error::io(format!("cannot make the network namespace {}", path.display()), error);
        let make = || -> io::Result<Self> {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
            let inside = thread::in_new_network(|| {
                mount_bind("/proc/thread-self/ns/net", path)?;
                loopback()
            })?;
            Ok(Self { file: File::open(path)?, inside })
        };
        make().map_err(wrong)
    }

    /// Opens the one that `path` holds; none if it holds none, as after a start of the machine.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        if !is_held(path) {
            return Ok(None);
        }
        let open = || -> io::Result<Self> {
            let file = File::open(path)?;
            let inside = thread::in_network(file.as_fd(), Socket::route)?;
            Ok(Self { file, inside })
        };
        open().map(Some).map_err(|error| {
            Error::io(format!("cannot enter the network namespace {}", path.display()), error)
        })
    }

    /// Writes kernel parameters of this namespace.
    pub(crate) fn set(&self, parameters: &[(PathBuf, &str)]) -> io::Result<()> {
        thread::in_network(self.file.as_fd(), || {
            parameters.iter().try_for_each(|(name, value)| fs::write(name, value))
        })
    }
}

/// Lets go of a namespace; one that is gone is fine.
pub(crate) fn release(path: &Path) -> Result<()> {
    held::release(path).map_err(|error| Error::io(format!("cannot let go of {}", path.display()), error))
}

/// Sets up the loopback device of the namespace that `path` holds, as CNI's loopback plugin does.
pub fn set_loopback_up(path: &Path) -> Result<()> {
    let wrong = |error| Error::io(format!("cannot set up lo in {}", path.display()), error);
    let file = File::open(path).map_err(wrong)?;
    thread::in_network(file.as_fd(), loopback).map(drop).map_err(wrong)
}

/// What the loopback plugin does: sets the device up. The kernel gives it its addresses.
fn loopback() -> io::Result<Socket> {
    let mut socket = Socket::route()?;
    socket.set_up(1)?;
    Ok(socket)
}
