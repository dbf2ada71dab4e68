//! Pods as a kubelet runs them, over the CRI with one client of ours on both: containerd with runc and the reference
//! CNI plugins, berth once with the same plugins' programs and once without.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use berth_proto::runtime::v1 as proto;
use proto::runtime_service_client::RuntimeServiceClient;
use testkit::image::{self, Image};
use testkit::{Daemon, Kind, Scratch, Setup, programs};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::machine;
use crate::measure::Samples;
use crate::subject;
use crate::table::{Better, Table};

/// What containerd makes a pod's own container of.
const PAUSE: &str = "berth.test/pause:1";
const STAGES: [&str; 3] = ["a pod made", "a pod made and its container started", "both stopped and removed"];

/// Who makes the networks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Networks {
    Programs,
    InProcess,
}

pub(super) fn run(rounds: usize, table: &mut Table) -> Result<()> {
    for (networks, how) in
        [(Networks::InProcess, "networks in process"), (Networks::Programs, "networks by programs")]
    {
        let figures = side_by_side(rounds, networks)?;
        for (what, pair) in STAGES.into_iter().zip(figures) {
            table.add(("pods", &format!("{what}, {how}"), "ms"), Better::Less, pair);
        }
    }
    Ok(())
}

/// The stages' figures, berth's and containerd's.
fn side_by_side(rounds: usize, networks: Networks) -> Result<[[Samples; 2]; 3]> {
    let daemons = [daemon(Kind::Berth, networks)?, daemon(Kind::Containerd, Networks::Programs)?];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut figures = [const { [const { None }; 2] }; 3];
    // The first round warms up and does not count.
    for round in 0..=rounds {
        for (side, (daemon, _)) in daemons.iter().enumerate() {
            let took = runtime.block_on(life(daemon, round))?;
            for (figure, milliseconds) in figures.iter_mut().zip(took).filter(|_| round > 0) {
                figure[side].get_or_insert_with(Samples::default).push(milliseconds);
            }
        }
    }
    Ok(figures.map(|pair| pair.map(Option::unwrap_or_default)))
}

/// A daemon that serves the CRI, with its images and the folder of its networks.
fn daemon(kind: Kind, networks: Networks) -> Result<(Daemon, Scratch)> {
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
        "[plugins.'io.containerd.grpc.v1.cri']\n sandbox_image = {PAUSE:?}\n\
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
    Ok((daemon, folder))
}

fn plugins() -> Result<PathBuf> {
    let folder = programs::peers().join("cni-1.1.1/usr/lib/cni");
    let there = folder.join("ptp").is_file().then_some(folder);
    there.context("the CNI plugins are not there: cargo xtask peers --peer cni")
}

/// Takes a pod with one container through its life; the milliseconds of each stage.
async fn life(daemon: &Daemon, round: usize) -> Result<[f64; 3]> {
    let mut client = connect(&daemon.address()).await?;
    let config = proto::PodSandboxConfig {
        metadata: Some(proto::PodSandboxMetadata {
            name: format!("bench-{round}"),
            uid: format!("uid-{round}"),
            namespace: "bench".to_owned(),
            attempt: 0,
        }),
        hostname: "bench".to_owned(),
        linux: Some(proto::LinuxPodSandboxConfig {
            cgroup_parent: format!("/berth-bench-pods/{round}"),
            security_context: Some(proto::LinuxSandboxSecurityContext {
                namespace_options: Some(own_processes()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let began = Instant::now();
    let request = proto::RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
    let pod_sandbox_id = client.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
    let made = began.elapsed();

    let container = proto::ContainerConfig {
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
    };
    let request = proto::CreateContainerRequest {
        pod_sandbox_id: pod_sandbox_id.clone(),
        config: Some(container),
        sandbox_config: Some(config),
    };
    let container_id = client.create_container(request).await?.into_inner().container_id;
    client.start_container(proto::StartContainerRequest { container_id: container_id.clone() }).await?;
    let started = began.elapsed();

    let ending = Instant::now();
    let request = proto::StopContainerRequest { container_id: container_id.clone(), timeout: 0 };
    client.stop_container(request).await?;
    client.remove_container(proto::RemoveContainerRequest { container_id }).await?;
    let request = proto::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
    client.stop_pod_sandbox(request).await?;
    client.remove_pod_sandbox(proto::RemovePodSandboxRequest { pod_sandbox_id }).await?;
    Ok([made, started, ending.elapsed()].map(|time| time.as_secs_f64() * 1e3))
}

/// As a kubelet asks for a pod that says nothing.
fn own_processes() -> proto::NamespaceOption {
    proto::NamespaceOption { pid: proto::NamespaceMode::Container.into(), ..Default::default() }
}

async fn connect(socket: &Path) -> Result<RuntimeServiceClient<Channel>> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
    });
    // The address is not used: the connector knows the socket.
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await?;
    Ok(RuntimeServiceClient::new(channel))
}
