//! Lives of containers and of the processes in them.

use std::io::Read as _;

use berth_proto as proto;
use berth_ttrpc::Code;
use prost::Message as _;
use proto::containerd::task::v3 as wire;
use testkit::{Leftovers, wait};

use crate::pod::{Kind, Pod, Streams, code};

/// Runs a test with both runtimes.
macro_rules! for_both {
    ($($name:ident),* $(,)?) => {
        mod native {
            $(#[test] fn $name() { super::$name(super::Kind::Native); })*
        }
        mod runc {
            $(#[test] fn $name() { super::$name(super::Kind::Runc); })*
        }
    };
}

pub(crate) use for_both;

for_both!(
    a_container_lives_from_create_to_delete,
    a_signal_is_128_more,
    an_exec_has_its_own_end_and_events,
    an_end_before_start_returns_is_told_after_the_start,
    the_last_end_told_is_the_first_process,
    what_outlives_the_first_process_is_killed,
    orphans_are_reaped,
    a_failed_creation_leaves_nothing,
    a_failed_exec_can_be_deleted_and_repeated,
    a_created_container_can_be_deleted,
    a_container_is_frozen_and_thawed,
    limits_change_and_figures_are_told,
    processes_are_listed_with_their_exec_ids,
    running_out_of_memory_is_told_before_the_end,
    many_waiters_all_hear,
    nothing_of_the_shim_leaks_into_a_container,
    clients_that_leave_while_they_wait_are_forgotten,
);

fn quiet() -> Streams {
    Streams::default()
}

fn a_container_lives_from_create_to_delete(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let out = pod.fifo("out");
    let mut reader = std::fs::File::options().read(true).write(true).open(&out).unwrap();
    let streams = Streams { stdout: out.display().to_string(), ..Streams::default() };
    let mut task = pod.launch("a", "echo hello; exit 7", &streams);
    let mut text = [0; 6];
    reader.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello\n");
    assert_eq!(task.wait(""), 7);
    let state = task.state("").unwrap();
    assert_eq!((state.status, state.exit_status, state.id.as_str()), (3, 7, "a"));
    let deleted = task.delete("").unwrap();
    assert_eq!((deleted.exit_status, deleted.pid), (7, state.pid));
    assert_eq!(code(task.state("")), Code::NotFound);
    pod.hears("delete");
    assert_eq!(pod.topics(), ["create", "start", "exit a", "delete"]);
    task.shutdown();
    Leftovers::none(&pod.scratch);
}

fn a_signal_is_128_more(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let mut task = pod.launch("a", "sleep 1000", &quiet());
    assert_eq!(code(task.delete("")), Code::Unknown);
    task.kill("", 9, false).unwrap();
    assert_eq!(task.wait(""), 137);
    assert_eq!(code(task.kill("", 9, false)), Code::NotFound);
    task.finish();
    Leftovers::none(&pod.scratch);
}

fn an_exec_has_its_own_end_and_events(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let mut task = pod.launch("a", "sleep 1000", &quiet());
    task.exec("e", "exit 3", &quiet()).unwrap();
    assert_eq!(code(task.exec("e", "exit 4", &quiet())), Code::AlreadyExists);
    assert_eq!(code(task.kill("e", 9, false)), Code::FailedPrecondition);
    task.start("e").unwrap();
    assert_eq!(task.wait("e"), 3);
    assert_eq!(task.delete("e").unwrap().exit_status, 3);
    assert_eq!(code(task.state("e")), Code::NotFound);
    task.kill("", 9, false).unwrap();
    assert_eq!(task.wait(""), 137);
    task.finish();
    pod.hears("delete");
    let told = ["create", "start", "exec-added e", "exec-started e", "exit e", "exit a", "delete"];
    assert_eq!(pod.topics(), told);
    Leftovers::none(&pod.scratch);
}

fn an_end_before_start_returns_is_told_after_the_start(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    for round in 0..5 {
        let id = format!("a{round}");
        let mut task = pod.launch(&id, "exit 1", &quiet());
        assert_eq!(task.wait(""), 1);
        task.finish();
        pod.hears("delete");
        let told: Vec<String> =
            std::mem::take(&mut *pod.heard.lock().unwrap()).iter().map(|e| e.topic.clone()).collect();
        assert_eq!(told, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
    }
    let mut task = pod.launch("b", "sleep 1000", &quiet());
    for round in 0..5 {
        let exec = format!("e{round}");
        task.exec(&exec, "exit 2", &quiet()).unwrap();
        task.start(&exec).unwrap();
        assert_eq!(task.wait(&exec), 2);
        pod.hears(&format!("exit {exec}"));
        let topics = pod.topics();
        let at = |what: String| topics.iter().position(|one| *one == what);
        assert!(at(format!("exec-started {exec}")) < at(format!("exit {exec}")), "{topics:?}");
    }
    task.kill("", 9, false).unwrap();
    task.wait("");
    task.finish();
    Leftovers::none(&pod.scratch);
}

fn the_last_end_told_is_the_first_process(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let mut task = pod.launch("a", "sleep 1000", &quiet());
    for exec in ["e", "f"] {
        task.exec(exec, "sleep 1000", &quiet()).unwrap();
        task.start(exec).unwrap();
    }
    task.kill("", 9, false).unwrap();
    assert_eq!(task.wait(""), 137);
    assert_eq!((task.wait("e"), task.wait("f")), (137, 137));
    task.finish();
    pod.hears("delete");
    let topics = pod.topics();
    let ends: Vec<&String> = topics.iter().filter(|topic| topic.starts_with("exit")).collect();
    assert_eq!(ends.len(), 3);
    assert_eq!(ends[2], "exit a");
    Leftovers::none(&pod.scratch);
}

fn what_outlives_the_first_process_is_killed(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let bundle = pod.bundle_with("a", "sleep 1000 & sleep 0.2; exit 5", |spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|one| one["type"] != "pid");
    });
    let mut task = pod.start("a", &bundle);
    task.create(&pod, &quiet()).unwrap();
    task.start("").unwrap();
    assert_eq!(task.wait(""), 5);
    task.finish();
    Leftovers::none(&pod.scratch);
}

fn orphans_are_reaped(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let bundle = pod.bundle_with("a", "(sleep 0.1 & ) ; (sleep 0.1 & ); sleep 1000", |spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|one| one["type"] != "pid");
    });
    let mut task = pod.start("a", &bundle);
    task.create(&pod, &quiet()).unwrap();
    let init = task.start("").unwrap();
    let children = || {
        let path = format!("/proc/{0}/task/{0}/children", task.shim);
        std::fs::read_to_string(path).unwrap_or_default()
    };
    let listed = std::path::Path::new(&format!("/proc/{0}/task/{0}/children", task.shim)).exists();
    if listed {
        wait::soon("one child", || children().split_whitespace().eq([init.to_string().as_str()]));
    }
    task.kill("", 9, true).unwrap();
    task.wait("");
    task.finish();
    Leftovers::none(&pod.scratch);
}

