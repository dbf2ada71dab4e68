//! Pods of a controller that is another process (`[proxy_plugins]`): here one that has a second daemon's shims host them.

use berth_proto::containerd::services::sandbox::v1 as wire;
use e2e::{Node, container, crictl, pod};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use testkit::{Daemon, Kind, Setup, need, programs};
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Request, Response, Status};
use wire::controller_client::ControllerClient;
use wire::controller_server::{Controller, ControllerServer};

/// Passes each call on, to the controller `shim` of the other daemon.
struct Passing(ControllerClient<Channel>);

macro_rules! passing {
    ($($name:ident $request:ident $answer:ident;)*) => {
        #[tonic::async_trait]
        impl Controller for Passing {$(
            async fn $name(&self, request: Request<wire::$request>) -> Result<Response<wire::$answer>, Status> {
                let namespace = request.metadata().get("containerd-namespace").cloned();
                let mut message = request.into_inner();
                assert_eq!(message.sandboxer, "far", "the controller is asked by its name");
                "shim".clone_into(&mut message.sandboxer);
                let mut request = Request::new(message);
                request.metadata_mut().insert("containerd-namespace", namespace.expect("calls have one"));
                self.0.clone().$name(request).await
            }
        )*}
    };
}

passing! {
    create ControllerCreateRequest ControllerCreateResponse;
    start ControllerStartRequest ControllerStartResponse;
    platform ControllerPlatformRequest ControllerPlatformResponse;
    stop ControllerStopRequest ControllerStopResponse;
    wait ControllerWaitRequest ControllerWaitResponse;
    status ControllerStatusRequest ControllerStatusResponse;
    shutdown ControllerShutdownRequest ControllerShutdownResponse;
    metrics ControllerMetricsRequest ControllerMetricsResponse;
    update ControllerUpdateRequest ControllerUpdateResponse;
}

#[test]
fn a_controller_that_is_another_process_runs_pods() {
    let is_there = programs::containerd("containerd-shim-runc-v2").is_some();
    if need::that(is_there, "containerd's shim (cargo xtask peers)").is_err()
        || need::program("crictl").and(need::program("runc")).is_err()
    {
        return;
    }
    let more = "[plugins.'io.containerd.grpc.v1.cri'.containerd]\ndefault_runtime_name = 'far'\n\
                [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.far]\n\
                runtime_type = 'SCRATCH/sandbox-shim'\nsandboxer = 'far'\n\
                [proxy_plugins.far]\ntype = 'sandbox'\naddress = 'SCRATCH/far.sock'\n";
    Node::run_with(more, |node| {
        let link = std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sandbox-shim"), node.path("sandbox-shim"));
        link.expect("the folder takes a link");
        let Ok(other) = Daemon::with(Kind::Berth, Setup::default()) else { return };
        let (socket, at) = (other.address(), node.path("far.sock"));
        let server = node.spawn(async move {
            let connector = tower::service_fn(move |_: Uri| {
                let socket = socket.clone();
                async move { UnixStream::connect(socket).await.map(TokioIo::new) }
            });
            let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
            let listener = UnixListener::bind(at).expect("the folder takes a socket");
            let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
            let service = ControllerServer::new(Passing(ControllerClient::new(channel)));
            Server::builder().add_service(service).serve_with_incoming(incoming).await.expect("it serves");
        });
        testkit::wait::soon("the controller", || node.path("far.sock").exists());

        assert!(node.ctr("plugins ls").ok().contains("far"));
        let of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        let one = node.started(&id, &of, &container("one", &["sleep", "1000"])).expect("it starts");
        assert_eq!(node.sh(&one, "echo in"), "in\n");
        let told: Value =
            serde_json::from_str(&crictl(&node.daemon, &format!("inspectp {id}")).ok()).expect("JSON");
        assert!(told["host"].to_string().contains("PodSandboxConfig"), "{told}");
        node.daemon.kill();
        node.daemon.restart();
        assert_eq!(node.sh(&one, "echo again"), "again\n");
        node.away(&id);
        node.demand_bare();

        server.abort();
        other.finish();
    });
}
