//! Sandboxes of shims: a shim that serves the sandbox API (`containerd.runtime.sandbox.v1.Sandbox`) is started for a whole
//! pod, as one that boots a machine for it, and makes the pod's containers as tasks of its own.
//!
//! ```text
//!   create ─▶ bundle + shim's `start` ─▶ CreateSandbox ─▶ live ─ connection lost, or shutdown ─▶ cleaned up ─▶ gone
//!   recover ─▶ unknown ─ answers ▶ live
//!                  └──── gone ▶ cleaned up
//! ```
//! Its owner is the only one that ends it. Calls go to the shim directly and side by side.

mod controller;
mod create;
mod owner;

use std::path::{Path, PathBuf};

use berth_types::{Error, Result};
use tokio::sync::{Notify, watch};

use crate::bundle::Bundle;
use crate::key::Key;
use crate::registry::Named;
use crate::shim::{Answer, Shim};

pub(crate) use controller::ShimSandboxes;

/// The version of the task API from which on a shim's start is not needed for each container of a sandbox, as in
/// containerd.
const MAKES_TASKS: i32 = 3;

/// A shim that hosts a sandbox.
pub(crate) struct Host {
    bundle: Bundle,
    program: PathBuf,
    answer: Answer,
    state: watch::Sender<State>,
    /// Told when the shim has been asked to end.
    dismissed: Notify,
}

/// What is known of the shim.
#[derive(Clone)]
enum State {
    /// A daemon before this one knew it, and it has not answered yet.
    Unknown,
    Live(Shim),
    Gone,
}

/// A shim that is there already, as a task is told it.
#[derive(Clone)]
pub(crate) struct Hosted {
    /// The sandbox.
    pub(crate) sandbox: String,
    /// The shim's program; empty where that is not on this host.
    pub(crate) program: PathBuf,
    /// Where it listens.
    pub(crate) answer: Answer,
}

impl Named for Host {
    const KIND: &'static str = "sandbox";

    fn key(&self) -> &Key {
        self.bundle.key()
    }
}

impl Host {
    fn new(bundle: Bundle, program: PathBuf, answer: Answer, state: State) -> Self {
        Self { bundle, program, answer, state: watch::Sender::new(state), dismissed: Notify::new() }
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Where it listens.
    pub(crate) fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Whether containers of the sandbox are tasks of this shim; of an older one each has a shim of its own.
    pub(crate) fn makes_tasks(&self) -> bool {
        self.answer.version >= MAKES_TASKS
    }

    /// The shim, if it is known to live.
    fn shim(&self) -> Result<Shim> {
        let id = &self.key().id;
        match &*self.state.borrow() {
            State::Live(shim) => Ok(shim.clone()),
            State::Unknown => {
                Err(Error::unavailable(format!("the shim of sandbox {id} does not answer; try again")))
            }
            State::Gone => Err(Error::not_found(format!("sandbox {id} not found: its shim has ended"))),
        }
    }

    /// Resolves when nothing is left of it.
    async fn gone(&self) {
        let mut state = self.state.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _ = state.wait_for(|state| matches!(state, State::Gone)).await;
    }
}
