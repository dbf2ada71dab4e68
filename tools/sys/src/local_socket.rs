//! Unix sockets that nobody else can reach for a moment, also in folders whose path is longer than a
//! socket's address may be (107 bytes).
//!
//! For a long path the address names the open folder through `/proc/self/fd`, so the folder's own length
//! does not count.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Connections that wait to be accepted, at most: the kernel lowers it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Makes a socket named `name` in `folder` and listens on it. Only the owner may connect (mode 0600).
///
/// A file of that name is an error (`AddrInUse`); whoever knows it to be stale removes it first.
pub fn listen(folder: &Path, name: &str) -> io::Result<UnixListener> {
    let (_open, address) = address(folder, name)?;
    listen_at(&address, Mode::RUSR | Mode::WUSR)
}

/// Makes a socket at `path` and listens on it. Its file has `mode` from the start, less what the umask
/// takes away.
pub fn listen_at(path: &Path, mode: Mode) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The mode of the unbound socket is what bind gives to the file (unix_bind_bsd in the kernel).
    rustix::fs::fchmod(&socket, mode)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// Connects to the socket named `name` in `folder`.
pub fn connect(folder: &Path, name: &str) -> io::Result<UnixStream> {
    let (_open, address) = address(folder, name)?;
    UnixStream::connect(address)
}

fn address(folder: &Path, name: &str) -> io::Result<(OwnedFd, PathBuf)> {
    let open = openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let address = PathBuf::from(format!("/proc/self/fd/{}/{name}", open.as_raw_fd()));
    Ok((open, address))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_of_any_length_takes_a_socket() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("x".repeat(120)).join("y".repeat(120));
        std::fs::create_dir_all(&folder).unwrap();
        let listener = listen(&folder, "s").unwrap();
        connect(&folder, "s").unwrap().write_all(b"hello").unwrap();
        let mut heard = String::new();
        listener.accept().unwrap().0.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "hello");
        assert_eq!(folder.join("s").metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(listen(&folder, "s").unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
