//! A task as others see it.
//!
//! The owner is the only one that ends a task, so it ends once. Calls that change nothing about its being
//! there go to the shim directly and side by side.

mod owner;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use berth_types::{Error, Exit, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::{SetOnce, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

pub(crate) use self::owner::{Owner, remove_remains};
use crate::bundle::Bundle;
use crate::engine::Engine;
use crate::key::Key;
use crate::registry::Named;
use crate::shim::Shim;

/// Deletions that wait for one another.
const WAITING: usize = 4;

/// What others see of a task.
pub(crate) struct Task {
    bundle: Bundle,
    program: PathBuf,
    /// Whether its shim hosts a whole sandbox, and outlives it.
    hosted: bool,
    pid: AtomicU32,
    /// Its first process, so that its number can never come to mean another.
    init: OnceLock<OwnedFd>,
    /// `None` as long as it is not known whether the shim lives.
    shim: watch::Receiver<Option<Shim>>,
    /// The end of its first process, once it was told.
    exit: OnceLock<Exit>,
    /// Set once the shim told that it deleted the task.
    deletion_told: SetOnce<()>,
    /// Whether the shim has no more to do with it.
    parted: AtomicBool,
    /// Set when the task is gone.
    end: watch::Receiver<Option<Exit>>,
    deletions: mpsc::Sender<Deletion>,
}

type Deletion = oneshot::Sender<Result<Exit>>;

/// What a task is made of.
pub(crate) struct Parts {
    pub(crate) bundle: Bundle,
    pub(crate) program: PathBuf,
    pub(crate) hosted: bool,
    pub(crate) pid: u32,
    pub(crate) shim: Option<Shim>,
    pub(crate) log: Option<AbortHandle>,
}

impl Named for Task {
    const KIND: &'static str = "task";

    fn key(&self) -> &Key {
        self.bundle.key()
    }
}

impl Task {
    /// A task and its owner, who has to be let run.
    pub(crate) fn new(engine: Arc<Engine>, parts: Parts) -> (Arc<Self>, Owner) {
        let Parts { bundle, program, hosted, pid, shim, log } = parts;
        let (tell_shim, shim) = watch::channel(shim);
        let (tell_end, end) = watch::channel(None);
        let (ask, deletions) = mpsc::channel(WAITING);
        let (exit, init) = (OnceLock::new(), OnceLock::new());
        let pid = AtomicU32::new(pid);
        let deletion_told = SetOnce::new();
        let task = Arc::new(Self {
            bundle,
            program,
            hosted,
            pid,
            init,
            shim,
            exit,
            deletion_told,
            parted: AtomicBool::new(false),
            end,
            deletions: ask,
        });
        task.watch_init();
        let owner = Owner { engine, task: Arc::clone(&task), shim: tell_shim, end: tell_end, deletions, log };
        (task, owner)
    }

    /// Whether its shim goes on without it.
    pub(crate) fn is_hosted(&self) -> bool {
        self.hosted
    }

    pub(crate) fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    /// The shim, if it is known to live.
    pub(crate) fn shim_now(&self) -> Option<Shim> {
        self.shim.borrow().clone()
    }

    /// The shim, once it is known to live; never, if it does not.
    pub(crate) async fn shim(&self) -> Option<Shim> {
        let mut shim = self.shim.clone();
        let known = shim.wait_for(Option::is_some).await;
        known.ok().and_then(|known| known.clone())
    }

    /// Takes note of the end of the first process; the first note counts.
    pub(crate) fn note_exit(&self, exit: Exit) {
        let _ = self.exit.set(exit);
    }

    /// Takes note that everybody knows of the task's deletion.
    pub(crate) fn note_deletion(&self) {
        let _ = self.deletion_told.set(());
    }

    /// Takes note that the shim has deleted it. Of several that are deleted at once, the last to be noted finds no other.
    fn note_parting(&self) {
        self.parted.store(true, Ordering::SeqCst);
    }

    /// Whether the shim still has it.
    pub(crate) fn is_with(&self, shim: &Shim) -> bool {
        !self.parted.load(Ordering::SeqCst) && self.shim_now().is_some_and(|its| its.same_as(shim))
    }

    pub(crate) fn exit(&self) -> Option<Exit> {
        self.exit.get().copied()
    }

    /// Resolves when the task is gone; `None` if the daemon ends first.
    pub(crate) async fn gone(&self) -> Option<Exit> {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await;
        ended.ok().and_then(|exit| *exit)
    }

    /// Has the owner delete the task.
    pub(crate) async fn delete(&self) -> Result<Exit> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::not_found(format!("task {} not found", self.key().id));
        self.deletions.send(reply).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Keeps hold of the first process while its number is surely its own.
    fn watch_init(&self) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        if let Some(init) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) {
            let _ = self.init.set(init);
        }
    }

    /// The last resort when the shim's own program cannot clean up.
    fn kill_init(&self) {
        // The number may be that of a process in the sandbox's own machine.
        if let Some(init) = self.init.get().filter(|_| !self.hosted) {
            // The only failure left is that it has ended.
            let _ = pidfd_send_signal(init, Signal::KILL);
        }
    }
}
