//! The process that keeps mounts: this program again, started by the first server and found by the next ones.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use berth_lazy::Keeper;

/// Connects to the keeper, and starts one where none is. None if there cannot be one: then mounts end with this process.
pub(crate) fn connected(path: &Path) -> Option<Keeper> {
    if !berth_lazy::can_outlive() {
        tracing::warn!("mounts will not outlive this process: that needs Linux 6.9");
        return None;
    }
    if let Ok(keeper) = Keeper::connect(path) {
        return Some(keeper);
    }
    match start(path) {
        Ok(keeper) => Some(keeper),
        Err(error) => {
            tracing::warn!(%error, "mounts will not outlive this process: there is no keeper");
            None
        }
    }
}

fn start(path: &Path) -> io::Result<Keeper> {
    let listener = berth_lazy::listen_at(path)?;
    // A group of its own, so that what ends this process by the terminal does not end it too.
    Command::new(std::env::current_exe()?)
        .arg("keep")
        .arg(path)
        .stdin(listener)
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()?;
    Keeper::connect(path)
}
