//! Shims that hang, crash and talk nonsense: a bounded time, a clear error, and nothing left.

use std::time::{Duration, Instant};

use berth_types::{ErrorKind, Event, ProcessRef};
use testkit::wait::Watched;

use crate::world::{World, plain, run};

/// Creates a task that cannot be, in bounded time; answers the error.
async fn fails(behaviour: &str) -> berth_types::Error {
    let mut world = World::new();
    world.config.timeouts.start = Duration::from_millis(500);
    world.config.timeouts.create = Duration::from_millis(500);
    world.config.timeouts.cleanup = Duration::from_secs(2);
    world.config.timeouts.shutdown = Duration::from_millis(500);
    let runtime = world.runtime().await;
    let tasks = runtime.tasks(&world.scope());
    let mut events = world.listen().await;
    let id = world.container("c", &world.fake(behaviour), "{}").await;
    let began = Instant::now();
    let error = tasks.create(plain(&id)).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(tasks.state(&ProcessRef::init(id.clone())).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(tasks.list().await.unwrap().is_empty());
    assert!(events.topics_so_far().is_empty(), "a task that never was has no end");
    world.nothing_is_left().await;
    error
}

#[tokio::test]
async fn a_start_that_hangs_is_given_up() {
    assert_eq!(fails("hang-start").await.kind(), ErrorKind::DeadlineExceeded);
}

#[tokio::test]
async fn a_start_that_fails_says_what_the_shim_said() {
    let error = fails("fail-start").await;
    assert!(error.chain().contains("no machine to run it on"), "{}", error.chain());
}

#[tokio::test]
async fn an_answer_that_is_none_is_shown_and_its_shim_ended() {
    let error = fails("garbage").await;
    assert!(error.chain().contains("no address at all"), "{}", error.chain());
}

#[tokio::test]
async fn a_shim_that_crashes_in_create_is_cleaned_up_after() {
    let error = fails("crash-create").await;
    assert!(error.chain().contains("closed the connection"), "{}", error.chain());
}

#[tokio::test]
async fn a_create_that_hangs_is_given_up() {
    assert_eq!(fails("hang-create").await.kind(), ErrorKind::DeadlineExceeded);
}

#[tokio::test]
async fn a_refusal_goes_to_the_client_as_the_shim_said_it() {
    let error = fails("refuse-create").await;
    assert_eq!(error.chain(), "failed to create shim task: OCI runtime create failed: no such program");
}

#[tokio::test]
async fn a_missing_shim_or_container_is_named() {
    let world = World::new();
    let runtime = world.runtime().await;
    let tasks = runtime.tasks(&world.scope());
    let missing = tasks.create(plain(&"nobody".parse().unwrap())).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let id = world.container("c", "io.containerd.nothing.v1".as_ref(), "{}").await;
    let error = tasks.create(plain(&id)).await.unwrap_err();
    assert!(error.chain().contains("containerd-shim-nothing-v1"), "{}", error.chain());
    world.nothing_is_left().await;
}

#[tokio::test]
async fn a_shim_that_is_killed_takes_its_container_with_it_within_a_second() {
    let world = World::new();
    let runtime = world.runtime().await;
    let tasks = runtime.tasks(&world.scope());
    let mut events = world.listen().await;
    let id = world.container("c", &world.fake("good"), "{}").await;
    let pid = run(&tasks, &id).await;
    let container = Watched::open(pid).unwrap();
    let waiting = tokio::spawn({
        let (tasks, init) = (tasks.clone(), ProcessRef::init(id.clone()));
        async move { tasks.wait(&init).await }
    });
    let shim: u32 = std::fs::read_to_string(world.bundle(&id).join("shim.pid")).unwrap().parse().unwrap();
    let began = Instant::now();
    Watched::open(shim).unwrap().signal(rustix::process::Signal::KILL);

    let Event::TaskExit { exit, exec_id, .. } = events.next("/tasks/exit").await.event else { panic!() };
    assert_eq!((exit.status, exec_id.as_str()), (137, "c"));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    events.next("/tasks/delete").await;
    assert_eq!(waiting.await.unwrap().unwrap().status, 137);
    assert!(container.ends_within(Duration::from_secs(1)));
    assert_eq!(tasks.delete(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
    world.nothing_is_left().await;
}

#[tokio::test]
async fn an_exit_that_was_told_is_not_told_again_when_the_shim_dies() {
    let world = World::new();
    let runtime = world.runtime().await;
    let tasks = runtime.tasks(&world.scope());
    let mut events = world.listen().await;
    let id = world.container("c", &world.fake("good"), "{}").await;
    run(&tasks, &id).await;
    tasks.kill(&ProcessRef::init(id.clone()), 15, berth_types::KillTarget::All).await.unwrap();
    events.next("/tasks/exit").await;
    let shim: u32 = std::fs::read_to_string(world.bundle(&id).join("shim.pid")).unwrap().parse().unwrap();
    Watched::open(shim).unwrap().signal(rustix::process::Signal::KILL);
    let Event::TaskDelete { exit, .. } = events.next("/tasks/delete").await.event else { panic!() };
    assert_eq!(exit.status, 143);
    world.nothing_is_left().await;
}

#[tokio::test]
async fn a_cleaning_up_that_hangs_still_ends_the_container() {
    let mut world = World::new();
    world.config.timeouts.cleanup = Duration::from_millis(500);
    let runtime = world.runtime().await;
    let tasks = runtime.tasks(&world.scope());
    let mut events = world.listen().await;
    let id = world.container("c", &world.fake("hang-delete"), "{}").await;
    let pid = run(&tasks, &id).await;
    let container = Watched::open(pid).unwrap();
    let shim: u32 = std::fs::read_to_string(world.bundle(&id).join("shim.pid")).unwrap().parse().unwrap();
    Watched::open(shim).unwrap().signal(rustix::process::Signal::KILL);
    let Event::TaskExit { exit, .. } = events.next("/tasks/exit").await.event else { panic!() };
    assert_eq!(exit.status, 255);
    assert!(container.ends_within(Duration::from_secs(1)));
    events.next("/tasks/delete").await;
    world.nothing_is_left().await;
}
