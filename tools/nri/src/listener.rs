//! The socket to which plugins connect.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
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

/// Makes the socket, for root alone, in the place of one that a daemon before left behind.
pub(crate) fn bind(path: &Path) -> Result<UnixListener> {
    let failed = |source| Error::io(format!("cannot listen for NRI plugins on {}", path.display()), source);
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        removed => removed.map_err(failed)?,
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Takes plugins in for ever.
pub(crate) async fn serve(listener: UnixListener, gate: Gate, entrance: Entrance) {
    let mut admissions = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = admissions.join_next() => {}
            accepted = listener.accept(), if admissions.len() < ADMISSIONS => match accepted {
                Ok((socket, _)) => drop(admissions.spawn(admit(socket, gate.clone(), entrance.clone()))),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
        }
    }
}

async fn admit(socket: UnixStream, gate: Gate, entrance: Entrance) {
    let process = socket.peer_cred().ok().and_then(|peer| peer.pid()).unwrap_or_default();
    match gate.admit(socket, None).await {
        Ok(plugin) => entrance.enter(plugin).await,
        Err(error) => tracing::warn!(process, "an NRI plugin was not let in: {}", error.reason()),
    }
}
