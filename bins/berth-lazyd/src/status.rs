//! How the layers do, for whoever asks: a socket beside the other one, on which each connection is given one JSON
//! document. `berth lazy status` is the caller.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use berth_lazy::Lazy;
use rustix::fs::Mode;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};

/// The socket's name, in the folder of the snapshotter's.
const NAME: &str = "status.sock";

/// The socket; it goes with its value.
pub(crate) struct Status {
    listener: UnixListener,
    path: PathBuf,
}

impl Status {
    /// Listens beside `address`, for root alone.
    pub(crate) fn listen(address: &Path) -> Result<Self> {
        let path = address.with_file_name(NAME);
        let listening = || -> io::Result<UnixListener> {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&path)?;
            rustix::fs::chmod(&path, Mode::from_raw_mode(0o600))?;
            Ok(listener)
        };
        let listener = listening().with_context(|| format!("cannot listen at {}", path.display()))?;
        Ok(Self { listener, path })
    }

    /// Answers whoever connects. Does not end.
    pub(crate) async fn answer(&self, lazy: &Arc<Lazy>) {
        loop {
            let Ok((asker, _)) = self.listener.accept().await else {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            if let Err(error) = tell(asker, lazy).await {
                tracing::debug!(%error, "whoever asked for the status did not take it");
            }
        }
    }
}

async fn tell(mut asker: UnixStream, lazy: &Arc<Lazy>) -> io::Result<()> {
    let lazy = Arc::clone(lazy);
    // It looks at every chunk of every layer.
    let document = tokio::task::spawn_blocking(move || serde_json::to_vec(&lazy.status()));
    let document = document.await.map_err(io::Error::other)??;
    let telling = asker.write_all(&document);
    tokio::time::timeout(std::time::Duration::from_secs(5), telling).await.map_err(io::Error::other)?
}

impl Drop for Status {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}
