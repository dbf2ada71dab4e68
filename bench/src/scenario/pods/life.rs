//! The stages of one pod's life.

use std::time::Instant;

use anyhow::Result;

use super::node::{self, NETWORKS, Networks, Node};
use crate::measure::Samples;
use crate::table::{Better, Table};

const STAGES: [&str; 3] = ["a pod made", "a pod made and its container started", "both stopped and removed"];

pub(crate) fn run(rounds: usize, table: &mut Table) -> Result<()> {
    for (networks, how) in NETWORKS {
        let figures = side_by_side(rounds, networks)?;
        for (what, pair) in STAGES.into_iter().zip(figures) {
            table.add(("pods", &format!("{what}, {how}"), "ms"), Better::Less, pair);
        }
    }
    Ok(())
}

/// The stages' figures, berth's and containerd's.
fn side_by_side(rounds: usize, networks: Networks) -> Result<[[Samples; 2]; 3]> {
    let (nodes, runtime) = (node::both(networks)?, node::runtime()?);
    let mut figures = [const { [const { None }; 2] }; 3];
    // The first round warms up and does not count.
    for round in 0..=rounds {
        for (side, node) in nodes.iter().enumerate() {
            let took = runtime.block_on(life(node, round))?;
            for (figure, milliseconds) in figures.iter_mut().zip(took).filter(|_| round > 0) {
                figure[side].get_or_insert_with(Samples::default).push(milliseconds);
            }
        }
    }
    Ok(figures.map(|pair| pair.map(Option::unwrap_or_default)))
}

/// Takes a pod with one container through its life; the milliseconds of each stage.
async fn life(node: &Node, round: usize) -> Result<[f64; 3]> {
    let mut client = node.connect().await?;
    let began = Instant::now();
    let sandbox = node::make(&mut client, round).await?;
    let made = began.elapsed();
    let pod = node::fill(&mut client, round, sandbox).await?;
    let started = began.elapsed();
    let ending = Instant::now();
    node::remove(&mut client, pod).await?;
    Ok([made, started, ending.elapsed()].map(|time| time.as_secs_f64() * 1e3))
}
