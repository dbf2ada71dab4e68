//! What is streamed: commands, first processes, ports of pods. The server that speaks to `kubectl` is
//! [`berth_streaming`]; here is what it reaches.
//!
//! The daemon is on the path of these streams, since a kubelet's interface wants it so; of a container's own output
//! and log it is not.

mod attach;
mod exec;
mod forward;

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use berth_proto::runtime::v1 as proto;
use berth_streaming::{
    AttachRequest, ExecRequest, PortForwardRequest, PortStream, ProcessStreams, Sessions, Urls, Wanted,
};
use berth_types::{Error, Result, SandboxId};

use crate::Cri;

/// The sessions of an interface, which may have been closed while somebody comes with a URL.
pub(crate) struct Streams(pub(crate) Weak<Cri>);

impl Streams {
    fn cri(&self) -> Result<Arc<Cri>> {
        self.0.upgrade().ok_or_else(|| Error::unavailable("the daemon is ending"))
    }
}

#[async_trait]
impl Sessions for Streams {
    async fn exec(&self, request: ExecRequest, streams: ProcessStreams) -> Result<i32> {
        self.cri()?.exec_session(request, streams).await
    }

    async fn attach(&self, request: AttachRequest, streams: ProcessStreams) -> Result<()> {
        self.cri()?.attach_session(request, streams).await
    }

    async fn port_forward(&self, pod: SandboxId, port: u16, stream: PortStream) -> Result<()> {
        self.cri()?.forward_session(&pod, port, stream).await
    }
}

impl Cri {
    async fn urls(self: &Arc<Self>) -> Result<&Urls> {
        self.listen().await?;
        self.urls.get().ok_or_else(|| Error::unavailable("the streaming server is not there yet"))
    }

    /// Where somebody can run a command.
    pub(crate) async fn exec_url(self: &Arc<Self>, request: proto::ExecRequest) -> Result<String> {
        let container = self.container(&request.container_id)?;
        container.must_run()?;
        let wanted =
            Wanted { tty: request.tty, stdin: request.stdin, stdout: request.stdout, stderr: request.stderr };
        self.urls().await?.exec(ExecRequest { container: container.id.clone(), command: request.cmd, wanted })
    }

    /// Where somebody can attach.
    pub(crate) async fn attach_url(self: &Arc<Self>, request: &proto::AttachRequest) -> Result<String> {
        let container = self.container(&request.container_id)?;
        container.must_run()?;
        let wanted =
            Wanted { tty: request.tty, stdin: request.stdin, stdout: request.stdout, stderr: request.stderr };
        self.urls().await?.attach(AttachRequest { container: container.id.clone(), wanted })
    }

    /// Where somebody can reach ports.
    pub(crate) async fn port_forward_url(
        self: &Arc<Self>,
        request: &proto::PortForwardRequest,
    ) -> Result<String> {
        let pod = self.pod(&request.pod_sandbox_id)?;
        if !pod.is_ready() {
            return Err(Error::failed_precondition(format!("pod sandbox {} is not ready", pod.id)));
        }
        let port = |port: &i32| {
            u16::try_from(*port).map_err(|_| Error::invalid_argument(format!("{port} is no port")))
        };
        let ports = request.port.iter().map(port).collect::<Result<_>>()?;
        self.urls().await?.port_forward(PortForwardRequest { pod: pod.id.clone(), ports })
    }
}