fn a_failed_creation_leaves_nothing(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let bundle = pod.bundle_with("a", "true", |spec| {
        spec["process"]["args"] = serde_json::json!(["/bin/nothing"]);
    });
    let mut task = pod.start("a", &bundle);
    let created = task.create(&pod, &quiet()).map(drop);
    let outcome = match created {
        // A runtime may find out only at the start.
        Ok(()) => task.start("").map(drop),
        failed => failed,
    };
    let message = outcome.unwrap_err().to_string();
    assert!(message.contains("/bin/nothing") && message.contains("no such file or directory"), "{message}");
    // containerd deletes what it could not start.
    let _ = task.delete("");
    assert_eq!(code(task.state("")), Code::NotFound);
    task.shutdown();
    Leftovers::none(&pod.scratch);
}

fn a_failed_exec_can_be_deleted_and_repeated(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let mut task = pod.launch("a", "sleep 1000", &quiet());
    let mut spec = crate::pod::process("true");
    spec["args"] = serde_json::json!(["/bin/nothing"]);
    let request = wire::ExecProcessRequest {
        id: "a".into(),
        exec_id: "e".into(),
        spec: Some(prost_types::Any { type_url: "x".into(), value: spec.to_string().into_bytes() }),
        ..Default::default()
    };
    task.call::<_, ()>("Exec", &request).unwrap();
    let message = task.start("e").unwrap_err().to_string();
    assert!(message.contains("no such file or directory"), "{message}");
    task.delete("e").unwrap();
    task.exec("e", "exit 8", &quiet()).unwrap();
    task.start("e").unwrap();
    assert_eq!(task.wait("e"), 8);
    task.kill("", 9, false).unwrap();
    task.wait("");
    assert_eq!(code(task.exec("f", "true", &quiet())), Code::Unknown);
    task.finish();
    Leftovers::none(&pod.scratch);
}

