//! A shim's program, run for one of its commands.
//!
//! ```text
//!   spawn ─▶ read stdout and stderr (bounded) ─▶ its end, or the end of what it says ─▶ Outcome
//!                       └─ deadline: its process group is killed
//! ```

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use berth_sys::launch::{Apart, Child, Ended, Spawn, c_string};
use berth_sys::limits::OpenFiles;
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::Receiver;

/// An answer is an address; this is far beyond any.
const STDOUT_MAX: usize = 1 << 20;
/// How much of a shim's complaint reaches the client.
const STDERR_MAX: usize = 8 << 10;
const CHUNK: usize = 4 << 10;

/// What a program has from the daemon beside its words.
#[derive(Debug)]
pub(crate) struct Inherited {
    pub(crate) environment: Vec<CString>,
    /// How many files it may have open, if not as many as the daemon.
    pub(crate) open_files: Option<OpenFiles>,
}

/// A command about to run.
pub(crate) struct Command<'a> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) inherited: &'a Inherited,
    pub(crate) folder: &'a Path,
    pub(crate) stdin: &'a [u8],
}

/// A command that runs. Dropping it kills it, unless it was let go.
pub(crate) struct Running {
    child: Option<AsyncFd<Child>>,
    stdout: Receiver,
    stderr: Receiver,
}

/// How far to follow a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Answer,
    End,
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// How it ended; `None` if it said all it will and goes on.
    pub(crate) ended: Option<Ended>,
}

/// Why a command brought nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("cannot run {program}")]
    Spawn { program: String, source: io::Error },
    #[error("no end of it after {0:?}; what it complained of: {1}")]
    Late(Duration, String),
    #[error("its answer is longer than {STDOUT_MAX} bytes")]
    Flood,
    #[error("cannot read what it says")]
    Read(#[source] io::Error),
}

impl Command<'_> {
    /// Starts it. Blocks until the child executes; needs a tokio runtime around it.
    pub(crate) fn spawn(&self) -> Result<Running, CommandError> {
        self.try_spawn()
            .map_err(|source| CommandError::Spawn { program: self.program.display().to_string(), source })
    }

    fn try_spawn(&self) -> io::Result<Running> {
        let stdin = input(self.stdin)?;
        let (stdout, child_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, child_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        let arguments = self.arguments.iter().map(c_string).collect::<io::Result<Vec<_>>>()?;
        let child = Spawn {
            program: self.program,
            arguments: &arguments,
            environment: &self.inherited.environment,
            folder: self.folder,
            streams: [stdin.as_fd(), child_stdout.as_fd(), child_stderr.as_fd()],
            given: None,
            apart: Apart::Group,
            open_files: self.inherited.open_files,
        }
        .spawn()?;
        let child = watched(child)?;
        Ok(Running {
            child: Some(child),
            stdout: Receiver::from_owned_fd(stdout)?,
            stderr: Receiver::from_owned_fd(stderr)?,
        })
    }
}

/// A child whose end can be waited for. Needs a tokio runtime around it.
pub(crate) fn watched(child: Child) -> io::Result<AsyncFd<Child>> {
    #[expect(deprecated, reason = "what replaces it is unsafe; a Child has one descriptor all its life")]
    AsyncFd::with_interest(child, tokio::io::Interest::READABLE)
}

/// A file in memory rather than a pipe: of any length, with an end, and nobody has to feed it.
fn input(bytes: &[u8]) -> io::Result<OwnedFd> {
    let file = memfd_create(c"shim-stdin", MemfdFlags::CLOEXEC)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&file, rest)?..];
    }
    seek(&file, SeekFrom::Start(0))?;
    Ok(file)
}

impl Running {
    /// Waits for its end, or until it has closed its output after saying something; at most `limit`.
    pub(crate) async fn answer(&mut self, limit: Duration) -> Result<Outcome, CommandError> {
        self.hear(limit, Until::Answer).await
    }

