//! What the engine is told by whoever composes the daemon.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_core::{Containers, ContentStore, Mounts, Namespaces, Scope, Snapshotter};
use berth_sys::limits::OpenFiles;
use berth_types::{Result, SnapshotterName};

use crate::Exchange;

/// The folder of this engine below a daemon's root and below its state: containerd's.
pub const FOLDER: &str = "io.containerd.runtime.v2.task";

/// The folder of bundles that are a pod's, not a container's: containerd's.
pub(crate) const SANDBOXES: &str = "io.containerd.sandbox.controller.v1.shim";

const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The longest folder for sockets whose names are 64 hexadecimal digits (`sun_path` has 108 bytes).
const SOCKET_FOLDER_MAX: usize = 42;

/// Folders, addresses and limits.
#[derive(Clone, Debug)]
pub struct Config {
    /// The daemon's root folder; work folders of tasks are in [`FOLDER`] below it.
    pub root: PathBuf,
    /// The daemon's state folder; bundles are in [`FOLDER`] below it.
    pub state: PathBuf,
    /// Where the daemon serves gRPC, as shims are told: a path.
    pub address: PathBuf,
    /// Where the daemon takes events by ttrpc, as shims are told: a path.
    pub ttrpc_address: PathBuf,
    /// The shim of `io.containerd.runc.v2` unless [`Config::runtimes`] says otherwise.
    pub own_shim: PathBuf,
    /// The program whose `publish` command older shims call to tell an event: the daemon's own.
    pub publish_binary: PathBuf,
    /// Runtimes whose shim is not found by the rule of names.
    pub runtimes: BTreeMap<String, PathBuf>,
    /// Where shims are looked for, as `PATH` has it.
    pub search_path: OsString,
    /// Where shims that ask put their sockets; made with mode 0700.
    pub socket_folder: PathBuf,
    /// The shims' environment: the daemon's own, and what its configuration adds. What the protocol asks
    /// for is put in by the engine.
    pub shim_environment: Vec<(OsString, OsString)>,
    /// How many files shims, and with them containers, may have open; without it as many as the daemon.
    pub open_files: Option<OpenFiles>,
    /// How much shims are to log.
    pub shim_log: ShimLog,
    /// How long anything outside the daemon may take.
    pub timeouts: Timeouts,
    /// How often the restart monitor looks.
    pub restart_interval: Duration,
}

impl Config {
    /// The defaults for a daemon with these folders and addresses.
    pub fn new(root: &Path, state: &Path, address: &Path, ttrpc_address: &Path, own_shim: &Path) -> Self {
        Self {
            root: root.to_owned(),
            state: state.to_owned(),
            address: address.to_owned(),
            ttrpc_address: ttrpc_address.to_owned(),
            own_shim: own_shim.to_owned(),
            publish_binary: own_shim.with_file_name("berthd"),
            runtimes: BTreeMap::new(),
            search_path: OsString::from(SEARCH_PATH),
            socket_folder: socket_folder(state),
            shim_environment: vec![("PATH".into(), SEARCH_PATH.into())],
            open_files: None,
            shim_log: ShimLog::Info,
            timeouts: Timeouts::default(),
            restart_interval: Duration::from_secs(10),
        }
    }

    /// Where bundles are.
    pub(crate) fn bundles(&self, of: Of) -> PathBuf {
        self.state.join(of.folder())
    }

    /// Where their work folders are.
    pub(crate) fn works(&self, of: Of) -> PathBuf {
        self.root.join(of.folder())
    }
}

/// `STATE/s`, or containerd's own folder when that path would be too long for a socket's.
fn socket_folder(state: &Path) -> PathBuf {
    let near = state.join("s");
    if near.as_os_str().len() <= SOCKET_FOLDER_MAX { near } else { PathBuf::from("/run/containerd/s") }
}

/// What a bundle is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Task,
    Sandbox,
}

impl Of {
    fn folder(self) -> &'static str {
        match self {
            Self::Task => FOLDER,
            Self::Sandbox => SANDBOXES,
        }
    }
}

/// How much a shim logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShimLog {
    /// What a person should know.
    #[default]
    Info,
    /// All of it: the shim gets `-debug`.
    Debug,
}

/// How long anything outside the daemon may take. Only waiting for a process's end has no limit.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// A shim's `start` command, until it has said its address.
    pub start: Duration,
    /// `io.containerd.timeout.shim.load`: the first answer of a shim found at the daemon's start.
    pub load: Duration,
    /// `io.containerd.timeout.shim.cleanup`: a shim's `delete` command, and undoing a failed start.
    pub cleanup: Duration,
    /// `io.containerd.timeout.shim.shutdown`: a shim that is told to end.
    pub shutdown: Duration,
    /// `io.containerd.timeout.task.state`: a question about a process.
    pub state: Duration,
    /// Making and starting a process; other people's runtimes boot a machine for that.
    pub create: Duration,
    /// Every other call to a shim.
    pub call: Duration,
    /// A checkpoint, and going on from one.
    pub checkpoint: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            start: Duration::from_mins(1),
            load: Duration::from_secs(5),
            cleanup: Duration::from_secs(5),
            shutdown: Duration::from_secs(3),
            state: Duration::from_secs(2),
            create: Duration::from_mins(3),
            call: Duration::from_mins(1),
            checkpoint: Duration::from_mins(15),
        }
    }
}

/// A store as one namespace sees it.
pub type Scoped<T> = Box<dyn Fn(&Scope) -> Arc<T> + Send + Sync>;

/// A snapshotter as one namespace sees it.
pub type ScopedSnapshotter =
    Box<dyn Fn(&SnapshotterName, &Scope) -> Result<Arc<dyn Snapshotter>> + Send + Sync>;

/// What the engine needs of the rest of the daemon. Asking for a handle does no I/O.
pub struct Deps {
    /// Where events are told, by the engine and, over the daemon's ttrpc socket, by shims.
    pub events: Arc<Exchange>,
    /// For the restart monitor.
    pub namespaces: Arc<dyn Namespaces>,
    /// What tasks are made from.
    pub containers: Scoped<dyn Containers>,
    /// For the root filesystems of containers that are started again.
    pub snapshotters: ScopedSnapshotter,
    /// For checkpoints.
    pub content: Scoped<dyn ContentStore>,
    /// For root filesystems of which a shim cannot mount everything.
    pub mounts: Option<Scoped<dyn Mounts>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_in_the_state_folder_unless_their_paths_would_be_too_long() {
        assert_eq!(socket_folder(Path::new("/run/berth")), Path::new("/run/berth/s"));
        assert_eq!(socket_folder(Path::new(&format!("/{}", "x".repeat(60)))), Path::new("/run/containerd/s"));
    }
}
