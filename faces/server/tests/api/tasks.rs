//! `Tasks` on the wire: every field reaches the runtime, every answer comes back.

use berth_proto as proto;
use proto::containerd::services::tasks::v1::tasks_client::TasksClient;
use proto::containerd::services::tasks::v1::{
    CheckpointTaskRequest, CloseIoRequest, CreateTaskRequest, DeleteProcessRequest, DeleteTaskRequest,
    ExecProcessRequest, GetRequest, KillRequest, ListPidsRequest, ListTasksRequest, MetricsRequest,
    PauseTaskRequest, ResizePtyRequest, ResumeTaskRequest, StartRequest, UpdateTaskRequest, WaitRequest,
};
use proto::containerd::types::Mount;
use proto::prost_types::Any;
use tonic::Code;

use crate::served::{Served, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_goes_through_its_life() {
    let served = Served::start();
    let mut client = TasksClient::new(served.channel());
    let (id, e1) = (|| "one".to_owned(), || "e1".to_owned());
    let create = CreateTaskRequest {
        container_id: id(),
        rootfs: vec![Mount { r#type: "bind".into(), source: "/s".into(), ..Default::default() }],
        stdin: "/in".into(),
        terminal: true,
        options: Some(Any { type_url: "o".into(), value: vec![7] }),
        runtime_path: "/shim".into(),
        ..Default::default()
    };
    let created = client.create(within(create)).await.unwrap().into_inner();
    assert_eq!((created.container_id.as_str(), created.pid), ("one", 11));
    let asked = served.stores.tasks.take().remove(0);
    for part in ["\"one\"", "\"bind\"", "\"/s\"", "\"/in\"", "terminal: true", "\"o\"", "\"/shim\""] {
        assert!(asked.contains(part), "{part} in {asked}");
    }
    let start = StartRequest { container_id: id(), exec_id: String::new() };
    assert_eq!(client.start(within(start)).await.unwrap().into_inner().pid, 12);
    let exec = ExecProcessRequest {
        container_id: id(),
        exec_id: e1(),
        spec: Some(Any { type_url: "spec".into(), value: Vec::new() }),
        ..Default::default()
    };
    client.exec(within(exec)).await.unwrap();
    client.start(within(StartRequest { container_id: id(), exec_id: e1() })).await.unwrap();
    let resize = ResizePtyRequest { container_id: id(), exec_id: e1(), width: 80, height: 24 };
    client.resize_pty(within(resize)).await.unwrap();
    client.close_io(within(CloseIoRequest { container_id: id(), exec_id: e1(), stdin: true })).await.unwrap();
    let kill = KillRequest { container_id: id(), exec_id: String::new(), signal: 9, all: true };
    client.kill(within(kill)).await.unwrap();
    let wait = WaitRequest { container_id: id(), exec_id: e1() };
    let exit = client.wait(within(wait)).await.unwrap().into_inner();
    assert_eq!((exit.exit_status, exit.exited_at.unwrap().seconds), (137, 9));
    let delete = DeleteProcessRequest { container_id: id(), exec_id: e1() };
    let deleted = client.delete_process(within(delete)).await.unwrap().into_inner();
    assert_eq!((deleted.id.as_str(), deleted.pid, deleted.exit_status), ("e1", 12, 137));
    let deleted = client.delete(within(DeleteTaskRequest { container_id: id() })).await.unwrap().into_inner();
    assert_eq!((deleted.id.as_str(), deleted.exit_status), ("", 137));
    assert_eq!(
        served.stores.tasks.take(),
        [
            "start task one",
            "exec process e1 of task one spec",
            "start process e1 of task one",
            "resize process e1 of task one 80x24",
            "close process e1 of task one",
            "kill task one 9 All",
            "wait process e1 of task one",
            "delete one e1",
            "delete one",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_runs_has_gos_zero_time_as_its_end() {
    let served = Served::start();
    let mut client = TasksClient::new(served.channel());
    let get = GetRequest { container_id: "one".into(), exec_id: "e1".into() };
    let process = client.get(within(get)).await.unwrap().into_inner().process.unwrap();
    assert_eq!((process.id.as_str(), process.stdout.as_str(), process.pid), ("e1", "/out", 12));
    assert_eq!(process.exited_at.unwrap().seconds, -62_135_596_800);
    let listed = client.list(within(ListTasksRequest::default())).await.unwrap().into_inner().tasks;
    assert_eq!(listed[0].id, "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_else_reaches_the_runtime_with_its_errors_back() {
    let served = Served::start();
    let mut client = TasksClient::new(served.channel());
    let id = || "one".to_owned();
    client.pause(within(PauseTaskRequest { container_id: id() })).await.unwrap();
    let status = client.resume(within(ResumeTaskRequest { container_id: id() })).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let checkpoint = CheckpointTaskRequest { container_id: id(), ..Default::default() };
    assert_eq!(client.checkpoint(within(checkpoint)).await.unwrap_err().code(), Code::Unimplemented);
    let annotations = [("a".to_owned(), "b".to_owned())].into();
    client
        .update(within(UpdateTaskRequest { container_id: id(), resources: None, annotations }))
        .await
        .unwrap();
    let pids = client.list_pids(within(ListPidsRequest { container_id: id() })).await.unwrap().into_inner();
    assert_eq!(
        (pids.processes[0].pid, pids.processes[0].info.as_ref().unwrap().type_url.as_str()),
        (12, "t")
    );
    let filters = vec!["id==one".to_owned()];
    let metrics = client.metrics(within(MetricsRequest { filters })).await.unwrap().into_inner().metrics;
    assert_eq!(
        (metrics[0].id.as_str(), metrics[0].data.as_ref().unwrap().value.as_slice()),
        ("one", &b"d"[..])
    );
    assert_eq!(
        served.stores.tasks.take(),
        [
            "pause one",
            "resume one",
            "checkpoint one false",
            "update one {\"a\": \"b\"}",
            "pids one",
            "metrics [\"id==one\"]",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_nothing_can_have_are_not_found_and_new_ones_are_checked() {
    let served = Served::start();
    let mut client = TasksClient::new(served.channel());
    let get =
        |container: &str, exec: &str| GetRequest { container_id: container.into(), exec_id: exec.into() };
    for (container, exec) in [("", ""), ("../x", ""), ("one", "../x")] {
        let status = client.get(within(get(container, exec))).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{container:?} {exec:?}");
    }
    for exec_id in ["", "../x"] {
        let exec =
            ExecProcessRequest { container_id: "one".into(), exec_id: exec_id.into(), ..Default::default() };
        assert_eq!(client.exec(within(exec)).await.unwrap_err().code(), Code::InvalidArgument, "{exec_id:?}");
    }
    assert!(served.stores.tasks.take().is_empty());
}
