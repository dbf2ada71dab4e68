//! The next daemon, and what it finds of the one before.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use berth_runtime::Recovery;
use berth_types::{ErrorKind, KillTarget, ProcessRef, ProcessStatus};
use rustix::process::Signal;
use testkit::wait::{SOON, Watched};

use crate::world::{World, plain, run};

fn shim_of(world: &World, id: &berth_types::ContainerId) -> Watched {
    let pid = std::fs::read_to_string(world.bundle(id).join("shim.pid")).unwrap();
    Watched::open(pid.parse().unwrap()).unwrap()
}

async fn survives(behaviour: &str) {
    let world = World::new();
    let runtime = world.runtime().await;
    let tasks = runtime.tasks(&world.scope());
    let shim = world.fake(behaviour);
    let (lives, ends) =
        (world.container("lives", &shim, "{}").await, world.container("ends", &shim, "{}").await);
    let pid = run(&tasks, &lives).await;
    let ending = run(&tasks, &ends).await;
    runtime.close().await;

    // While nobody looks.
    let process = Watched::open(ending).unwrap();
    process.signal(Signal::TERM);
    assert!(process.ends_within(SOON));

    let runtime = world.runtime().await;
    let recovery = runtime.recover().await.unwrap();
    assert_eq!(recovery, Recovery { alive: 2, gone: 0, unknown: 0 });
    let tasks = runtime.tasks(&world.scope());
    let state = tasks.state(&ProcessRef::init(lives.clone())).await.unwrap();
    assert_eq!((state.status, state.pid), (ProcessStatus::Running, pid));
    assert_eq!(tasks.wait(&ProcessRef::init(ends.clone())).await.unwrap().status, 143);
    let state = tasks.state(&ProcessRef::init(ends.clone())).await.unwrap();
    assert_eq!((state.status, state.exit.unwrap().status), (ProcessStatus::Stopped, 143));
    assert_eq!(tasks.create(plain(&lives)).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    tasks.kill(&ProcessRef::init(lives.clone()), 9, KillTarget::All).await.unwrap();
    tasks.wait(&ProcessRef::init(lives.clone())).await.unwrap();
    for id in [&lives, &ends] {
        tasks.delete(id).await.unwrap();
    }
    world.nothing_is_left().await;
}

#[tokio::test]
async fn tasks_and_their_exit_codes_survive_the_daemon() {
    survives("good").await;
}

#[tokio::test]
async fn tasks_of_version_2_shims_survive_the_daemon() {
    survives("bare").await;
}

#[tokio::test]
async fn tasks_of_grpc_shims_survive_the_daemon() {
    survives("grpc").await;
}

#[tokio::test]
async fn only_a_shim_that_is_gone_is_cleaned_up_after() {
    let mut world = World::new();
    world.config.timeouts.load = Duration::from_millis(300);
    let runtime = world.runtime().await;
    let tasks = runtime.tasks(&world.scope());
    let shim = world.fake("good");
    let [alive, dead, wedged] = [
        world.container("alive", &shim, "{}").await,
        world.container("dead", &shim, "{}").await,
        world.container("wedged", &shim, "{}").await,
    ];
    let mut pids = Vec::new();
    for id in [&alive, &dead, &wedged] {
        pids.push(run(&tasks, id).await);
    }
    runtime.close().await;
    let stopped = shim_of(&world, &wedged);
    stopped.signal(Signal::STOP);
    let dying = shim_of(&world, &dead);
    dying.signal(Signal::KILL);
    assert!(dying.ends_within(SOON));

    let mut events = world.listen().await;
    let runtime = world.runtime().await;
    let began = Instant::now();
    let recovery = runtime.recover().await.unwrap();
    assert_eq!(recovery, Recovery { alive: 1, gone: 1, unknown: 1 });
    assert!(began.elapsed() < Duration::from_secs(5));
    events.next("/tasks/exit").await;
    let tasks = runtime.tasks(&world.scope());
    let unknown = tasks.state(&ProcessRef::init(wedged.clone())).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Unavailable);
    assert_eq!(tasks.list().await.unwrap().len(), 1);
    assert_eq!(tasks.create(plain(&wedged)).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert!(Watched::open(pids[2]).is_some(), "the unknown one's container goes on");

    stopped.signal(Signal::CONT);
    let exit = tokio::spawn({
        let (tasks, init) = (tasks.clone(), ProcessRef::init(wedged.clone()));
        async move { tasks.wait(&init).await.unwrap() }
    });
    for id in [&alive, &wedged] {
        let init = ProcessRef::init(id.clone());
        while let Err(error) = tasks.kill(&init, 9, KillTarget::All).await {
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tasks.wait(&init).await.unwrap();
        tasks.delete(id).await.unwrap();
    }
    assert_eq!(exit.await.unwrap().status, 137);
    world.nothing_is_left().await;
}

#[tokio::test]
async fn what_a_daemon_left_that_ended_while_it_made_a_task_is_cleaned_up() {
    let world = World::new();
    let runtime = world.runtime().await;
    let shim = world.fake("good");
    // A bundle alone, with and without a record; one with a shim that never had a task.
    for (id, program) in [("bare", None), ("known", Some(&shim))] {
        let id = match program {
            Some(shim) => world.container(id, shim, "{}").await,
            None => id.parse().unwrap(),
        };
        std::fs::create_dir_all(world.bundle(&id).join("rootfs")).unwrap();
    }
    let work = world.config.root.join(berth_runtime::FOLDER).join(world.namespace().as_str()).join("stale");
    std::fs::create_dir_all(work).unwrap();
    let recovery = runtime.recover().await.unwrap();
    assert_eq!(recovery, Recovery { alive: 0, gone: 2, unknown: 0 });
    world.nothing_is_left().await;
}

#[tokio::test]
async fn a_shim_that_never_said_where_it_listens_is_ended_and_nobody_else_is() {
    let world = World::new();
    let runtime = world.runtime().await;
    let silent = world.fake("hang-start");
    let id = world.container("c", &silent, "{}").await;
    let bundle = world.bundle(&id);
    std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
    let start = |folder: &std::path::Path, id: &str| {
        let namespace = world.namespace();
        let words = ["-namespace", namespace.as_str(), "-id", id, "start"];
        let child = std::process::Command::new(&silent)
            .args(words)
            .current_dir(folder)
            .stdin(std::process::Stdio::null())
            .spawn()
            .unwrap();
        Started(child)
    };
    let mut left = start(&bundle, id.as_str());
    // The same words elsewhere, and another task's.
    let mut others = [start(&world.config.state, id.as_str()), start(&bundle, "another")];
    let recovery = runtime.recover().await.unwrap();
    assert_eq!(recovery, Recovery { alive: 0, gone: 1, unknown: 0 });
    assert_eq!(left.0.wait().unwrap().signal(), Some(9));
    for other in &mut others {
        assert!(other.0.try_wait().unwrap().is_none(), "somebody else's process was ended");
    }
    drop(others);
    world.nothing_is_left().await;
}

/// A process that ends with the test.
struct Started(std::process::Child);

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_shims_are_taken_up_at_once() {
    let world = World::new();
    let runtime = world.runtime().await;
    let tasks = runtime.tasks(&world.scope());
    let shim = world.fake("good");
    let mut ids = Vec::new();
    for number in 0..100 {
        ids.push(world.container(&format!("c{number}"), &shim, "{}").await);
    }
    futures::future::join_all(ids.iter().map(|id| run(&tasks, id))).await;
    runtime.close().await;
    let runtime = world.runtime().await;
    let began = Instant::now();
    let recovery = runtime.recover().await.unwrap();
    let took = began.elapsed();
    assert_eq!(recovery.alive, 100);
    eprintln!("100 shims in {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    let tasks = runtime.tasks(&world.scope());
    futures::future::join_all(ids.iter().map(|id| async {
        tasks.kill(&ProcessRef::init(id.clone()), 9, KillTarget::All).await.unwrap();
        tasks.wait(&ProcessRef::init(id.clone())).await.unwrap();
        tasks.delete(id).await.unwrap();
    }))
    .await;
    world.nothing_is_left().await;
}
