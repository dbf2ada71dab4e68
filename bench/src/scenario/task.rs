//! The stages of a task over the API, with one client of ours on both: what a command line of any kind waits for.

use std::time::Instant;

use anyhow::Result;
use berth_client::Client;
use berth_core::{Catalog, CreateTask, Scope};
use berth_types::{ContainerId, KillTarget, Mount, ProcessRef, Stdio};

use crate::measure::Samples;
use crate::subject::{self, Subject};
use crate::table::{Better, Table};

/// The container that is made a task of, again and again.
const CONTAINER: &str = "task";
const STAGES: [&str; 4] = ["create a task", "start it", "kill it and see its end", "delete it"];

pub(super) fn run(rounds: usize, table: &mut Table) -> Result<()> {
    let subjects = subject::both()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mounts = subjects.each_ref().map(|subject| -> Result<Vec<Mount>> {
        subject.ctr()?.args(["containers", "create", subject::IMAGE, CONTAINER, "sleep", "3600"]).ok();
        runtime.block_on(mounts(subject))
    });
    let [berth, containerd] = mounts;
    let mounts = [berth?, containerd?];
    let mut figures = [const { [const { None }; 4] }; 2];
    // The first round warms up and does not count.
    for round in 0..=rounds {
        for ((subject, mounts), figures) in subjects.iter().zip(&mounts).zip(&mut figures) {
            let took = runtime.block_on(stages(subject, mounts))?;
            for (figure, milliseconds) in figures.iter_mut().zip(took).filter(|_| round > 0) {
                figure.get_or_insert_with(Samples::default).push(milliseconds);
            }
        }
    }
    let [berth, containerd] = figures.map(|figures| figures.map(Option::unwrap_or_default));
    for ((what, berth), containerd) in STAGES.into_iter().zip(berth).zip(containerd) {
        table.add(("task", what, "ms"), Better::Less, [berth, containerd]);
    }
    Ok(())
}

/// How the container's root filesystem is mounted.
async fn mounts(subject: &Subject) -> Result<Vec<Mount>> {
    let (client, scope) = (Client::connect(subject.daemon.address()), scope(subject)?);
    let snapshots = client.snapshotter(&"overlayfs".parse()?, &scope)?;
    Ok(snapshots.mounts(&CONTAINER.parse()?).await?)
}

/// Takes a task through its life; the milliseconds of each stage.
async fn stages(subject: &Subject, rootfs: &[Mount]) -> Result<[f64; 4]> {
    let tasks = Client::connect(subject.daemon.address()).tasks(&scope(subject)?);
    let container: ContainerId = CONTAINER.parse()?;
    let init = ProcessRef::init(container.clone());
    let request = CreateTask {
        container: container.clone(),
        rootfs: rootfs.to_vec(),
        stdio: Stdio::default(),
        checkpoint: None,
        options: None,
        runtime_path: String::new(),
        endpoint: None,
    };
    let mut moments = vec![Instant::now()];
    tasks.create(request).await?;
    moments.push(Instant::now());
    tasks.start(&init).await?;
    moments.push(Instant::now());
    tasks.kill(&init, 9, KillTarget::Process).await?;
    tasks.wait(&init).await?;
    moments.push(Instant::now());
    tasks.delete(&container).await?;
    moments.push(Instant::now());
    let took: Vec<f64> = moments.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3).collect();
    Ok([took[0], took[1], took[2], took[3]])
}

fn scope(subject: &Subject) -> Result<Scope> {
    Ok(Scope::new(subject.daemon.tag().parse()?))
}
