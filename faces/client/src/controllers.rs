//! A controller of sandboxes over the channel.

use std::time::Duration;

use async_trait::async_trait;
use berth_core::{CreateSandbox, Endpoint, SandboxController, SandboxInstance, SandboxStatus};
use berth_proto::containerd::services::sandbox::v1 as proto;
use berth_proto::convert::{any, from_any, from_labels, mounts, time};
use berth_types::{Error, ErrorKind, Exit, Metric, Platform, Result, SandboxId, SandboxUpdate};

use crate::bound::{Bound, FOREVER, RECORDS, WORK, call};

type Service = proto::controller_client::ControllerClient<tonic::transport::Channel>;

/// How long it is from an end of the connection to the next try, at first and at most.
const AGAIN: [Duration; 2] = [Duration::from_millis(128), Duration::from_secs(4)];

pub(crate) struct Remote {
    pub(crate) bound: Bound,
    /// Of the controllers at that socket.
    pub(crate) name: String,
}

fn endpoint(address: String, version: u32) -> Option<Endpoint> {
    (!address.is_empty()).then_some(Endpoint { address, version })
}

#[async_trait]
impl SandboxController for Remote {
    async fn create(&self, request: CreateSandbox) -> Result<()> {
        let CreateSandbox { sandbox, rootfs, options, network, annotations } = request;
        let message = proto::ControllerCreateRequest {
            sandbox_id: sandbox.id.to_string(),
            rootfs: mounts(rootfs),
            options: options.map(any),
            netns_path: network,
            annotations: annotations.into_iter().collect(),
            sandbox: Some(sandbox.into()),
            sandboxer: self.name.clone(),
        };
        call!(self.bound, Service, create, message, WORK).map(drop)
    }

    async fn start(&self, id: &SandboxId) -> Result<SandboxInstance> {
        let message =
            proto::ControllerStartRequest { sandbox_id: id.to_string(), sandboxer: self.name.clone() };
        let answer = call!(self.bound, Service, start, message, WORK)?;
        Ok(SandboxInstance {
            pid: answer.pid,
            created_at: time(answer.created_at),
            labels: from_labels(answer.labels),
            endpoint: endpoint(answer.address, answer.version),
            spec: answer.spec.map(from_any),
        })
    }

    async fn platform(&self, id: &SandboxId) -> Result<Platform> {
        let message =
            proto::ControllerPlatformRequest { sandbox_id: id.to_string(), sandboxer: self.name.clone() };
        let answer = call!(self.bound, Service, platform, message, RECORDS)?;
        Ok(answer.platform.map(Into::into).unwrap_or_default())
    }

    async fn stop(&self, id: &SandboxId, patience: Option<Duration>) -> Result<()> {
        let seconds = patience.unwrap_or_default().as_secs();
        let message = proto::ControllerStopRequest {
            sandbox_id: id.to_string(),
            timeout_secs: u32::try_from(seconds).unwrap_or(u32::MAX),
            sandboxer: self.name.clone(),
        };
        call!(self.bound, Service, stop, message, WORK).map(drop)
    }

    /// A controller may be started again meanwhile; it is asked again then, as containerd does.
    async fn wait(&self, id: &SandboxId) -> Result<Exit> {
        let message =
            proto::ControllerWaitRequest { sandbox_id: id.to_string(), sandboxer: self.name.clone() };
        let [mut pause, longest] = AGAIN;
        loop {
            let answered: Result<_, Error> = call!(self.bound, Service, wait, message.clone(), FOREVER);
            match answered {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(longest);
                }
                answered => {
                    let answer = answered?;
                    return Ok(Exit { pid: 0, status: answer.exit_status, at: time(answer.exited_at) });
                }
            }
        }
    }

    async fn status(&self, id: &SandboxId, verbose: bool) -> Result<SandboxStatus> {
        let message = proto::ControllerStatusRequest {
            sandbox_id: id.to_string(),
            verbose,
            sandboxer: self.name.clone(),
        };
        let answer = call!(self.bound, Service, status, message, RECORDS)?;
        Ok(SandboxStatus {
            pid: answer.pid,
            state: answer.state,
            info: answer.info.into_iter().collect(),
            created_at: time(answer.created_at),
            exited_at: time(answer.exited_at),
            extra: answer.extra.map(from_any),
            endpoint: endpoint(answer.address, answer.version),
        })
    }

    async fn shutdown(&self, id: &SandboxId) -> Result<()> {
        let message =
            proto::ControllerShutdownRequest { sandbox_id: id.to_string(), sandboxer: self.name.clone() };
        call!(self.bound, Service, shutdown, message, WORK).map(drop)
    }

    async fn metrics(&self, id: &SandboxId) -> Result<Option<Metric>> {
        let message =
            proto::ControllerMetricsRequest { sandbox_id: id.to_string(), sandboxer: self.name.clone() };
        let answer = call!(self.bound, Service, metrics, message, RECORDS)?;
        answer.metrics.map(TryInto::try_into).transpose()
    }

    async fn update(&self, update: SandboxUpdate) -> Result<()> {
        let SandboxUpdate { sandbox, mask } = update;
        let message = proto::ControllerUpdateRequest {
            sandbox_id: sandbox.id.to_string(),
            sandboxer: self.name.clone(),
            sandbox: Some(sandbox.into()),
            fields: mask.paths().to_vec(),
        };
        call!(self.bound, Service, update, message, RECORDS).map(drop)
    }
}
