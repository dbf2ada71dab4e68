//! `delete`: the daemon has lost a shim, and what it left is cleared away.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use berth_proto as proto;
use berth_proto::convert::timestamp;
use prost::Message as _;
use proto::containerd::task::v3::DeleteResponse;

use crate::arguments::Arguments;
use crate::children::Children;
use crate::options;
use crate::runtime::{self, Place, Running};
use crate::start::RUNTIME;

/// 128 + SIGKILL: nobody knows how it really ended.
const KILLED: u32 = 137;

/// Kills what runs, unmounts, and prints how the task is to be taken as ended.
///
/// What cannot be undone is told on standard error and does not make it fail: the daemon would keep the bundle for
/// ever.
pub(crate) fn delete(arguments: &Arguments) -> Result<()> {
    if arguments.namespace.is_empty() || arguments.id.is_empty() {
        bail!("delete needs -namespace and -id");
    }
    let bundle = bundle(arguments)?;
    let options = options::read(&bundle)?;
    let place =
        Place { namespace: &arguments.namespace, bundle: &bundle, sockets: std::path::Path::new("/run") };
    let runtime = runtime::choose(&options, &place, &Children::reaped_by_caller())?;
    if let Err(error) = runtime.delete(&arguments.id, Running::Kill) {
        eprintln!("{RUNTIME}: failed to remove container {}: {}", arguments.id, error.chain());
    }
    if let Err(error) = berth_sys::mount::unmount_all(&bundle.join("rootfs")) {
        eprintln!("{RUNTIME}: failed to clean up the rootfs mount: {error}");
    }
    let pid = std::fs::read_to_string(bundle.join("init.pid")).ok().and_then(|text| text.trim().parse().ok());
    remove_socket(&bundle);
    let response = DeleteResponse {
        pid: pid.unwrap_or(0),
        exit_status: KILLED,
        exited_at: timestamp(SystemTime::now()),
    };
    std::io::stdout().write_all(&response.encode_to_vec()).context("cannot answer")
}

/// The working directory is the bundle of the container, or of another one of its group.
fn bundle(arguments: &Arguments) -> Result<PathBuf> {
    let here = std::env::current_dir().context("no working directory")?;
    let sibling = here.parent().map(|parent| parent.join(&arguments.id)).filter(|path| path.is_dir());
    Ok(sibling.or_else(|| arguments.bundle.clone()).unwrap_or(here))
}

/// A killed shim's socket file stays; a living one, of the same group, answers on it and keeps it.
fn remove_socket(bundle: &std::path::Path) {
    let Ok(address) = std::fs::read_to_string(bundle.join("address")) else { return };
    let Some(path) = address.trim().strip_prefix("unix://") else { return };
    if std::os::unix::net::UnixStream::connect(path).is_err() {
        // Gone already is as good.
        let _ = std::fs::remove_file(path);
    }
}
