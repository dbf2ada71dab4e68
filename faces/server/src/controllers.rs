//! `containerd.services.sandbox.v1.Controller`: what runs sandboxes, each by its name.

use std::sync::Arc;
use std::time::Duration;

use berth_core::{CreateSandbox, SandboxController, Scope};
use berth_proto as proto;
use berth_types::{Error, FieldMask, Namespace, RuntimeInfo, Sandbox, SandboxId, SandboxUpdate};
use proto::containerd::events as told;
use proto::containerd::services::sandbox::v1::{self as wire, controller_server};
use proto::convert::{any, from_any, from_event, labels, mounts_from, pack, timestamp};
use proto::prost::Name;
use tonic::{Request, Response, Status};

use crate::headers::scope;
use crate::shared::{Shared, existing, ok, required};

/// The service.
pub(crate) struct Controllers(pub(crate) Shared);

impl Controllers {
    fn controller(&self, scope: &Scope, name: &str) -> Result<Arc<dyn SandboxController>, Status> {
        if name.is_empty() {
            return ok(Err(Error::invalid_argument("sandbox controller name can not be empty")));
        }
        ok(self.0.catalog.controller(name, scope))
    }

    /// The controller and the sandbox that a request means.
    fn named(
        &self,
        scope: &Scope,
        sandboxer: &str,
        id: &str,
    ) -> Result<(Arc<dyn SandboxController>, SandboxId), Status> {
        Ok((self.controller(scope, sandboxer)?, existing("sandbox", id)?))
    }

    /// What tells an event of a sandbox.
    fn tell<M: Name>(
        &self,
        namespace: Namespace,
        topic: &str,
        message: &M,
    ) -> impl Future<Output = berth_types::Result<()>> + use<M> {
        let (events, event) = (self.0.catalog.events(), from_event(topic.to_owned(), pack(message)));
        async move { events.publish(&namespace, event).await }
    }
}

#[tonic::async_trait]
impl controller_server::Controller for Controllers {
    async fn create(
        &self,
        request: Request<wire::ControllerCreateRequest>,
    ) -> Result<Response<wire::ControllerCreateResponse>, Status> {
        let scope = scope(&request)?;
        let wire::ControllerCreateRequest {
            sandbox_id,
            rootfs,
            options,
            netns_path,
            annotations,
            sandbox,
            sandboxer,
        } = request.into_inner();
        let controller = self.controller(&scope, &sandboxer)?;
        let id: SandboxId = ok(sandbox_id.parse())?;
        let sandbox = match sandbox {
            Some(sandbox) => ok(Sandbox::try_from(sandbox))?,
            None => Sandbox::new(id, RuntimeInfo::default()),
        };
        let create = CreateSandbox {
            sandbox,
            rootfs: mounts_from(rootfs),
            options: options.map(from_any),
            network: netns_path,
            annotations: annotations.into_iter().collect(),
        };
        let event = told::SandboxCreate { sandbox_id: sandbox_id.clone() };
        let tell = self.tell(scope.namespace, "/sandboxes/create", &event);
        let change = async move {
            controller.create(create).await?;
            tell.await?;
            Ok(wire::ControllerCreateResponse { sandbox_id })
        };
        self.0.mutations.run(change).await
    }

    async fn start(
        &self,
        request: Request<wire::ControllerStartRequest>,
    ) -> Result<Response<wire::ControllerStartResponse>, Status> {
        let scope = scope(&request)?;
        let wire::ControllerStartRequest { sandbox_id, sandboxer } = request.into_inner();
        let (controller, id) = self.named(&scope, &sandboxer, &sandbox_id)?;
        let event = told::SandboxStart { sandbox_id: sandbox_id.clone() };
        let tell = self.tell(scope.namespace, "/sandboxes/start", &event);
        let change = async move {
            let started = controller.start(&id).await?;
            tell.await?;
            let endpoint = started.endpoint.unwrap_or_default();
            Ok(wire::ControllerStartResponse {
                sandbox_id,
                pid: started.pid,
                created_at: timestamp(started.created_at),
                labels: labels(started.labels),
                address: endpoint.address,
                version: endpoint.version,
                spec: started.spec.map(any),
            })
        };
        self.0.mutations.run(change).await
    }

