//! Takes an address: a unix socket with the right mode and owner, where no living daemon has one.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use berth_sys::local_socket::listen_at;
use rustix::fs::Mode;
use tokio::net::UnixListener;

/// For owner and group, as clients expect it.
const MODE: u32 = 0o660;
/// A folder made for a socket: whoever may use the socket may look into it.
const FOLDER_MODE: u32 = 0o770;
/// What fits into a socket address, less its final zero (unix(7)).
const LONGEST: usize = 107;

/// Whose a socket is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// A socket that listens and its file. [`Socket::remove`] takes the file away.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    file: SocketFile,
}

/// The file of a socket that this process made.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

/// Why an address could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// It has no absolute path or a longer one than the kernel takes.
    #[error("{} is no address for a unix socket: it has to be an absolute path of at most {LONGEST} bytes", .0.display())]
    Address(PathBuf),
    /// Somebody answers there.
    #[error("{} is in use: a daemon answers there; stop it, or give another --address", .0.display())]
    InUse(PathBuf),
    /// What is there is no socket.
    #[error("{} is there and is no socket; remove it, or give another --address", .0.display())]
    NoSocket(PathBuf),
    /// A step failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// The step.
        what: &'static str,
        /// What it was about.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Socket {
    /// Listens at `path`: makes its folder if there is none, removes the socket of a daemon that is no more.
    /// Called within a tokio runtime. The file is never open to others, whatever the umask was.
    pub fn bind(path: &Path, owner: Owner) -> Result<Self, SocketError> {
        if !path.is_absolute() || path.as_os_str().len() > LONGEST {
            return Err(SocketError::Address(path.to_owned()));
        }
        let failed = |what| move |source| SocketError::Io { what, path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            make_folder(folder, owner)?;
        }
        clear(path)?;
        let listener = listen_at(path, Mode::from_raw_mode(MODE)).map_err(failed("listen at"))?;
        listener.set_nonblocking(true).map_err(failed("listen at"))?;
        let listener = UnixListener::from_std(listener).map_err(failed("listen at"))?;
        chown(path, Some(owner.uid), Some(owner.gid)).map_err(failed("set the owner of"))?;
        // The umask may have taken away what the group needs.
        fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(failed("set the mode of"))?;
        let made = fs::symlink_metadata(path).map_err(failed("look at"))?;
        let file = SocketFile { path: path.to_owned(), inode: (made.dev(), made.ino()) };
        Ok(Self { listener, file })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    pub(crate) fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }

    /// Stops listening and removes the file.
    pub fn remove(self) {
        self.file.remove();
    }
}

impl SocketFile {
    /// Removes the file, unless another daemon has put its own there meanwhile.
    pub(crate) fn remove(self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

fn make_folder(folder: &Path, owner: Owner) -> Result<(), SocketError> {
    if folder.is_dir() {
        return Ok(());
    }
    let failed = |what| move |source| SocketError::Io { what, path: folder.to_owned(), source };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(folder)
        .map_err(failed("make the socket's folder"))?;
    chown(folder, Some(owner.uid), Some(owner.gid)).map_err(failed("set the owner of"))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(FOLDER_MODE)).map_err(failed("set the mode of"))
}

/// Removes the socket of a daemon that is no more.
fn clear(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NoSocket(path.to_owned())),
        // What cannot be looked at cannot be bound either, and that error says it better.
        Ok(_) | Err(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        // A queue that is full has a listener.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SocketError::InUse(path.to_owned())),
        Err(_) => fs::remove_file(path).map_err(|source| SocketError::Io {
            what: "remove the old socket",
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use testkit::Scratch;

    use super::*;

    fn owner() -> Owner {
        Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_socket_gets_its_mode_and_goes_with_its_daemon() {
        let scratch = Scratch::new();
        let path = scratch.path("new/folder/d.sock");
        let socket = Socket::bind(&path, owner()).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, MODE);
        assert_eq!(fs::symlink_metadata(path.parent().unwrap()).unwrap().mode() & 0o777, FOLDER_MODE);
        socket.remove();
        assert!(!path.exists());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_dead_daemons_socket_is_replaced_and_a_living_ones_is_not() {
        let scratch = Scratch::new();
        let path = scratch.path("d.sock");
        drop(Socket::bind(&path, owner()).unwrap());
        assert!(path.exists());
        let living = Socket::bind(&path, owner()).unwrap();
        assert!(matches!(Socket::bind(&path, owner()), Err(SocketError::InUse(_))));
        living.remove();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let scratch = Scratch::new();
        let path = scratch.file("d.sock", "precious");
        let error = Socket::bind(&path, owner()).unwrap_err();
        assert!(matches!(error, SocketError::NoSocket(_)), "{error}");
        assert_eq!(fs::read_to_string(path).unwrap(), "precious");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn another_daemons_new_socket_survives_our_end() {
        let scratch = Scratch::new();
        let path = scratch.path("d.sock");
        let first = Socket::bind(&path, owner()).unwrap();
        fs::remove_file(&path).unwrap();
        let second = Socket::bind(&path, owner()).unwrap();
        first.remove();
        assert!(path.exists());
        second.remove();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_address_that_cannot_be_one_is_named() {
        for bad in ["relative.sock".to_owned(), format!("/{}", "x".repeat(120))] {
            assert!(matches!(Socket::bind(Path::new(&bad), owner()), Err(SocketError::Address(_))));
        }
    }
}
