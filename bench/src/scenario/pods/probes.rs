//! Probes of a kubelet: a command that does nothing, a hundred times a second for a minute. Counted is the processors'
//! time of daemon and shims with all that they started for it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use berth_proto::runtime::v1 as proto;
use testkit::processes;
use tokio::task::JoinSet;

use super::node::{self, Networks, Node};
use crate::measure::Samples;
use crate::table::{Better, Table};

/// How long it takes with the usual twenty rounds.
const MINUTE: Duration = Duration::from_secs(60);
const USUAL: usize = 20;
/// From one probe to the next.
const PACE: Duration = Duration::from_millis(10);
/// Probes that may be on their way: who cannot keep up is asked less often.
const ABREAST: usize = 16;

pub(crate) fn run(rounds: usize, table: &mut Table) -> Result<()> {
    let (nodes, runtime) = (node::both(Networks::InProcess)?, node::runtime()?);
    let time = MINUTE.mul_f64(rounds.min(USUAL) as f64 / USUAL as f64);
    let (mut costs, mut rates, mut seconds) = <([Samples; 2], [Samples; 2], [Samples; 2])>::default();
    for (side, node) in nodes.iter().enumerate() {
        let (used, done, took) = runtime.block_on(probe(node, time))?;
        costs[side].push(used.as_secs_f64() * 1e3 / done as f64);
        rates[side].push(done as f64 / took.as_secs_f64());
        seconds[side].push(used.as_secs_f64() / took.as_secs_f64() * MINUTE.as_secs_f64());
    }
    table.add(("pod-probes", "exec probe, processors' time of each", "ms"), Better::Less, costs);
    table.add(("pod-probes", "exec probes answered of 100 a second", "1/s"), Better::More, rates);
    table.add(("pod-probes", "processors' time of a minute of these", "s"), Better::Less, seconds);
    Ok(())
}

/// The processors' time that was used, the probes that were answered, and how long that took.
async fn probe(node: &Node, time: Duration) -> Result<(Duration, usize, Duration)> {
    let mut client = node.connect().await?;
    let sandbox = node::make(&mut client, 0).await?;
    let pod = node::fill(&mut client, 0, sandbox).await?;
    let request = proto::ExecSyncRequest {
        container_id: pod.container.clone(),
        cmd: vec!["/bin/true".to_owned()],
        timeout: 60,
    };
    // What is made for the first probe is not to be in the figures.
    client.exec_sync(request.clone()).await?;
    let before = used(node)?;
    let began = Instant::now();
    let (mut underway, mut done) = (JoinSet::new(), 0);
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    while began.elapsed() < time {
        pace.tick().await;
        if underway.len() >= ABREAST {
            answered(underway.join_next().await)?;
            done += 1;
        }
        let (mut client, request) = (client.clone(), request.clone());
        underway.spawn(async move { client.exec_sync(request).await });
    }
    while let Some(answer) = underway.join_next().await {
        answered(Some(answer))?;
        done += 1;
    }
    let took = began.elapsed();
    let used = used(node)?.saturating_sub(before);
    node::remove(&mut client, pod).await?;
    Ok((used, done, took))
}

type Answer = Result<tonic::Response<proto::ExecSyncResponse>, tonic::Status>;

fn answered(answer: Option<Result<Answer, tokio::task::JoinError>>) -> Result<()> {
    let answer = answer.context("no probe is under way")???.into_inner();
    anyhow::ensure!(answer.exit_code == 0, "a probe ended with {}", answer.exit_code);
    Ok(())
}

/// The time of the daemon and its shims, and of their children that have ended: `utime` to `cstime` of proc_pid_stat(5).
fn used(node: &Node) -> Result<Duration> {
    let daemon = node.daemon.pid().context("the daemon does not run")?;
    let tagged = processes::tagged(node.daemon.tag());
    let shims = tagged.iter().filter(|process| process.command.contains("shim")).map(|shim| shim.pid);
    let mut ticks = 0;
    for pid in shims.chain([daemon]) {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name is in parentheses and may hold anything, so fields count from the last one.
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
        ticks +=
            fields.split_whitespace().skip(11).take(4).filter_map(|one| one.parse::<u64>().ok()).sum::<u64>();
    }
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}
