//! The socket to which plugins connect.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_types::{Error, Result};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::admission::Gate;
use crate::nri::Entrance;

/// Plugins that may be on their way in at once.
const ADMISSIONS: usize = 64;
/// How long to rest when the process has run out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The socket, which is gone with this.
pub(crate) struct Door {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Door {
    /// Makes the socket, for root alone, in the place of one that a daemon before left behind. One at which somebody
    /// listens stays: it is another runtime's.
    pub(crate) async fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::io(format!("cannot listen on {}", path.display()), source);
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        }
        if is_taken(path).await {
            return Err(Error::already_exists(format!(
                "another runtime listens on {}: socket_path names another place, disable_connections does without",
                path.display()
            )));
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.map_err(failed)?,
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let inode = fs::symlink_metadata(path).map_err(failed)?.ino();
        Ok(Self { listener, path: path.to_owned(), inode })
    }

    /// Takes plugins in for ever.
    pub(crate) async fn serve(self, gate: Gate, entrance: Entrance) {
        let mut admissions = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = admissions.join_next() => {}
                accepted = self.listener.accept(), if admissions.len() < ADMISSIONS => match accepted {
                    Ok((socket, _)) => drop(admissions.spawn(admit(socket, gate.clone(), entrance.clone()))),
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                },
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // It may have gone, or be another runtime's by now.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether somebody listens there; one whose queue is full does.
async fn is_taken(path: &Path) -> bool {
    match UnixStream::connect(path).await {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

async fn admit(socket: UnixStream, gate: Gate, entrance: Entrance) {
    let process = socket.peer_cred().ok().and_then(|peer| peer.pid()).unwrap_or_default();
    match gate.admit(socket, None).await {
        Ok(plugin) => entrance.enter(plugin).await,
        Err(error) => tracing::warn!(process, "an NRI plugin was not let in: {}", error.reason()),
    }
}