    async fn platform(
        &self,
        request: Request<wire::ControllerPlatformRequest>,
    ) -> Result<Response<wire::ControllerPlatformResponse>, Status> {
        let scope = scope(&request)?;
        let wire::ControllerPlatformRequest { sandbox_id, sandboxer } = request.into_inner();
        let (controller, id) = self.named(&scope, &sandboxer, &sandbox_id)?;
        let platform = Some(ok(controller.platform(&id).await)?.into());
        Ok(Response::new(wire::ControllerPlatformResponse { platform }))
    }

    async fn stop(
        &self,
        request: Request<wire::ControllerStopRequest>,
    ) -> Result<Response<wire::ControllerStopResponse>, Status> {
        let scope = scope(&request)?;
        let wire::ControllerStopRequest { sandbox_id, timeout_secs, sandboxer } = request.into_inner();
        let (controller, id) = self.named(&scope, &sandboxer, &sandbox_id)?;
        let change = async move {
            controller.stop(&id, Some(Duration::from_secs(timeout_secs.into()))).await?;
            Ok(wire::ControllerStopResponse {})
        };
        self.0.mutations.run(change).await
    }

    async fn wait(
        &self,
        request: Request<wire::ControllerWaitRequest>,
    ) -> Result<Response<wire::ControllerWaitResponse>, Status> {
        let scope = scope(&request)?;
        let wire::ControllerWaitRequest { sandbox_id, sandboxer } = request.into_inner();
        let (controller, id) = self.named(&scope, &sandboxer, &sandbox_id)?;
        let exit = ok(controller.wait(&id).await)?;
        let exited_at = timestamp(exit.at);
        let event = told::SandboxExit { sandbox_id, exit_status: exit.status, exited_at };
        ok(self.tell(scope.namespace, "/sandboxes/exit", &event).await)?;
        Ok(Response::new(wire::ControllerWaitResponse { exit_status: exit.status, exited_at }))
    }

    async fn status(
        &self,
        request: Request<wire::ControllerStatusRequest>,
    ) -> Result<Response<wire::ControllerStatusResponse>, Status> {
        let scope = scope(&request)?;
        let wire::ControllerStatusRequest { sandbox_id, verbose, sandboxer } = request.into_inner();
        let (controller, id) = self.named(&scope, &sandboxer, &sandbox_id)?;
        let status = ok(controller.status(&id, verbose).await)?;
        let endpoint = status.endpoint.unwrap_or_default();
        Ok(Response::new(wire::ControllerStatusResponse {
            sandbox_id,
            pid: status.pid,
            state: status.state,
            info: status.info.into_iter().collect(),
            created_at: timestamp(status.created_at),
            exited_at: timestamp(status.exited_at),
            extra: Some(status.extra.map(any).unwrap_or_default()),
            address: endpoint.address,
            version: endpoint.version,
        }))
    }

    async fn shutdown(
        &self,
        request: Request<wire::ControllerShutdownRequest>,
    ) -> Result<Response<wire::ControllerShutdownResponse>, Status> {
        let scope = scope(&request)?;
        let wire::ControllerShutdownRequest { sandbox_id, sandboxer } = request.into_inner();
        let (controller, id) = self.named(&scope, &sandboxer, &sandbox_id)?;
        let change = async move {
            controller.shutdown(&id).await?;
            Ok(wire::ControllerShutdownResponse {})
        };
        self.0.mutations.run(change).await
    }

    async fn metrics(
        &self,
        request: Request<wire::ControllerMetricsRequest>,
    ) -> Result<Response<wire::ControllerMetricsResponse>, Status> {
        let scope = scope(&request)?;
        let wire::ControllerMetricsRequest { sandbox_id, sandboxer } = request.into_inner();
        let (controller, id) = self.named(&scope, &sandboxer, &sandbox_id)?;
        let metrics = ok(controller.metrics(&id).await)?.map(Into::into);
        Ok(Response::new(wire::ControllerMetricsResponse { metrics }))
    }

    async fn update(
        &self,
        request: Request<wire::ControllerUpdateRequest>,
    ) -> Result<Response<wire::ControllerUpdateResponse>, Status> {
        let scope = scope(&request)?;
        let wire::ControllerUpdateRequest { sandboxer, sandbox, fields, .. } = request.into_inner();
        let controller = self.controller(&scope, &sandboxer)?;
        let sandbox = ok(required("the sandbox", sandbox)?.try_into())?;
        let update = SandboxUpdate { sandbox, mask: FieldMask::new(fields) };
        let change = async move {
            controller.update(update).await?;
            Ok(wire::ControllerUpdateResponse {})
        };
        self.0.mutations.run(change).await
    }
}
