//! A hundred pods with a container each, all at once and one after the other, and their removal.

use std::time::Instant;

use anyhow::Result;
use futures::StreamExt as _;
use futures::stream::{self, TryStreamExt as _};

use super::node::{self, Client, NETWORKS, Networks, Node, Pod};
use crate::measure::Samples;
use crate::table::{Better, Table};

/// How many pods.
const SIZE: usize = 100;
/// How they are asked for.
const WAYS: [(&str, usize); 2] = [("at once", SIZE), ("one after the other", 1)];

pub(crate) fn run(rounds: usize, table: &mut Table) -> Result<()> {
    for (networks, how) in NETWORKS {
        for ((way, _), [starts, removals]) in WAYS.into_iter().zip(side_by_side(rounds, networks)?) {
            let what = format!("{SIZE} pods started {way}, {how}");
            table.add(("pod-fleet", &what, "ms"), Better::Less, starts);
            let what = format!("{SIZE} pods removed {way}, {how}");
            table.add(("pod-fleet", &what, "ms"), Better::Less, removals);
        }
    }
    Ok(())
}

/// For each way the times of start and removal, berth's and containerd's.
fn side_by_side(rounds: usize, networks: Networks) -> Result<[[[Samples; 2]; 2]; 2]> {
    let (nodes, runtime) = (node::both(networks)?, node::runtime()?);
    let mut figures = <[[[Samples; 2]; 2]; 2]>::default();
    // What is made for the first pod of a daemon is not to be in the figures.
    for node in &nodes {
        runtime.block_on(async {
            let pods = start(node, 1, 1).await?;
            remove(node, pods, 1).await
        })?;
    }
    for _ in 0..rounds.div_ceil(10) {
        for (way, (_, abreast)) in WAYS.into_iter().enumerate() {
            for (side, node) in nodes.iter().enumerate() {
                let began = Instant::now();
                let pods = runtime.block_on(start(node, SIZE, abreast))?;
                figures[way][0][side].push_time(began.elapsed());
                let began = Instant::now();
                runtime.block_on(remove(node, pods, abreast))?;
                figures[way][1][side].push_time(began.elapsed());
            }
        }
    }
    Ok(figures)
}

/// Starts `count` pods, `abreast` at a time.
pub(super) async fn start(node: &Node, count: usize, abreast: usize) -> Result<Vec<Pod>> {
    let client = node.connect().await?;
    let start = |number: usize| {
        let mut client: Client = client.clone();
        async move {
            let sandbox = node::make(&mut client, number).await?;
            node::fill(&mut client, number, sandbox).await
        }
    };
    stream::iter(0..count).map(start).buffer_unordered(abreast).try_collect().await
}

/// Removes them in the same way.
pub(super) async fn remove(node: &Node, pods: Vec<Pod>, abreast: usize) -> Result<()> {
    let client = node.connect().await?;
    let remove = |pod: Pod| {
        let mut client: Client = client.clone();
        async move { node::remove(&mut client, pod).await }
    };
    stream::iter(pods).map(remove).buffer_unordered(abreast).try_collect().await
}
