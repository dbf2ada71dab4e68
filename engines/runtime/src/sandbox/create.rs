//! The way of a sandbox from its record to a shim that hosts it, and back.

use std::sync::Arc;

use berth_core::{CreateSandbox, Scope};
use berth_proto as proto;
use berth_types::{ContainerId, Error, ErrorKind, Result};
use proto::containerd::runtime::sandbox::v1 as wire;
use proto::containerd::task::v3 as task;

use super::owner::Owner;
use super::{Host, State};
use crate::bundle::Bundle;
use crate::config::Of;
use crate::engine::Engine;
use crate::key::Key;
use crate::recover::read_answer;
use crate::shim::CallError;

impl Engine {
    /// Makes a sandbox, or leaves nothing of it. Must not be dropped half-way: its caller runs it in a task of its own.
    pub(super) async fn create_sandbox(self: Arc<Self>, scope: Scope, request: CreateSandbox) -> Result<()> {
        let record = &request.sandbox;
        let id: ContainerId = record.id.as_str().parse()?;
        let key = Key::new(&scope.namespace, &id);
        let reservation = self.sandboxes.reserve(&key)?;
        let failed = |error: Error| error.context(format!("failed to start new shim for sandbox {id}"));
        let program = self.programs.resolve(&record.runtime.name).map_err(failed)?;
        let bundle = Bundle::of(&self.config, Of::Sandbox, &key);
        let spec = record.spec.as_ref().map(|spec| spec.value.clone());
        let started = self.shim_of_its_own(&bundle, spec, &program, record.runtime.options.as_ref()).await;
        let (shim, log) = match started {
            Ok(started) => started,
            Err(error) => {
                self.remove(&bundle).await;
                return Err(failed(error));
            }
        };
        let answer = read_answer(&bundle)?.ok_or_else(|| Error::internal("a shim without an address"))?;
        let path = bundle.path().display().to_string();
        let host = Arc::new(Host::new(bundle, program, answer, State::Live(shim.clone())));
        reservation.fill(host.clone());
        self.nursery.spawn(Owner::new(self.clone(), host.clone(), log).run());

        let message = wire::CreateSandboxRequest {
            sandbox_id: id.to_string(),
            bundle_path: path,
            rootfs: proto::convert::mounts(request.rootfs),
            options: request.options.map(proto::convert::any),
            netns_path: request.network,
            annotations: request.annotations.into_iter().collect(),
        };
        let limit = Some(self.config.timeouts.create);
        let made = shim.call_sandbox::<_, wire::CreateSandboxResponse>("CreateSandbox", message, limit).await;
        if let Err(error) = made {
            self.end_sandbox(&host).await;
            return Err(Error::from(error).context(format!("failed to create sandbox {id}")));
        }
        Ok(())
    }

    /// Ends the shim of a sandbox, which may have ended already, and waits until nothing is left of it. One that does
    /// not end when it is told is killed.
    pub(super) async fn end_sandbox(&self, host: &Arc<Host>) {
        if let Ok(shim) = host.shim() {
            let id = host.bundle.key().id.to_string();
            let request = wire::ShutdownSandboxRequest { sandbox_id: id.clone() };
            let limit = Some(self.config.timeouts.shutdown);
            let told =
                shim.call_sandbox::<_, wire::ShutdownSandboxResponse>("ShutdownSandbox", request, limit);
            match told.await {
                Ok(_) | Err(CallError::Closed) => {}
                // A shim that hosts no sandboxes ends as one of a container does.
                Err(error) if error.kind() == ErrorKind::NotImplemented => {
                    let request = task::ShutdownRequest { id, now: true };
                    // Whether it does is seen from its connection.
                    let _ = shim.call::<_, ()>("Shutdown", request, limit).await;
                }
                Err(error) => {
                    tracing::warn!(sandbox = %host.bundle.key(), "its shim was told to end: {error}");
                }
            }
        }
        host.dismissed.notify_one();
        host.gone().await;
    }
}
