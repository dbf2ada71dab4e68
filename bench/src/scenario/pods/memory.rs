//! What each running pod adds to the machine beside the processes that it is for.

use anyhow::{Context as _, Result};
use berth_proto::runtime::v1 as proto;
use testkit::processes;

use super::fleet;
use super::node::{self, Networks, Node, Pod};
use crate::measure::Samples;
use crate::memory::Memory;
use crate::table::{Better, Table};

/// How many pods.
const SIZE: usize = 100;
/// How many are started at a time.
const ABREAST: usize = 10;

pub(crate) fn run(_rounds: usize, table: &mut Table) -> Result<()> {
    let (nodes, runtime) = (node::both(Networks::InProcess)?, node::runtime()?);
    let mut rows = <[[Samples; 2]; 4]>::default();
    for (side, node) in nodes.iter().enumerate() {
        let pods = runtime.block_on(fleet::start(node, SIZE, ABREAST))?;
        let shims = shims(node)?;
        let pauses = runtime.block_on(pauses(node, &pods))?;
        let whole = Memory {
            private: shims.private + pauses.private,
            proportional: shims.proportional + pauses.proportional,
        };
        let figures = [shims.private, shims.proportional, whole.private, whole.proportional];
        for (row, figure) in rows.iter_mut().zip(figures) {
            row[side].push(figure as f64 / SIZE as f64);
        }
        runtime.block_on(fleet::remove(node, pods, ABREAST))?;
    }
    let what = [
        "per running pod (its shim), private dirty",
        "per running pod (its shim), proportional",
        "per running pod (shim and pause process), private dirty",
        "per running pod (shim and pause process), proportional",
    ];
    for (what, row) in what.into_iter().zip(rows) {
        table.add(("pod-memory", what, "KiB"), Better::Less, row);
    }
    Ok(())
}

fn shims(node: &Node) -> Result<Memory> {
    let tagged = processes::tagged(node.daemon.tag());
    Memory::of_all(tagged.iter().filter(|process| process.command.contains("shim")).map(|shim| shim.pid))
}

/// The pods' own processes; berth's pods have none.
async fn pauses(node: &Node, pods: &[Pod]) -> Result<Memory> {
    let mut client = node.connect().await?;
    let mut pids = Vec::new();
    for pod in pods {
        let request = proto::PodSandboxStatusRequest { pod_sandbox_id: pod.sandbox.clone(), verbose: true };
        let answer = client.pod_sandbox_status(request).await?.into_inner();
        let info = answer.info.get("info").context("a pod's status has no info")?;
        let info: serde_json::Value = serde_json::from_str(info)?;
        pids.extend(info["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0));
    }
    Memory::of_all(pids)
}
