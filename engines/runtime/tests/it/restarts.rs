//! The restart monitor.

use std::sync::Arc;
use std::time::Duration;

use berth_core::{Containers, Tasks};
use berth_types::{ContainerId, KillTarget, ProcessRef, ProcessStatus};

use crate::world::{World, run};

async fn labelled(world: &World, labels: &[(&str, &str)]) -> ContainerId {
    let id = world.container("c", &world.fake("good"), "{\"process\":{}}").await;
    let mut container = world.records.container(&id).await.unwrap();
    for (name, value) in labels {
        container.labels.insert(format!("containerd.io/restart.{name}"), (*value).to_owned());
    }
    world.records.create(container).await.unwrap();
    id
}

/// Waits for a task of another pid that runs.
async fn runs_again(tasks: &Arc<dyn Tasks>, id: &ContainerId, before: u32) -> u32 {
    let found = async {
        loop {
            match tasks.state(&ProcessRef::init(id.clone())).await {
                Ok(state) if state.pid != before && state.status == ProcessStatus::Running => {
                    return state.pid;
                }
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), found).await.unwrap()
}

#[tokio::test]
async fn a_container_that_wants_to_run_is_started_counted_and_stopped() {
    let world = World::new();
    let runtime = world.runtime().await;
    let tasks = runtime.tasks(&world.scope());
    let id = labelled(&world, &[("status", "running"), ("policy", "on-failure:2")]).await;
    let init = ProcessRef::init(id.clone());
    let first = run(&tasks, &id).await;
    let monitor = tokio::spawn(Arc::clone(&runtime).restart_monitor());
    tasks.kill(&init, 15, KillTarget::All).await.unwrap();
    let second = runs_again(&tasks, &id, first).await;
    tasks.kill(&init, 15, KillTarget::All).await.unwrap();
    let third = runs_again(&tasks, &id, second).await;
    let count = || async {
        world.records.container(&id).await.unwrap().labels["containerd.io/restart.count"].clone()
    };
    assert_eq!(count().await, "2");

    // Two were allowed.
    tasks.kill(&init, 15, KillTarget::All).await.unwrap();
    tasks.wait(&init).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let state = tasks.state(&init).await.unwrap();
    assert_eq!((state.pid, state.status), (third, ProcessStatus::Stopped));

    // The wish to be stopped, for one that runs.
    tasks.delete(&id).await.unwrap();
    let mut container = world.records.container(&id).await.unwrap();
    container.labels.insert("containerd.io/restart.status".into(), "stopped".into());
    world.records.create(container).await.unwrap();
    run(&tasks, &id).await;
    let gone = async {
        while tasks.state(&init).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.unwrap();
    monitor.abort();
    world.nothing_is_left().await;
}

#[tokio::test]
async fn a_container_without_a_task_is_started_unless_a_person_stopped_it() {
    for (stopped, expected) in [("false", true), ("true", false)] {
        let world = World::new();
        let runtime = world.runtime().await;
        let tasks = runtime.tasks(&world.scope());
        let labels = [("status", "running"), ("policy", "unless-stopped"), ("explicitly-stopped", stopped)];
        let id = labelled(&world, &labels).await;
        let monitor = tokio::spawn(Arc::clone(&runtime).restart_monitor());
        let init = ProcessRef::init(id.clone());
        if expected {
            runs_again(&tasks, &id, 0).await;
            monitor.abort();
            let _ = monitor.await;
            tasks.kill(&init, 9, KillTarget::All).await.unwrap();
            tasks.wait(&init).await.unwrap();
            tasks.delete(&id).await.unwrap();
        } else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(tasks.state(&init).await.is_err());
            monitor.abort();
        }
        world.nothing_is_left().await;
    }
}

#[tokio::test]
async fn a_task_that_was_made_and_never_started_is_replaced_but_not_at_the_first_look() {
    let mut world = World::new();
    world.config.restart_interval = Duration::from_millis(300);
    let runtime = world.runtime().await;
    let tasks = runtime.tasks(&world.scope());
    let id = labelled(&world, &[("status", "running")]).await;
    let pid = tasks.create(crate::world::plain(&id)).await.unwrap();
    let monitor = tokio::spawn(Arc::clone(&runtime).restart_monitor());
    // The first look is at once.
    tokio::time::sleep(Duration::from_millis(150)).await;
    let init = ProcessRef::init(id.clone());
    assert_eq!(tasks.state(&init).await.unwrap().pid, pid);
    runs_again(&tasks, &id, pid).await;
    monitor.abort();
    let _ = monitor.await;
    tasks.kill(&init, 9, KillTarget::All).await.unwrap();
    tasks.wait(&init).await.unwrap();
    tasks.delete(&id).await.unwrap();
    world.nothing_is_left().await;
}
