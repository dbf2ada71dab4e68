//! Lives of containers and of the processes in them.

use std::io::Read as _;

use berth_ttrpc::Code;
use testkit::Leftovers;

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

for_both!(a_container_lives_from_create_to_delete, a_signal_is_128_more, an_exec_has_its_own_end_and_events,);

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
