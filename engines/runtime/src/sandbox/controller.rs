//! The controller of sandboxes that shims host, as its users have it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use berth_core::{CreateSandbox, SandboxController, SandboxInstance, SandboxStatus, Scope};
use berth_proto as proto;
use berth_types::{
    ContainerId, Error, ErrorKind, Exit, Labels, Metric, Platform, Result, SandboxId, SandboxUpdate,
};
use prost::Message;
use proto::containerd::runtime::sandbox::v1 as wire;
use proto::convert::{from_any, time};
use tokio::sync::oneshot;

use super::Host;
use crate::engine::Engine;
use crate::key::Key;
use crate::shim::CallError;

/// A handle on the sandboxes of a namespace.
pub(crate) struct ShimSandboxes {
    pub(crate) engine: Arc<Engine>,
    pub(crate) scope: Scope,
}

impl ShimSandboxes {
    fn host(&self, id: &SandboxId) -> Result<Arc<Host>> {
        let container: ContainerId = id.as_str().parse()?;
        let key = Key::new(&self.scope.namespace, &container);
        self.engine.sandboxes.live(&key).ok_or_else(|| Error::not_found(format!("sandbox {id} not found")))
    }

    async fn call<Q, A>(&self, id: &SandboxId, method: &'static str, request: Q, limit: Limit) -> Result<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let timeouts = &self.engine.config.timeouts;
        let limit = match limit {
            Limit::Call => Some(timeouts.call),
            Limit::Start => Some(timeouts.create),
            Limit::Never => None,
        };
        Ok(self.host(id)?.shim()?.call_sandbox(method, request, limit).await?)
    }
}

/// How long the shim may take.
#[derive(Clone, Copy)]
enum Limit {
    Call,
    Start,
    Never,
}

/// One that nobody hosts any more.
fn gone() -> SandboxStatus {
    SandboxStatus {
        pid: 0,
        state: String::new(),
        info: BTreeMap::new(),
        created_at: SystemTime::UNIX_EPOCH,
        exited_at: SystemTime::now(),
        extra: None,
        endpoint: None,
    }
}

fn is_not_found(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

#[async_trait]
impl SandboxController for ShimSandboxes {
    async fn create(&self, request: CreateSandbox) -> Result<()> {
        // A client that goes away must not leave half a sandbox.
        let (reply, answer) = oneshot::channel();
        let created = Arc::clone(&self.engine).create_sandbox(self.scope.clone(), request);
        self.engine.nursery.spawn(async move {
            let _ = reply.send(created.await);
        });
        answer.await.map_err(|_| Error::cancelled("the daemon is ending"))?
    }

    async fn start(&self, id: &SandboxId) -> Result<SandboxInstance> {
        let host = self.host(id)?;
        let request = wire::StartSandboxRequest { sandbox_id: id.to_string() };
        let started = self.call(id, "StartSandbox", request, Limit::Start).await;
        let wire::StartSandboxResponse { pid, created_at, spec } = match started {
            Ok(started) => started,
            Err(error) => {
                self.engine.end_sandbox(&host).await;
                return Err(error.context(format!("failed to start sandbox {id}")));
            }
        };
        Ok(SandboxInstance {
            pid,
            created_at: time(created_at),
            labels: Labels::new(),
            endpoint: Some(host.answer().endpoint()),
            spec: spec.map(from_any),
        })
    }

    async fn platform(&self, id: &SandboxId) -> Result<Platform> {
        let request = wire::PlatformRequest { sandbox_id: id.to_string() };
        let answer: wire::PlatformResponse = self.call(id, "Platform", request, Limit::Call).await?;
        Ok(answer.platform.map(Into::into).unwrap_or_default())
    }

    async fn stop(&self, id: &SandboxId, patience: Option<Duration>) -> Result<()> {
        let patience = patience.unwrap_or_default();
        let timeout_secs = u32::try_from(patience.as_secs()).unwrap_or(u32::MAX);
        let shim = match self.host(id).and_then(|host| host.shim()) {
            Err(error) if is_not_found(&error) => return Ok(()),
            found => found?,
        };
        let request = wire::StopSandboxRequest { sandbox_id: id.to_string(), timeout_secs };
        let limit = Some(self.engine.config.timeouts.call.saturating_add(patience));
        match shim.call_sandbox::<_, wire::StopSandboxResponse>("StopSandbox", request, limit).await {
            Ok(_) | Err(CallError::Closed) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(Error::from(error).context("failed to stop sandbox")),
        }
    }

    async fn wait(&self, id: &SandboxId) -> Result<Exit> {
        let request = wire::WaitSandboxRequest { sandbox_id: id.to_string() };
        let wire::WaitSandboxResponse { exit_status, exited_at } =
            self.call(id, "WaitSandbox", request, Limit::Never).await?;
        Ok(Exit { pid: 0, status: exit_status, at: time(exited_at) })
    }

    async fn status(&self, id: &SandboxId, verbose: bool) -> Result<SandboxStatus> {
        let host = match self.host(id) {
            Err(error) if is_not_found(&error) => return Ok(gone()),
            found => found?,
        };
        let request = wire::SandboxStatusRequest { sandbox_id: id.to_string(), verbose };
        let answer: wire::SandboxStatusResponse =
            self.call(id, "SandboxStatus", request, Limit::Call).await?;
        Ok(SandboxStatus {
            pid: answer.pid,
            state: answer.state,
            info: answer.info.into_iter().collect(),
            created_at: time(answer.created_at),
            exited_at: time(answer.exited_at),
            extra: answer.extra.map(from_any),
            endpoint: Some(host.answer().endpoint()),
        })
    }

    async fn shutdown(&self, id: &SandboxId) -> Result<()> {
        let host = self.host(id)?;
        // While it is not known whether the shim lives, it cannot be told to end.
        host.shim()?;
        self.engine.end_sandbox(&host).await;
        Ok(())
    }

    async fn metrics(&self, id: &SandboxId) -> Result<Option<Metric>> {
        let request = wire::SandboxMetricsRequest { sandbox_id: id.to_string() };
        let answer: wire::SandboxMetricsResponse =
            self.call(id, "SandboxMetrics", request, Limit::Call).await?;
        answer.metrics.map(TryInto::try_into).transpose()
    }

    async fn update(&self, _update: SandboxUpdate) -> Result<()> {
        // The API of shims has no such call: what changes is in the record.
        Ok(())
    }
}
