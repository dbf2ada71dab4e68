//! A daemon that serves the CRI, with its images, its network, and a kubelet's requests.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use berth_proto::runtime::v1 as proto;
use proto::runtime_service_client::RuntimeServiceClient;
use testkit::image::{self, Image};
use testkit::{Daemon, Kind, Scratch, Setup, programs};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::machine;
use crate::subject;

/// What containerd makes a pod's own container of.
const PAUSE: &str = "berth.test/pause:1";

/// The cgroup above those of the pods.
const CGROUP: &str = "berth-bench-pods";

/// A client of a daemon.
pub(super) type Client = RuntimeServiceClient<Channel>;

/// Who makes the networks of berth's pods; those of containerd's are always made by programs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Networks {
    Programs,
    InProcess,
}

/// Both ways, and what the rows call them.
pub(super) const NETWORKS: [(Networks, &str); 2] =
    [(Networks::InProcess, "networks in process"), (Networks::Programs, "networks by programs")];

/// A daemon that runs pods.
pub(super) struct Node {
    pub(super) daemon: Daemon,
    /// The description of the network, and its addresses.
    _network: Scratch,
    /// Comes after the daemon, whose end is the end of the pods.
    _cgroups: Cgroups,
}

/// A kubelet removes the cgroups that it has named, so who stands in for one does.
struct Cgroups;

impl Drop for Cgroups {
    fn drop(&mut self) {
        testkit::cgroups::remove_tagged(CGROUP);
    }
}

/// A pod with one container, which runs.
pub(super) struct Pod {
    pub(super) sandbox: String,
    pub(super) container: String,
}

/// berth and containerd.
pub(super) fn both(networks: Networks) -> Result<[Node; 2]> {
    Ok([Node::start(Kind::Berth, networks)?, Node::start(Kind::Containerd, Networks::Programs)?])
}

/// What runs the requests: one thread, as little of the machine as can be.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

impl Node {
    fn start(kind: Kind, networks: Networks) -> Result<Self> {
        let folder = Scratch::new();
        let plugins = plugins()?;
        let list = serde_json::json!({
            "cniVersion": "1.0.0",
            "name": "bench",
            "berthInProcess": networks == Networks::InProcess,
            "plugins": [{
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": if kind == Kind::Berth { "10.98.0.0/16" } else { "10.99.0.0/16" }}]],
                    "dataDir": folder.path("leases"),
                },
            }],
        });
        let configurations = folder.path("networks");
        fs::create_dir(&configurations)?;
        fs::write(configurations.join("10-bench.conflist"), list.to_string())?;
        let config = format!(
            // A machine may not let its root lower scores, and the first process of containerd's pods has a low one.
            "[plugins.'io.containerd.grpc.v1.cri']\n sandbox_image = {PAUSE:?}\n restrict_oom_score_adj = true\n\
             [plugins.'io.containerd.grpc.v1.cri'.cni]\n bin_dir = {plugins:?}\n conf_dir = {configurations:?}\n"
        );
        let setup = Setup {
            log_level: Some("info".to_owned()),
            before: Some(machine::fresh_root),
            kubernetes: true,
            config,
            ..Setup::default()
        };
        let daemon = Daemon::with(kind, setup)?;
        let busybox = image::busybox()?;
        let pause = Image::clone(&busybox).named(PAUSE).cmd(&["/bin/sleep", "1000000"]);
        for (name, image) in [("busybox.tar", busybox), ("pause.tar", pause)] {
            let archive = daemon.scratch().file(name, image.oci_archive());
            let ctr = daemon.ctr()?.args(["--namespace", "k8s.io", "images", "import", "--local"]);
            ctr.arg(archive).ok();
        }
        Ok(Self { daemon, _network: folder, _cgroups: Cgroups })
    }

    /// A client with a connection of its own.
    pub(super) async fn connect(&self) -> Result<Client> {
        connect(&self.daemon.address()).await
    }
}

/// A client at a socket.
pub(super) async fn connect(socket: &Path) -> Result<Client> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
    });
    // The address is not used: the connector knows the socket.
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await?;
    Ok(RuntimeServiceClient::new(channel))
}

/// The newest reference plugins; Debian's where there was no Go to build them.
fn plugins() -> Result<PathBuf> {
    let folders = ["cni-1.9.1/bin", "cni-1.1.1/usr/lib/cni"].map(|folder| programs::peers().join(folder));
    let there = folders.into_iter().find(|folder| folder.join("ptp").is_file());
    there.context("the CNI plugins are not there: cargo xtask peers")
}

/// What a kubelet asks for, of pod number `number`.
fn sandbox(number: usize) -> proto::PodSandboxConfig {
    proto::PodSandboxConfig {
        metadata: Some(proto::PodSandboxMetadata {
            name: format!("bench-{number}"),
            uid: format!("uid-{number}"),
            namespace: "bench".to_owned(),
            attempt: 0,
        }),
        hostname: "bench".to_owned(),
        linux: Some(proto::LinuxPodSandboxConfig {
            cgroup_parent: format!("/{CGROUP}/{number}"),
            security_context: Some(proto::LinuxSandboxSecurityContext {
                namespace_options: Some(own_processes()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn container() -> proto::ContainerConfig {
    proto::ContainerConfig {
        metadata: Some(proto::ContainerMetadata { name: "one".to_owned(), attempt: 0 }),
        image: Some(proto::ImageSpec { image: subject::IMAGE.to_owned(), ..Default::default() }),
        command: vec!["/bin/sleep".to_owned(), "1000000".to_owned()],
        linux: Some(proto::LinuxContainerConfig {
            security_context: Some(proto::LinuxContainerSecurityContext {
                namespace_options: Some(own_processes()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// As a kubelet asks for a pod that says nothing.
fn own_processes() -> proto::NamespaceOption {
    proto::NamespaceOption { pid: proto::NamespaceMode::Container.into(), ..Default::default() }
}

/// Makes a pod without a container; gives its id.
pub(super) async fn make(client: &mut Client, number: usize) -> Result<String> {
    let request = proto::RunPodSandboxRequest { config: Some(sandbox(number)), ..Default::default() };
    Ok(client.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
}

/// Makes and starts a pod's container.
pub(super) async fn fill(client: &mut Client, number: usize, sandbox_id: String) -> Result<Pod> {
    let request = proto::CreateContainerRequest {
        pod_sandbox_id: sandbox_id.clone(),
        config: Some(container()),
        sandbox_config: Some(sandbox(number)),
    };
    let container = client.create_container(request).await?.into_inner().container_id;
    client.start_container(proto::StartContainerRequest { container_id: container.clone() }).await?;
    Ok(Pod { sandbox: sandbox_id, container })
}

/// Stops and removes a pod and its container, as a kubelet does that.
pub(super) async fn remove(client: &mut Client, pod: Pod) -> Result<()> {
    let Pod { sandbox: pod_sandbox_id, container: container_id } = pod;
    let request = proto::StopContainerRequest { container_id: container_id.clone(), timeout: 0 };
    client.stop_container(request).await?;
    client.remove_container(proto::RemoveContainerRequest { container_id }).await?;
    let request = proto::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
    client.stop_pod_sandbox(request).await?;
    client.remove_pod_sandbox(proto::RemovePodSandboxRequest { pod_sandbox_id }).await?;
    Ok(())
}
