//! How long the engine takes, printed. `cargo test -p berth-runtime -- --ignored --nocapture figures`.

use std::time::{Duration, Instant};

use berth_types::{KillTarget, ProcessRef};
use futures::future::join_all;

use crate::foreign::{our_shim, spec, world};
use crate::world::{World, plain, run};

const ROUNDS: usize = 100;

/// The middle and the ends of durations.
fn shown(mut took: Vec<Duration>) -> String {
    took.sort();
    let [least, middle, most] = [took[0], took[took.len() / 2], took[took.len() - 1]];
    format!("min {least:>9.1?} median {middle:>9.1?} max {most:>9.1?}")
}

/// One container after another.
async fn one_by_one(
    world: &World,
    what: &str,
    shim: &std::path::Path,
    spec: &str,
    rootfs: &[berth_types::Mount],
) {
    let runtime = world.runtime().await;
    let tasks = runtime.tasks(&world.scope());
    let id = world.container("c", shim, spec).await;
    let init = ProcessRef::init(id.clone());
    let mut took: [Vec<Duration>; 4] = Default::default();
    for _ in 0..ROUNDS {
        let mut request = plain(&id);
        request.rootfs = rootfs.to_vec();
        let began = Instant::now();
        tasks.create(request).await.unwrap();
        took[0].push(began.elapsed());
        let began = Instant::now();
        tasks.start(&init).await.unwrap();
        took[1].push(began.elapsed());
        let began = Instant::now();
        tasks.kill(&init, 9, KillTarget::All).await.unwrap();
        tasks.wait(&init).await.unwrap();
        took[2].push(began.elapsed());
        let began = Instant::now();
        tasks.delete(&id).await.unwrap();
        took[3].push(began.elapsed());
    }
    for (name, took) in ["create", "start", "kill and wait", "delete"].into_iter().zip(took) {
        eprintln!("{what}: {name:>14} {}", shown(took));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures; a machine at rest makes better ones"]
async fn figures_of_a_container() {
    let plain_world = World::new();
    one_by_one(&plain_world, "fake shim", &plain_world.fake("good"), "{}", &[]).await;
    let Some(shim) = our_shim() else { return };
    let Ok((mut world, rootfs)) = world(false) else { return };
    world.config.own_shim.clone_from(&shim);
    let spec = spec(&world, "c", "");
    one_by_one(&world, "our shim, direct", &shim, &spec, &rootfs).await;
    let link = world.scratch.path("containerd-shim-runc-v2");
    std::os::unix::fs::symlink(&shim, &link).unwrap();
    one_by_one(&world, "our shim, `start`", &link, &spec, &rootfs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures, and makes a thousand processes"]
async fn figures_of_a_recovery() {
    let mut world = World::new();
    world.config.timeouts.load = Duration::from_secs(30);
    let runtime = world.runtime().await;
    let tasks = runtime.tasks(&world.scope());
    let shim = world.fake("good");
    let mut ids = Vec::new();
    for number in 0..500 {
        ids.push(world.container(&format!("c{number}"), &shim, "{}").await);
    }
    for some in ids.chunks(20) {
        join_all(some.iter().map(|id| run(&tasks, id))).await;
    }
    runtime.close().await;
    let runtime = world.runtime().await;
    let began = Instant::now();
    let recovery = runtime.recover().await.unwrap();
    eprintln!("{recovery:?} in {:?}", began.elapsed());
    assert_eq!(recovery.alive, 500);
    assert!(began.elapsed() < Duration::from_secs(2));
    let tasks = runtime.tasks(&world.scope());
    for some in ids.chunks(20) {
        join_all(some.iter().map(|id| async {
            tasks.kill(&ProcessRef::init(id.clone()), 9, KillTarget::All).await.unwrap();
            tasks.wait(&ProcessRef::init(id.clone())).await.unwrap();
            tasks.delete(id).await.unwrap();
        }))
        .await;
    }
    world.nothing_is_left().await;
}
