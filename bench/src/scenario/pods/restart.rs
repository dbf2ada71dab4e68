//! From exec of the daemon to its first answer to a kubelet, and until all of two hundred pods are told to be ready, with
//! their containers running.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use berth_proto::runtime::v1 as proto;
use proto::{ContainerState, PodSandboxState};

use super::fleet;
use super::node::{self, Client, Networks};
use crate::measure::Samples;
use crate::table::{Better, Table};

/// How many pods.
const SIZE: usize = 200;
/// How many are started at a time.
const ABREAST: usize = 10;
/// How often a daemon that does not answer is asked again.
const AGAIN: Duration = Duration::from_millis(1);

pub(crate) fn run(rounds: usize, table: &mut Table) -> Result<()> {
    let (mut nodes, runtime) = (node::both(Networks::InProcess)?, node::runtime()?);
    let mut pods = Vec::new();
    for node in &nodes {
        pods.push(runtime.block_on(fleet::start(node, SIZE, ABREAST))?);
    }
    let (mut answers, mut wholes) = <([Samples; 2], [Samples; 2])>::default();
    for _ in 0..rounds.div_ceil(2) {
        for (side, node) in nodes.iter_mut().enumerate() {
            node.daemon.kill();
            let socket = node.daemon.address();
            let began = Instant::now();
            let asking =
                std::thread::spawn(move || -> Result<_> { node::runtime()?.block_on(ask(socket, began)) });
            node.daemon.restart();
            let asked = asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let (answer, whole) = asked?;
            answers[side].push_time(answer);
            wholes[side].push_time(whole);
        }
    }
    let what = format!("node restart with {SIZE} pods, first answer");
    table.add(("pod-restart", &what, "ms"), Better::Less, answers);
    let what = format!("node restart with {SIZE} pods, all of them ready");
    table.add(("pod-restart", &what, "ms"), Better::Less, wholes);
    for (node, pods) in nodes.iter().zip(pods) {
        runtime.block_on(fleet::remove(node, pods, ABREAST))?;
    }
    Ok(())
}

/// Asks until somebody answers, and until all pods are there; how long both took since `began`.
async fn ask(socket: PathBuf, began: Instant) -> Result<(Duration, Duration)> {
    let mut client = loop {
        if let Ok(mut client) = node::connect(&socket).await
            && client.version(proto::VersionRequest::default()).await.is_ok()
        {
            break client;
        }
        tokio::time::sleep(AGAIN).await;
    };
    let answered = began.elapsed();
    while !is_whole(&mut client).await? {
        tokio::time::sleep(AGAIN).await;
    }
    Ok((answered, began.elapsed()))
}

async fn is_whole(client: &mut Client) -> Result<bool> {
    let pods = client.list_pod_sandbox(proto::ListPodSandboxRequest::default()).await?.into_inner().items;
    let request = proto::ListContainersRequest::default();
    let containers = client.list_containers(request).await?.into_inner().containers;
    Ok(pods.iter().filter(|pod| pod.state() == PodSandboxState::SandboxReady).count() == SIZE
        && containers.iter().filter(|one| one.state() == ContainerState::ContainerRunning).count() == SIZE)
}