fn a_created_container_can_be_deleted(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let bundle = pod.bundle("a", "true");
    let mut task = pod.start("a", &bundle);
    let pid = task.create(&pod, &quiet()).unwrap();
    assert!(pid > 0);
    assert_eq!(task.state("").unwrap().status, 1);
    assert_eq!(code(task.create(&pod, &quiet())), Code::AlreadyExists);
    task.finish();
    Leftovers::none(&pod.scratch);
}

fn a_container_is_frozen_and_thawed(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let mut task = pod.launch("a", "sleep 1000", &quiet());
    let request = wire::PauseRequest { id: "a".into() };
    task.call::<_, ()>("Pause", &request).unwrap();
    assert_eq!(task.state("").unwrap().status, 4);
    assert_eq!(code(task.call::<_, ()>("Pause", &request)), Code::Unknown);
    assert_eq!(code(task.exec("e", "true", &quiet())), Code::Unknown);
    task.call::<_, ()>("Resume", &request).unwrap();
    assert_eq!(task.state("").unwrap().status, 2);
    task.call::<_, ()>("Pause", &request).unwrap();
    task.kill("", 9, false).unwrap();
    // A runtime may have thawed it already, so that it could die.
    let _ = task.call::<_, ()>("Resume", &request);
    assert_eq!(task.wait(""), 137);
    task.finish();
    pod.hears("resumed");
    Leftovers::none(&pod.scratch);
}

fn limits_change_and_figures_are_told(kind: Kind) {
    use proto::io::containerd::cgroups::{v1, v2};
    let Some(pod) = Pod::new(kind) else { return };
    let mut task = pod.launch("a", "sleep 1000", &quiet());
    let resources = serde_json::json!({"memory": {"limit": 67_108_864}});
    let update = wire::UpdateTaskRequest {
        id: "a".into(),
        resources: Some(prost_types::Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".into(),
            value: resources.to_string().into_bytes(),
        }),
        ..Default::default()
    };
    task.call::<_, ()>("Update", &update).unwrap();
    let request = wire::StatsRequest { id: "a".into() };
    let stats: wire::StatsResponse = task.call("Stats", &request).unwrap();
    let any = stats.stats.unwrap();
    let (usage, limit, pids) = match any.type_url.as_str() {
        "io.containerd.cgroups.v1.Metrics" => {
            let metrics = v1::Metrics::decode(any.value.as_slice()).unwrap();
            let memory = metrics.memory.unwrap().usage.unwrap();
            (memory.usage, memory.limit, metrics.pids.unwrap().current)
        }
        other => {
            assert_eq!(other, "io.containerd.cgroups.v2.Metrics");
            let metrics = v2::Metrics::decode(any.value.as_slice()).unwrap();
            let memory = metrics.memory.unwrap();
            (memory.usage, memory.usage_limit, metrics.pids.unwrap().current)
        }
    };
    assert!(usage > 0);
    assert_eq!((limit, pids), (67_108_864, 1));
    task.kill("", 9, false).unwrap();
    task.wait("");
    task.finish();
    Leftovers::none(&pod.scratch);
}

fn processes_are_listed_with_their_exec_ids(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let mut task = pod.launch("a", "sleep 1000", &quiet());
    task.exec("e", "sleep 1000", &quiet()).unwrap();
    let exec = task.start("e").unwrap();
    let listed: wire::PidsResponse = task.call("Pids", &wire::PidsRequest { id: "a".into() }).unwrap();
    let found = listed.processes.iter().find(|process| process.pid == exec).expect("the exec is listed");
    let details = found.info.as_ref().expect("with its id");
    let details = proto::containerd::runc::v1::ProcessDetails::decode(details.value.as_slice()).unwrap();
    assert_eq!(details.exec_id, "e");
    assert_eq!(task.connect().task_pid, task.state("").unwrap().pid);
    task.kill("e", 15, false).unwrap();
    assert_eq!(task.wait("e"), 143);
    task.kill("", 9, false).unwrap();
    task.wait("");
    task.finish();
    Leftovers::none(&pod.scratch);
}

