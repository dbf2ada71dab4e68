//! Whose child has ended: the one place that waits for processes.
//!
//! The shim is parent, or adoptive parent, of everything in its containers and of the programs that it runs itself.
//! Only the poll loop reaps. A thread that runs a program claims its exit; what nobody has claimed yet while
//! something is being started is kept, because a process may end before its starter has learned its number.
//!
//! ```text
//!  SIGCHLD ─► reap ─┬─ claimed ───► the thread in `run`
//!                   ├─ known ─────► the container's process
//!                   └─ unknown ───► kept while an Expectation lives, else an orphan: forgotten
//! ```

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, wait, waitpid};

/// More output than this of a runtime's program is of no use in a message.
const OUTPUT: u64 = 1 << 20;

/// A process that has ended and was reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exited {
    pub(crate) pid: u32,
    /// As shells count: 128 + n for a signal.
    pub(crate) status: u32,
    pub(crate) at: SystemTime,
}

/// What a program left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: u32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// Shared by the loop and the threads.
#[derive(Clone, Debug)]
pub(crate) struct Children(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    reaper: Reaper,
    state: Mutex<State>,
    changed: Condvar,
}

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reaper {
    Loop,
    Caller,
}

#[derive(Debug, Default)]
struct State {
    claims: BTreeMap<u32, Option<Exited>>,
    expectations: usize,
    unclaimed: Vec<Exited>,
}

/// While one lives, exits of unknown processes are kept.
#[derive(Debug)]
pub(crate) struct Expectation(Children);

impl Children {
    /// For a process whose loop reaps.
    pub(crate) fn reaped_by_loop() -> Self {
        Self::with(Reaper::Loop)
    }

    /// For a process without a loop: whoever runs a program waits for it.
    pub(crate) fn reaped_by_caller() -> Self {
        Self::with(Reaper::Caller)
    }

    fn with(reaper: Reaper) -> Self {
        Self(Arc::new(Shared { reaper, state: Mutex::default(), changed: Condvar::new() }))
    }

    /// Announces that a process may come to be whose number is learned later.
    pub(crate) fn expect(&self) -> Expectation {
        self.lock().expectations += 1;
        Expectation(self.clone())
    }

    /// Runs a program to its end. Its standard streams are those that `command` names; output that it leaves
    /// to be piped is caught. Blocking; never on the loop's own thread.
    pub(crate) fn run(&self, command: &mut Command) -> io::Result<Finished> {
        let expectation = self.expect();
        let mut child = command.spawn()?;
        let pid = child.id();
        self.claim(pid);
        drop(expectation);
        let mut stdout = Vec::new();
        let mut stderr = Vec::new();
        // A program that fills one pipe while we read the other would hang; no runtime says that much on stderr.
        if let Some(pipe) = child.stdout.take() {
            pipe.take(OUTPUT).read_to_end(&mut stdout)?;
        }
        if let Some(pipe) = child.stderr.take() {
            pipe.take(OUTPUT).read_to_end(&mut stderr)?;
        }
        let status = self.wait_for(pid)?;
        Ok(Finished { status, stdout, stderr: String::from_utf8_lossy(&stderr).trim().to_owned() })
    }

    /// Runs a program with nothing on its standard input and catches both outputs.
    pub(crate) fn output(&self, command: &mut Command) -> io::Result<Finished> {
        self.run(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    fn claim(&self, pid: u32) {
        let mut state = self.lock();
        let ended = state.take_unclaimed(pid);
        state.claims.insert(pid, ended);
    }

    fn wait_for(&self, pid: u32) -> io::Result<u32> {
        if self.0.reaper == Reaper::Caller {
            self.lock().claims.remove(&pid);
            let known = Pid::from_raw(pid as i32);
            loop {
                match waitpid(known, WaitOptions::empty()) {
                    Ok(Some((_, status))) => return Ok(shell_status(status)),
                    Ok(None) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let mut state = self.lock();
        loop {
            if let Some(Some(exited)) = state.claims.get(&pid).copied() {
                state.claims.remove(&pid);
                return Ok(exited.status);
            }
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Reaps whatever has ended and gives what no thread has claimed. For the loop.
    pub(crate) fn reap(&self) -> Vec<Exited> {
        let mut ended = Vec::new();
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let pid = pid.as_raw_nonzero().get() as u32;
                    let exited = Exited { pid, status: shell_status(status), at: SystemTime::now() };
                    let mut state = self.lock();
                    if let Some(claim) = state.claims.get_mut(&pid) {
                        *claim = Some(exited);
                        drop(state);
                        self.0.changed.notify_all();
                    } else {
                        ended.push(exited);
                    }
                }
                Err(Errno::INTR) => {}
                Ok(None) | Err(_) => return ended,
            }
        }
    }

    /// Keeps the exit of a process that the loop does not know, if somebody may yet ask for it.
    pub(crate) fn keep(&self, exited: Exited) {
        let mut state = self.lock();
        // The thread that started it may have claimed it since it was reaped.
        if let Some(claim) = state.claims.get_mut(&exited.pid) {
            *claim = Some(exited);
            drop(state);
            self.0.changed.notify_all();
        } else if state.expectations > 0 {
            state.unclaimed.push(exited);
        }
    }

    /// The exit of a process that ended before its number was known.
    pub(crate) fn take_early(&self, pid: u32) -> Option<Exited> {
        self.lock().take_unclaimed(pid)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_unclaimed(&mut self, pid: u32) -> Option<Exited> {
        let at = self.unclaimed.iter().position(|exited| exited.pid == pid)?;
        Some(self.unclaimed.swap_remove(at))
    }
}

impl Drop for Expectation {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.expectations -= 1;
        if state.expectations == 0 {
            state.unclaimed = Vec::new();
        }
    }
}

fn shell_status(status: WaitStatus) -> u32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code as u32,
        (None, Some(signal)) => 128 + signal as u32,
        (None, None) => 255,
    }
}
