//! The seam to the low-level runtime, which makes containers out of bundles.
//!
//! [`Native`] does it in the shim's own process; [`External`] runs runc, crun, youki or another program with runc's
//! command line. All calls block and may come from any thread; the shim makes no two at once for one process.

mod external;
mod native;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_proto as proto;
use berth_types::Result;
use proto::containerd::runc::v1::Options;

pub(crate) use self::external::External;
pub(crate) use self::native::Native;
use crate::children::Children;

/// A container to be made.
#[derive(Clone, Debug)]
pub(crate) struct Create {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) no_pivot_root: bool,
    pub(crate) no_new_keyring: bool,
}

/// A container to be brought back from a checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct Restore {
    pub(crate) create: Create,
    pub(crate) image: String,
    pub(crate) parent: String,
    pub(crate) work: PathBuf,
}

/// One more process for a container.
#[derive(Clone, Debug)]
pub(crate) struct Exec {
    pub(crate) id: String,
    pub(crate) exec_id: String,
    pub(crate) bundle: PathBuf,
    /// The OCI `process` as JSON.
    pub(crate) process: Vec<u8>,
}

/// How a container is to be frozen into files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checkpoint {
    pub(crate) image: String,
    pub(crate) work: PathBuf,
    pub(crate) exit: bool,
    pub(crate) open_tcp: bool,
    pub(crate) external_unix_sockets: bool,
    pub(crate) terminal: bool,
    pub(crate) file_locks: bool,
    pub(crate) empty_namespaces: Vec<String>,
    pub(crate) cgroups_mode: String,
}

/// The streams of a process that is to be made.
#[derive(Debug)]
pub(crate) enum ChildIo {
    /// It gets a terminal, whose other end comes back in [`Spawned`].
    Terminal,
    /// These three, `/dev/null` where there is none.
    Streams([Option<OwnedFd>; 3]),
}

/// A process that was made. It is the shim's child, or will be once its maker has ended.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) pid: u32,
    /// The other end of its terminal.
    pub(crate) console: Option<OwnedFd>,
}

/// What to do with a container that still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Running {
    /// Refuse.
    Spare,
    /// Kill it first.
    Kill,
}

/// A low-level runtime, bound to its state folder.
pub(crate) trait Runtime: Send + Sync {
    /// Makes the container, its first process stopped before the user's program.
    fn create(&self, request: &Create, io: ChildIo) -> Result<Spawned>;
    /// Lets the first process go on.
    fn start(&self, id: &str) -> Result<()>;
    /// Makes a container out of a checkpoint; it runs at once.
    fn restore(&self, request: &Restore, io: ChildIo) -> Result<Spawned>;
    /// Puts one more process into it, which runs at once.
    fn exec(&self, request: &Exec, io: ChildIo) -> Result<Spawned>;
    /// Sends a signal to the first process. `NotFound` when it has ended.
    fn kill(&self, id: &str, signal: u32) -> Result<()>;
    /// Sends a signal to every process.
    fn kill_all(&self, id: &str, signal: u32) -> Result<()>;
    /// Takes the container away. Fine when it is gone already.
    fn delete(&self, id: &str, running: Running) -> Result<()>;
    /// Freezes it.
    fn pause(&self, id: &str) -> Result<()>;
    /// Thaws it.
    fn resume(&self, id: &str) -> Result<()>;
    /// Sets other limits: OCI `linux.resources` as JSON.
    fn update(&self, id: &str, resources: &[u8]) -> Result<()>;
    /// The processes in it, by their numbers out here.
    fn pids(&self, id: &str) -> Result<Vec<u32>>;
    /// Writes it into files.
    fn checkpoint(&self, id: &str, request: &Checkpoint) -> Result<()>;
    /// The OCI features document as JSON, if the runtime has one.
    fn features(&self) -> Result<Option<Vec<u8>>>;
    /// Whether the next [`Runtime::start`] waits for nothing but the kernel, so that it is fit for the loop.
    fn starts_quickly(&self) -> bool {
        false
    }
    /// Whether `kill`, `kill_all` and `pids` are a few system calls, fit for the loop.
    fn is_quick(&self) -> bool;
}

/// Where a runtime keeps its state and says what it does.
#[derive(Clone, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) bundle: &'a Path,
    /// A folder with a short path, for a console's socket.
    pub(crate) sockets: &'a Path,
}

/// The runtime that the options ask for: ours unless they name a program.
pub(crate) fn choose(options: &Options, place: &Place<'_>, children: &Children) -> Result<Arc<dyn Runtime>> {
    if options.binary_name.is_empty() {
        return Ok(Arc::new(Native::open(options, place)?));
    }
    Ok(Arc::new(External::new(options, place, children.clone())))
}
