//! A task's life, over every form of shim.

use berth_core::ExecProcess;
use berth_types::{Any, ErrorKind, Event, KillTarget, ProcessRef, ProcessStatus, Stdio};

use crate::world::{World, plain, run};

async fn live(behaviour: &str) {
    let world = World::new();
    let runtime = world.runtime().await;
    let tasks = runtime.tasks(&world.scope());
    let mut events = world.listen().await;
    let id = world.container("c", &world.fake(behaviour), "{\"ociVersion\":\"1.0.0\"}").await;
    let init = ProcessRef::init(id.clone());

    let pid = tasks.create(plain(&id)).await.unwrap();
    assert!(pid > 0);
    let bundle = world.bundle(&id);
    for name in ["config.json", "rootfs", "work", "log", "shim-binary-path", "bootstrap.json"] {
        assert!(bundle.join(name).symlink_metadata().is_ok(), "{name}");
    }
    assert_eq!(tasks.state(&init).await.unwrap().status, ProcessStatus::Created);
    assert_eq!(tasks.create(plain(&id)).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(tasks.start(&init).await.unwrap(), pid);
    let state = tasks.state(&init).await.unwrap();
    assert_eq!((state.status, state.pid, state.exit), (ProcessStatus::Running, pid, None));
    assert_eq!(tasks.list().await.unwrap(), [state]);
    assert_eq!(tasks.pids(&id).await.unwrap()[0].pid, pid);
    assert_eq!(tasks.metrics(&["id==c".into()]).await.unwrap().len(), 1);
    assert_eq!(tasks.metrics(&["id==d".into()]).await.unwrap().len(), 0);
    assert_eq!(tasks.delete(&id).await.unwrap_err().kind(), ErrorKind::FailedPrecondition);
    assert_eq!(tasks.pause(&id).await.unwrap_err().kind(), ErrorKind::NotImplemented);

    let exec = || ExecProcess {
        process: ProcessRef::exec(id.clone(), "e".parse().unwrap()),
        stdio: Stdio::default(),
        spec: Any::new("types.containerd.io/opencontainers/runtime-spec/1/Process", "{}"),
    };
    tasks.exec(exec()).await.unwrap();
    assert_eq!(tasks.exec(exec()).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert!(tasks.start(&exec().process).await.unwrap() > 0);

    let waiting = tokio::spawn({
        let (tasks, init) = (tasks.clone(), init.clone());
        async move { tasks.wait(&init).await }
    });
    tasks.kill(&init, 15, KillTarget::All).await.unwrap();
    let exit = waiting.await.unwrap().unwrap();
    assert_eq!((exit.status, exit.pid), (143, pid));
    let Event::TaskExit { exit: told, .. } = events.next("/tasks/exit").await.event else { panic!() };
    assert_eq!((told.status, told.at), (143, exit.at));
    assert_eq!(tasks.wait(&init).await.unwrap(), exit, "once more");
    assert_eq!(tasks.kill(&init, 9, KillTarget::Process).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(tasks.state(&init).await.unwrap().status, ProcessStatus::Stopped);

    assert_eq!(tasks.delete(&id).await.unwrap().status, 143);
    assert_eq!(tasks.delete(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(tasks.state(&init).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(events.topics_so_far(), ["/tasks/delete"], "told once, by the shim");
    world.nothing_is_left().await;
}

#[tokio::test]
async fn a_shim_with_a_bootstrap_result_lives_and_goes() {
    live("good").await;
}

#[tokio::test]
async fn a_shim_with_a_json_answer_lives_and_goes() {
    live("json").await;
}

#[tokio::test]
async fn a_version_2_shim_with_a_bare_address_lives_and_goes() {
    live("bare").await;
}

#[tokio::test]
async fn a_grpc_shim_lives_and_goes() {
    live("grpc").await;
}

#[tokio::test]
async fn a_shim_that_claims_version_3_and_serves_2_lives_and_goes() {
    live("claims").await;
}

#[tokio::test]
async fn a_shim_that_reads_only_options_lives_and_goes() {
    live("old").await;
}

#[tokio::test]
async fn a_name_is_free_again_after_a_deletion() {
    let world = World::new();
    let runtime = world.runtime().await;
    let tasks = runtime.tasks(&world.scope());
    let id = world.container("c", &world.fake("good"), "{}").await;
    for _ in 0..5 {
        run(&tasks, &id).await;
        tasks.kill(&ProcessRef::init(id.clone()), 9, KillTarget::Process).await.unwrap();
        assert_eq!(tasks.wait(&ProcessRef::init(id.clone())).await.unwrap().status, 137);
        tasks.delete(&id).await.unwrap();
    }
    world.nothing_is_left().await;
}

#[tokio::test]
async fn a_client_that_gives_up_leaves_a_whole_task() {
    let world = World::new();
    let runtime = world.runtime().await;
    let tasks = runtime.tasks(&world.scope());
    let id = world.container("c", &world.fake("good"), "{}").await;
    let created = tasks.create(plain(&id));
    assert!(futures::FutureExt::now_or_never(created).is_none(), "dropped at its first wait");
    let init = ProcessRef::init(id.clone());
    let state = loop {
        match tasks.state(&init).await {
            Ok(state) => break state,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(2)).await,
        }
    };
    assert_eq!(state.status, ProcessStatus::Created);
    tasks.delete(&id).await.unwrap();
    world.nothing_is_left().await;
}

#[tokio::test]
async fn what_a_runtime_can_do_is_asked_of_its_shim() {
    use berth_proto as proto;
    use proto::containerd::types::{RuntimeInfo, RuntimeRequest};
    let world = World::new();
    let runtime = world.runtime().await;
    let runtime_path = world.fake("good").display().to_string();
    let request = proto::convert::pack(&RuntimeRequest { runtime_path, options: None });
    let answer = runtime.info(&request).await.unwrap();
    assert_eq!(proto::convert::unpack::<RuntimeInfo>(&answer).unwrap().name, "fake");
}