fn running_out_of_memory_is_told_before_the_end(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let bundle = pod.bundle_with("a", "x=x; while :; do x=$x$x; done", |spec| {
        spec["linux"]["resources"] = serde_json::json!({"memory": {"limit": 16_777_216, "swap": 16_777_216}});
    });
    let mut task = pod.start("a", &bundle);
    task.create(&pod, &quiet()).unwrap();
    task.start("").unwrap();
    assert_eq!(task.wait(""), 137);
    task.finish();
    pod.hears("delete");
    let topics = pod.topics();
    let at = |what: &str| topics.iter().position(|topic| topic == what);
    assert!(at("oom").is_some() && at("oom") < at("exit a"), "{topics:?}");
    Leftovers::none(&pod.scratch);
}

fn many_waiters_all_hear(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let mut task = pod.launch("a", "sleep 1000", &quiet());
    let address = std::fs::read_to_string(task.bundle.join("address")).unwrap();
    let path = address.strip_prefix("unix://").unwrap().to_owned();
    let waiters: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || {
                let mut client = berth_ttrpc::client::Client::connect(path.as_ref()).unwrap();
                let request = wire::WaitRequest { id: "a".into(), exec_id: String::new() };
                client.call::<_, wire::WaitResponse>(
                    "containerd.task.v3.Task",
                    "Wait",
                    &request,
                    crate::pod::PLENTY,
                )
            })
        })
        .collect();
    task.kill("", 15, false).unwrap();
    task.kill("", 9, false).ok();
    let status = task.wait("");
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap().unwrap().exit_status, status);
    }
    task.finish();
    assert_eq!(pod.exits().len(), 1);
    Leftovers::none(&pod.scratch);
}

/// The descriptors that a process has.
fn open_in(pid: u32) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut open: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    open.sort();
    open
}

fn nothing_of_the_shim_leaks_into_a_container(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let mut task = pod.launch("a", "sleep 1000; true", &quiet());
    task.exec("e", "sleep 1000; true", &quiet()).unwrap();
    let exec = task.start("e").unwrap();
    let init = task.state("").unwrap().pid;
    for pid in [init, exec] {
        // A runtime answers a moment before it becomes the program, which closes what is its own.
        testkit::wait::soon("nothing but the streams", || open_in(pid) == ["0", "1", "2"]);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mask = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        assert_eq!(mask("SigBlk:"), 0);
        // The shell ignores SIGQUIT itself; the shim, as every Rust program, SIGPIPE.
        assert_eq!(mask("SigIgn:") & (1 << (13 - 1) | 1 << (17 - 1)), 0);
    }
    task.kill("", 9, false).unwrap();
    task.wait("");
    task.finish();
    Leftovers::none(&pod.scratch);
}

fn clients_that_leave_while_they_wait_are_forgotten(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let mut task = pod.launch("a", "sleep 1000", &quiet());
    let address = std::fs::read_to_string(task.bundle.join("address")).unwrap();
    let path = std::path::PathBuf::from(address.strip_prefix("unix://").unwrap());
    let open = |shim: u32| std::fs::read_dir(format!("/proc/{shim}/fd")).unwrap().count();
    pod.hears("start");
    let before = open(task.shim);
    for _ in 0..20 {
        let mut client = berth_ttrpc::client::Client::connect(&path).unwrap();
        let request = wire::WaitRequest { id: "a".into(), exec_id: String::new() };
        let soon = std::time::Duration::from_millis(10);
        let waited = client.call::<_, wire::WaitResponse>("containerd.task.v3.Task", "Wait", &request, soon);
        assert!(matches!(waited, Err(berth_ttrpc::Error::Timeout)));
    }
    wait::soon("as few descriptors as before", || open(task.shim) == before);
    task.kill("", 9, false).unwrap();
    assert_eq!(task.wait(""), 137);
    task.finish();
    Leftovers::none(&pod.scratch);
}