    /// Waits for its end; at most `limit`.
    pub(crate) async fn end(&mut self, limit: Duration) -> Result<Outcome, CommandError> {
        self.hear(limit, Until::End).await
    }

    async fn hear(&mut self, limit: Duration, until: Until) -> Result<Outcome, CommandError> {
        let mut outcome = Outcome { stdout: Vec::new(), stderr: Vec::new(), ended: None };
        match tokio::time::timeout(limit, self.listen(&mut outcome, until)).await {
            Ok(heard) => heard?,
            Err(_) => return Err(CommandError::Late(limit, shown(&outcome.stderr))),
        }
        if outcome.ended.is_some() {
            self.child = None;
        }
        Ok(outcome)
    }

    async fn listen(&mut self, outcome: &mut Outcome, until: Until) -> Result<(), CommandError> {
        let Some(child) = self.child.as_mut() else { return Ok(()) };
        let (mut out, mut err) = ([0; CHUNK], [0; CHUNK]);
        let (mut out_open, mut err_open) = (true, true);
        loop {
            tokio::select! {
                // What was said before the end is read before the end is seen.
                biased;
                count = read(&mut self.stdout, &mut out), if out_open => {
                    let count = count.map_err(CommandError::Read)?;
                    out_open = count > 0;
                    outcome.stdout.extend_from_slice(&out[..count]);
                    if outcome.stdout.len() > STDOUT_MAX {
                        return Err(CommandError::Flood);
                    }
                    if !out_open && !outcome.stdout.is_empty() && until == Until::Answer {
                        // Whoever closes its output after an answer serves on, or is about to end.
                        outcome.ended = child.get_mut().try_wait().map_err(CommandError::Read)?;
                        return Ok(());
                    }
                }
                count = read(&mut self.stderr, &mut err), if err_open => {
                    let count = count.map_err(CommandError::Read)?;
                    err_open = count > 0;
                    outcome.stderr.extend_from_slice(&err[..count]);
                    let surplus = outcome.stderr.len().saturating_sub(STDERR_MAX);
                    outcome.stderr.drain(..surplus);
                }
                ready = child.readable_mut() => {
                    let mut guard = ready.map_err(CommandError::Read)?;
                    if let Some(ended) = guard.get_inner_mut().try_wait().map_err(CommandError::Read)? {
                        outcome.ended = Some(ended);
                        // A descendant may hold the pipes; what is in them now is all there is.
                        drain(&self.stdout, &mut outcome.stdout, STDOUT_MAX);
                        drain(&self.stderr, &mut outcome.stderr, STDERR_MAX);
                        return Ok(());
                    }
                    guard.clear_ready();
                }
            }
        }
    }

    /// The process itself, if it goes on: somebody has to wait for it.
    pub(crate) fn let_go(&mut self) -> Option<AsyncFd<Child>> {
        self.child.take()
    }
}

/// Waits for a process that goes on by itself.
pub(crate) async fn reap(mut child: AsyncFd<Child>) {
    while let Ok(mut guard) = child.readable_mut().await {
        match guard.get_inner_mut().try_wait() {
            Ok(None) => guard.clear_ready(),
            Ok(Some(_)) | Err(_) => return,
        }
    }
}

async fn read(from: &mut Receiver, into: &mut [u8]) -> io::Result<usize> {
    tokio::io::AsyncReadExt::read(from, into).await
}

fn drain(from: &Receiver, into: &mut Vec<u8>, limit: usize) {
    let mut chunk = [0; CHUNK];
    while into.len() < limit {
        match from.try_read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(count) => into.extend_from_slice(&chunk[..count]),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            child.get_ref().kill_group();
            // Without a runtime around it the daemon is ending, and init waits for the child.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(reap(child));
            }
        }
    }
}

/// What a shim complained of, as a part of an error.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    if text.is_empty() { "nothing".to_owned() } else { text.to_owned() }
}

/// A flag and its value.
pub(crate) fn flag(name: &str, value: impl AsRef<OsStr>) -> [OsString; 2] {
    [OsString::from(name), value.as_ref().to_owned()]
}
