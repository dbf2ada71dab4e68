//! The owner of a task: finds out whether its shim lives, deletes it when asked, cleans up when the shim is gone.
//!
//! ```text
//!   create ─▶ owned ─ delete ──────────────▶ gone     the shim's exit is the answer
//!               │  ╲ connection lost ▶ reap ▶ gone     `shim delete`; TaskExit and TaskDelete are told
//!   recover ─▶ unknown ─ answers ▶ owned
//!                  └──── gone ▶ reap ▶ gone
//! ```

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use berth_proto as proto;
use berth_types::{Error, ErrorKind, Event, Exit, Result};
use proto::containerd::task::v3 as wire;
use proto::containerd::v1::types::Status;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::{Deletion, Task};
use crate::blocking::blocking;
use crate::bundle::Bundle;
use crate::engine::Engine;
use crate::recover::{Look, exit_of, read_answer};
use crate::registry::Named;
use crate::shim::{CallError, Shim, Socket};

/// The status of a task whose end nobody saw.
const UNSEEN: u32 = 255;
/// How long a shim that deleted its task has for telling so, before it is told to end.
const LAST_EVENT: Duration = Duration::from_secs(1);

/// Who decides about a task.
pub(crate) struct Owner {
    pub(super) engine: Arc<Engine>,
    pub(super) task: Arc<Task>,
    pub(super) shim: watch::Sender<Option<Shim>>,
    pub(super) end: watch::Sender<Option<Exit>>,
    pub(super) deletions: mpsc::Receiver<Deletion>,
    pub(super) log: Option<AbortHandle>,
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
                Look::Alive { shim, state } => {
                    tracing::info!(task = %self.task.key(), "the shim answers again");
                    self.task.pid.store(state.pid, Ordering::Relaxed);
                    self.task.watch_init();
                    if state.status == Status::Stopped as i32 {
                        self.task.note_exit(exit_of(&state));
                    }
                    self.shim.send_replace(Some(shim.clone()));
                    return Some(shim);
                }
                Look::Gone(_) | Look::Empty(_) => return None,
                Look::Unknown(_) => {}
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
        self.task.note_parting();
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
        if !self.goes_on(shim) {
            let told = self.task.deletion_told.wait();
            let _ = tokio::time::timeout(LAST_EVENT, told).await;
            self.dismiss(shim).await;
            let _ = tokio::time::timeout(self.engine.config.timeouts.shutdown, shim.closed()).await;
            self.tell_deletion(exit);
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

    /// Whether the shim serves others too, or a whole sandbox.
    fn goes_on(&self, shim: &Shim) -> bool {
        self.task.is_hosted() || self.engine.registry.shares(shim, self.task.key())
    }

    /// Tells the shim to end, unless it goes on.
    async fn dismiss(&self, shim: &Shim) {
        if self.goes_on(shim) {
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
        let removed = blocking(move || bundle.delete()).await;
        self.engine.deactivate(self.task.key()).await;
        removed
    }

    /// Removes the bundle and the socket of a shim that had no time to.
    async fn remove_remains(&self) -> Result<()> {
        let removed = remove_remains(self.task.bundle()).await;
        self.engine.deactivate(self.task.key()).await;
        removed
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
        // An exit that was told is not told again.
        if told.is_none() {
            let (container_id, exec_id) = (key.id.to_string(), key.id.to_string());
            self.tell(Event::TaskExit { container_id, exec_id, exit });
        }
        self.tell_deletion(exit);
        exit
    }

    /// Tells that the task is deleted, unless its shim did.
    fn tell_deletion(&self, exit: Exit) {
        if self.task.deletion_told.get().is_none() {
            let container_id = self.task.key().id.to_string();
            self.tell(Event::TaskDelete { container_id, exec_id: String::new(), exit });
        }
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

/// Removes a bundle and the socket of a shim that had no time to.
pub(crate) async fn remove_remains(bundle: &Bundle) -> Result<()> {
    let bundle = bundle.clone();
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
