//! The owner of a sandbox: finds out whether its shim lives, and cleans up when that has ended or was told to.

use std::sync::Arc;
use std::time::Duration;

use berth_proto as proto;
use proto::containerd::runtime::sandbox::v1 as wire;
use tokio::task::AbortHandle;

use super::{Host, State};
use crate::blocking::blocking;
use crate::bundle::Bundle;
use crate::engine::Engine;
use crate::recover::{PATIENCE, Silence, read_answer};
use crate::registry::Named as _;
use crate::shim::{CallError, Shim};
use crate::task::remove_remains;

/// How long it is from the first question to a shim that does not answer to the next one, and at most.
const AGAIN: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// Who decides about a sandbox.
pub(super) struct Owner {
    engine: Arc<Engine>,
    host: Arc<Host>,
    log: Option<AbortHandle>,
}

/// What a look at a sandbox's shim shows.
enum Look {
    Alive(Shim),
    Gone(String),
    Unknown(String),
}

impl Owner {
    pub(super) fn new(engine: Arc<Engine>, host: Arc<Host>, log: Option<AbortHandle>) -> Self {
        Self { engine, host, log }
    }

    /// Owns it until it is gone.
    pub(super) async fn run(self) {
        if let Some(shim) = self.settle().await {
            tokio::select! {
                // A lost connection outranks any request.
                biased;
                () = shim.closed() => tracing::info!(sandbox = %self.host.key(), "its shim has ended"),
                () = self.host.dismissed.notified() => {
                    // One that does not end is killed with what is left.
                    let _ = tokio::time::timeout(self.engine.config.timeouts.shutdown, shim.closed()).await;
                }
            }
        }
        self.clear().await;
    }

    /// Finds out whether the shim lives, however long that takes; `None` if it does not.
    async fn settle(&self) -> Option<Shim> {
        if let State::Live(shim) = &*self.host.state.borrow() {
            return Some(shim.clone());
        }
        let [mut pause, longest] = AGAIN;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
            match self.engine.look_at_sandbox(&self.host.bundle).await {
                Look::Alive(shim) => {
                    tracing::info!(sandbox = %self.host.key(), "its shim answers again");
                    self.host.state.send_replace(State::Live(shim.clone()));
                    return Some(shim);
                }
                Look::Gone(_) => return None,
                Look::Unknown(_) => {}
            }
        }
    }

    async fn clear(&self) {
        let Host { bundle, program, .. } = &*self.host;
        self.engine.clean_up(bundle, program).await;
        if let Err(error) = remove_remains(bundle).await {
            tracing::error!(sandbox = %bundle.key(), "cannot remove the bundle: {}", error.chain());
        }
        self.engine.sandboxes.remove(&self.host);
        self.host.state.send_replace(State::Gone);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(log) = &self.log {
            log.abort();
        }
    }
}

impl Engine {
    /// Takes up a sandbox of the daemon before this one.
    pub(crate) async fn take_up_sandbox(self: &Arc<Self>, bundle: Bundle) {
        let Ok(reservation) = self.sandboxes.reserve(bundle.key()) else { return };
        let (read, program) = (bundle.clone(), self.program_of(&bundle).await);
        let answer = blocking(move || read_answer(&read)).await;
        let (Some(program), Ok(Some(answer))) = (program, answer) else {
            tracing::warn!(sandbox = %bundle.key(), "its shim never said where it listens; it is taken down");
            if let Some(program) = self.program_of(&bundle).await {
                self.clean_up(&bundle, &program).await;
            }
            return self.remove(&bundle).await;
        };
        let state = match self.look_at_sandbox(&bundle).await {
            Look::Alive(shim) => State::Live(shim),
            Look::Gone(why) => {
                tracing::info!(sandbox = %bundle.key(), why, "its shim is gone; cleaning up after it");
                self.clean_up(&bundle, &program).await;
                return self.remove(&bundle).await;
            }
            Look::Unknown(why) => {
                tracing::warn!(sandbox = %bundle.key(), why, "its shim does not answer; it is asked again");
                State::Unknown
            }
        };
        let log = self.follow_old_log(&bundle).await;
        let host = Arc::new(Host::new(bundle, program, answer, state));
        reservation.fill(host.clone());
        self.nursery.spawn(Owner::new(self.clone(), host, log).run());
    }

    async fn look_at_sandbox(&self, bundle: &Bundle) -> Look {
        let shim = match self.reach(bundle).await {
            Ok(shim) => shim,
            Err(Silence::Gone(why)) => return Look::Gone(why),
            Err(Silence::Unknown(why)) => return Look::Unknown(why),
        };
        let limit = self.config.timeouts.load.min(PATIENCE);
        let request = wire::PingRequest { sandbox_id: bundle.key().id.to_string() };
        match shim.call_sandbox::<_, wire::PingResponse>("PingSandbox", request, Some(limit)).await {
            // Whatever it answers, it is there.
            Ok(_) | Err(CallError::Refused(_)) => Look::Alive(shim),
            Err(CallError::Closed) => Look::Gone("it closed the connection".into()),
            Err(error @ CallError::Late { .. }) => Look::Unknown(error.to_string()),
        }
    }
}
