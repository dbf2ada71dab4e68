//! What the parts of the engine share.

use std::sync::Arc;

use berth_proto as proto;
use proto::containerd::task::v3 as wire;

use crate::config::{Config, Deps};
use crate::key::Key;
use crate::nursery::Nursery;
use crate::registry::Registry;
use crate::sandbox::Host;
use crate::shim::{CallError, Connections, Launcher, Programs, Shim};
use crate::task::Task;

/// The engine's inside.
pub(crate) struct Engine {
    pub(crate) config: Arc<Config>,
    pub(crate) deps: Deps,
    pub(crate) programs: Programs,
    pub(crate) launcher: Launcher,
    pub(crate) connections: Connections,
    pub(crate) registry: Registry<Task>,
    pub(crate) sandboxes: Registry<Host>,
    pub(crate) nursery: Nursery,
}

impl Engine {
    /// Asks a shim about a process; an empty `exec` is the task's first.
    pub(crate) async fn state(
        &self,
        shim: &Shim,
        key: &Key,
        exec: &str,
    ) -> Result<wire::StateResponse, CallError> {
        let request = wire::StateRequest { id: key.id.to_string(), exec_id: exec.to_owned() };
        shim.call("State", request, Some(self.config.timeouts.state)).await
    }
}
