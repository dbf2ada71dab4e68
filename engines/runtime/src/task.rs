//! A task and its owner.
//!
//! ```text
//!   create ─▶ owned ─ delete ──────────────▶ gone     the shim's exit is the answer
//!               │  ╲ connection lost ▶ reap ▶ gone     `shim delete`; TaskExit and TaskDelete are told
//!   recover ─▶ unknown ─ answers ▶ owned
//!                  └──── gone ▶ reap ▶ gone
//! ```
//! The owner is the only one that ends a task, so it ends once. Calls that change nothing about its being
//! there go to the shim directly and side by side.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use berth_proto as proto;
use berth_types::{Error, ErrorKind, Event, Exit, Result};
use proto::containerd::task::v3 as wire;
use proto::containerd::v1::types::Status;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::{SetOnce, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use crate::blocking::blocking;
use crate::bundle::Bundle;
use crate::engine::Engine;
use crate::key::Key;
use crate::recover::read_answer;
use crate::shim::{CallError, Shim, Socket};

/// The status of a task whose end nobody saw.
const UNSEEN: u32 = 255;
/// How long a shim that deleted its task has for telling so, before it is told to end.
const LAST_EVENT: Duration = Duration::from_secs(1);
/// Deletions that wait for one another.
const WAITING: usize = 4;

/// What others see of a task.
pub(crate) struct Task {
    bundle: Bundle,
    program: PathBuf,
    pid: AtomicU32,
    /// Its first process, so that its number can never come to mean another.
    init: OnceLock<OwnedFd>,
    /// `None` as long as it is not known whether the shim lives.
    shim: watch::Receiver<Option<Shim>>,
    /// The end of its first process, once it was told.
    exit: OnceLock<Exit>,
    /// Set once the shim told that it deleted the task.
    deletion_told: SetOnce<()>,
    /// Set when the task is gone.
    end: watch::Receiver<Option<Exit>>,
    deletions: mpsc::Sender<Deletion>,
}

type Deletion = oneshot::Sender<Result<Exit>>;

/// Who decides about a task.
pub(crate) struct Owner {
    engine: Arc<Engine>,
    task: Arc<Task>,
    shim: watch::Sender<Option<Shim>>,
    end: watch::Sender<Option<Exit>>,
    deletions: mpsc::Receiver<Deletion>,
    log: Option<AbortHandle>,
}

/// What a task is made of.
pub(crate) struct Parts {
    pub(crate) bundle: Bundle,
    pub(crate) program: PathBuf,
    pub(crate) pid: u32,
    pub(crate) shim: Option<Shim>,
    pub(crate) log: Option<AbortHandle>,
}

impl Task {
    /// A task and its owner, who has to be let run.
    pub(crate) fn new(engine: Arc<Engine>, parts: Parts) -> (Arc<Self>, Owner) {
        let Parts { bundle, program, pid, shim, log } = parts;
        let (tell_shim, shim) = watch::channel(shim);
        let (tell_end, end) = watch::channel(None);
        let (ask, deletions) = mpsc::channel(WAITING);
        let (exit, init) = (OnceLock::new(), OnceLock::new());
        let pid = AtomicU32::new(pid);
        let deletion_told = SetOnce::new();
        let task =
            Arc::new(Self { bundle, program, pid, init, shim, exit, deletion_told, end, deletions: ask });
        task.watch_init();
        let owner = Owner { engine, task: Arc::clone(&task), shim: tell_shim, end: tell_end, deletions, log };
        (task, owner)
    }

    pub(crate) fn key(&self) -> &Key {
        self.bundle.key()
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
        if let Some(init) = self.init.get() {
            // The only failure left is that it has ended.
            let _ = pidfd_send_signal(init, Signal::KILL);
        }
    }
}

impl Owner {
    /// Owns the task until it is gone.
    pub(crate) async fn run(mut self) {
        let exit = match self.settle().await {
            Some(shim) => self.own(shim).await,
            None => self.reap().await,
        };
        self.retire(exit);
    }

    /// Cleans up after a shim that is known to be gone.
    pub(crate) async fn bury(mut self) {
        let exit = self.reap().await;
        self.retire(exit);
    }

    /// Finds out whether the shim lives, however long that takes; `None` if it does not.
    async fn settle(&mut self) -> Option<Shim> {
        let known = self.shim.borrow().clone();
        if known.is_some() {
            return known;
        }
        let mut pause = Duration::from_millis(200);
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Some(reply) = self.deletions.recv() => {
                    let id = &self.task.key().id;
                    let error = format!("the shim of task {id} does not answer; try again, or end the shim");
                    let _ = reply.send(Err(Error::unavailable(error)));
                    continue;
                }
            }
            pause = (pause * 2).min(Duration::from_secs(5));
            match self.engine.look(self.task.bundle()).await {
                crate::recover::Look::Alive { shim, state } => {
                    tracing::info!(task = %self.task.key(), "the shim answers again");
                    self.task.pid.store(state.pid, Ordering::Relaxed);
                    self.task.watch_init();
                    if state.status == Status::Stopped as i32 {
                        self.task.note_exit(crate::recover::exit_of(&state));
                    }
                    self.shim.send_replace(Some(shim.clone()));
                    return Some(shim);
                }
                crate::recover::Look::Gone(_) | crate::recover::Look::Empty(_) => return None,
                crate::recover::Look::Unknown(_) => {}
            }
        }
    }

    async fn own(&mut self, shim: Shim) -> Exit {
        loop {
            tokio::select! {
                // A lost connection outranks any request.
                biased;
                () = shim.closed() => return self.reap().await,
                Some(reply) = self.deletions.recv() => {
                    let (result, exit) = self.delete(&shim).await;
                    let Some(exit) = exit else {
                        let _ = reply.send(result);
                        continue;
                    };
                    // The name is free before the client hears of it.
                    self.engine.registry.remove(&self.task);
                    let _ = reply.send(result);
                    return exit;
                }
            }
        }
    }

    /// Deletes the task at the client's wish: the answer, and the exit if it is gone.
    async fn delete(&mut self, shim: &Shim) -> (Result<Exit>, Option<Exit>) {
        let request = wire::DeleteRequest { id: self.task.key().id.to_string(), exec_id: String::new() };
        let limit = self.engine.config.timeouts.call;
        let deleted = shim.call::<_, wire::DeleteResponse>("Delete", request, Some(limit)).await;
        let (result, exit) = match deleted {
            Ok(answer) => {
                let wire::DeleteResponse { pid, exit_status, exited_at } = answer;
                let exit = Exit { pid, status: exit_status, at: proto::convert::time(exited_at) };
                (Ok(exit), exit)
            }
            Err(CallError::Closed) => {
                let exit = self.reap().await;
                return (Ok(exit), Some(exit));
            }
            // The shim knows nothing of it: whatever else there is of the task has to go.
            Err(error) if error.is_not_found() => {
                let exit = self.task.exit().unwrap_or_else(|| unseen(self.task.pid()));
                (Err(Error::from(error).context("failed to delete task")), exit)
            }
            Err(error) => return (Err(self.why_not_deleted(shim, error).await), None),
        };
        let removed = if self.task.program() == self.engine.config.own_shim {
            tokio::join!(self.dismiss(shim), self.remove_bundle()).1
        } else {
            self.part_from(shim, exit).await
        };
        if let Err(error) = removed {
            tracing::error!(task = %self.task.key(), "cannot remove the bundle: {}", error.chain());
        }
        (result, Some(exit))
    }

    /// Ends a shim that somebody else wrote, one step after the other: told to end, it may drop the event of
    /// the deletion, and it finds the socket that it has to remove through its bundle.
    async fn part_from(&self, shim: &Shim, exit: Exit) -> Result<()> {
        if !self.engine.registry.shares(shim, self.task.key()) {
            let told = self.task.deletion_told.wait();
            let _ = tokio::time::timeout(LAST_EVENT, told).await;
            self.dismiss(shim).await;
            let _ = tokio::time::timeout(self.engine.config.timeouts.shutdown, shim.closed()).await;
            if self.task.deletion_told.get().is_none() {
                let container_id = self.task.key().id.to_string();
                self.tell(Event::TaskDelete { container_id, exec_id: String::new(), exit });
            }
        }
        self.remove_remains().await
    }

    /// The shim's error, as the one that clients act on: shims say only in words that a task runs.
    async fn why_not_deleted(&self, shim: &Shim, error: CallError) -> Error {
        let kind = error.kind();
        let error = Error::from(error);
        if kind == ErrorKind::Unknown
            && let Ok(state) = self.engine.state(shim, self.task.key(), "").await
            && [Status::Running, Status::Paused, Status::Pausing]
                .map(|one| one as i32)
                .contains(&state.status)
        {
            let text = format!("failed to delete task: {}", error.chain());
            return Error::failed_precondition(text);
        }
        error.context("failed to delete task")
    }

    /// Tells the shim to end, unless it serves others too.
    async fn dismiss(&self, shim: &Shim) {
        if self.engine.registry.shares(shim, self.task.key()) {
            return;
        }
        let request = wire::ShutdownRequest { id: self.task.key().id.to_string(), now: false };
        let limit = self.engine.config.timeouts.shutdown;
        match shim.call::<_, ()>("Shutdown", request, Some(limit)).await {
            Ok(()) | Err(CallError::Closed) => {}
            Err(error) => {
                tracing::error!(task = %self.task.key(), "the shim may be left: it was told to end: {error}");
            }
        }
    }

    async fn remove_bundle(&self) -> Result<()> {
        let bundle = self.task.bundle().clone();
        blocking(move || bundle.delete()).await
    }

    /// Removes the bundle and the socket of a shim that had no time to.
    async fn remove_remains(&self) -> Result<()> {
        let bundle = self.task.bundle().clone();
        blocking(move || {
            let answer = read_answer(&bundle).ok().flatten();
            if let Some(Ok(Socket::Path(path))) = answer.map(|answer| answer.socket())
                && is_dead_socket(&path).unwrap_or(false)
            {
                // One that cannot be removed is in nobody's way: a name is free when nobody listens.
                let _ = std::fs::remove_file(path);
            }
            bundle.delete()
        })
        .await
    }

    /// Cleans up after a shim that is gone, and tells how the task ended.
    async fn reap(&mut self) -> Exit {
        let key = self.task.key().clone();
        tracing::info!(task = %key, "the shim is gone; cleaning up after it");
        let cleaned = self.engine.launcher.delete(self.task.bundle(), self.task.program()).await;
        let told = self.task.exit();
        let exit = match cleaned {
            Ok(exit) => timed(exit),
            Err(error) => {
                tracing::warn!(task = %key, "cannot clean up after the shim: {}", error.chain());
                self.task.kill_init();
                unseen(self.task.pid())
            }
        };
        if let Err(error) = self.remove_remains().await {
            tracing::error!(task = %key, "cannot remove the bundle: {}", error.chain());
        }
        let exit = told.unwrap_or(exit);
        self.engine.registry.remove(&self.task);
        let container_id = key.id.to_string();
        // An exit that was told is not told again.
        if told.is_none() {
            let exec_id = container_id.clone();
            self.tell(Event::TaskExit { container_id: container_id.clone(), exec_id, exit });
        }
        self.tell(Event::TaskDelete { container_id, exec_id: String::new(), exit });
        exit
    }

    fn tell(&self, event: Event) {
        if let Err(error) = self.engine.deps.events.tell(&self.task.key().namespace, event) {
            tracing::error!(task = %self.task.key(), "cannot tell an event: {}", error.chain());
        }
    }

    fn retire(&mut self, exit: Exit) {
        self.engine.registry.remove(&self.task);
        self.task.note_exit(exit);
        self.end.send_replace(Some(exit));
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(log) = &self.log {
            log.abort();
        }
    }
}

/// Whether a path is a socket that nobody listens on. The path is a shim's word: it may be anything. Never
/// waits, not even for a listener that is stopped.
fn is_dead_socket(path: &Path) -> io::Result<bool> {
    if !path.symlink_metadata()?.file_type().is_socket() {
        return Ok(false);
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let connected = rustix::net::connect(&socket, &SocketAddrUnix::new(path)?);
    Ok(connected == Err(rustix::io::Errno::CONNREFUSED))
}

fn unseen(pid: u32) -> Exit {
    Exit { pid, status: UNSEEN, at: SystemTime::now() }
}

/// An exit whose shim did not say when.
fn timed(exit: Exit) -> Exit {
    if exit.at == SystemTime::UNIX_EPOCH { Exit { at: SystemTime::now(), ..exit } } else { exit }
}
