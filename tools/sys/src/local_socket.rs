//! Unix sockets in folders whose path is longer than a socket's address may be (107 bytes).
//!
//! The address names the open folder through `/proc/self/fd`, so the folder's own length does not count.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

/// Makes a socket named `name` in `folder` and listens on it. Only the owner may connect (mode 0600).
///
/// A file of that name is an error (`AddrInUse`); whoever knows it to be stale removes it first.
pub fn listen(folder: &Path, name: &str) -> io::Result<UnixListener> {
    let (open, address) = address(folder, name)?;
    let listener = UnixListener::bind(address)?;
    rustix::fs::chmodat(&open, name, Mode::RUSR | Mode::WUSR, rustix::fs::AtFlags::empty())?;
    Ok(listener)
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
