//! The task service, `containerd.task.v2.Task` and `containerd.task.v3.Task`: the same messages under two names.
//!
//! Calls that only look are answered at once. The others go through their process one at a time: while one is at
//! work, the next ones wait in the process' queue.

mod create;
mod exec;
mod lifecycle;
mod query;

use berth_proto as proto;
use berth_ttrpc::server::{Call, Responder};
use berth_ttrpc::{Code, Status};
use berth_types::{Error, Result};
use prost::Message;
use proto::containerd::task::v3 as wire;
use rustix::process::{Pid, Signal, kill_process};

use crate::serve::Shim;
use crate::serve::task::{ProcessKey, State, Task};

const SERVICES: [&str; 2] = ["containerd.task.v3.Task", "containerd.task.v2.Task"];

/// Serves one call, or queues it behind the one that its process is busy with.
pub(crate) fn serve(shim: &mut Shim, call: Call) {
    if !SERVICES.contains(&call.service.as_str()) {
        let message = format!("service {}", call.service);
        return call.responder.send(Err(Status::new(Code::Unimplemented, message)));
    }
    match call.method.as_str() {
        "State" => answer(call, |request| query::state(shim, &request)),
        "Pids" => with_request(call, |request, responder| query::pids(shim, request, responder)),
        "Wait" => with_request(call, |request, responder| query::wait(shim, &request, responder)),
        "Stats" => answer(call, |request| query::stats(shim, &request)),
        "Connect" => answer(call, |request| Ok(query::connect(shim, &request))),
        "ResizePty" => answer(call, |request| query::resize(shim, &request)),
        "CloseIO" => answer(call, |request| query::close_io(shim, &request)),
        "Create" => with_request(call, |request, responder| create::create(shim, request, responder)),
        "Exec" => answer(call, |request| exec::add(shim, request)),
        "Shutdown" => answer(call, |request: wire::ShutdownRequest| {
            shim.log.debug(format_args!("shutdown for {}, {} tasks here", request.id, shim.tasks.len()));
            // A shim that still has other containers of its group stays.
            if shim.tasks.is_empty() {
                shim.leave();
            }
            Ok(())
        }),
        "Start" | "Delete" | "Kill" | "Pause" | "Resume" | "Checkpoint" | "Update" => in_turn(shim, call),
        other => {
            let message = format!("method {other}");
            call.responder.send(Err(Status::new(Code::Unimplemented, message)));
        }
    }
}

/// What all requests that are served in turn begin with.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
struct Addressed {
    #[prost(string, tag = "1")]
    id: String,
    /// Only in requests whose second field is the exec id.
    #[prost(string, tag = "2")]
    exec_id: String,
}

fn in_turn(shim: &mut Shim, call: Call) {
    let key = match addressee(&call) {
        Ok(key) => key,
        Err(error) => return call.responder.send(Err(status(&error))),
    };
    let process = task_mut(shim, &key.container).and_then(|task| task.process_mut(&key.exec));
    match process {
        Err(error) => return call.responder.send(Err(status(&error))),
        Ok(process) if process.busy => return process.queue.push_back(call),
        Ok(_) => {}
    }
    match call.method.as_str() {
        "Start" if key.is_init() => with_nothing(call, |responder| lifecycle::start(shim, &key, responder)),
        "Start" => with_nothing(call, |responder| exec::start(shim, key, responder)),
        "Delete" => with_nothing(call, |responder| lifecycle::delete(shim, key, responder)),
        "Kill" => with_request(call, |request, responder| lifecycle::kill(shim, &key, &request, responder)),
        "Pause" => with_nothing(call, |responder| lifecycle::pause(shim, &key, responder)),
        "Resume" => with_nothing(call, |responder| lifecycle::resume(shim, &key, responder)),
        "Checkpoint" => {
            with_request(call, |request, responder| lifecycle::checkpoint(shim, &key, request, responder));
        }
        _ => with_request(call, |request, responder| lifecycle::update(shim, &key, request, responder)),
    }
}

/// The process that a call is for.
fn addressee(call: &Call) -> Result<ProcessKey> {
    let of_process = matches!(call.method.as_str(), "Start" | "Delete" | "Kill");
    let addressed = if of_process {
        Addressed::decode(call.payload.as_slice())
    } else {
        // Their second field is another message; only the first concerns us here.
        wire::PauseRequest::decode(call.payload.as_slice())
            .map(|request| Addressed { id: request.id, exec_id: String::new() })
    };
    let addressed = addressed.map_err(malformed)?;
    Ok(ProcessKey::new(&addressed.id, &addressed.exec_id))
}

/// A process is free for the next call.
pub(crate) fn release(shim: &mut Shim, key: &ProcessKey) {
    let Some(process) = shim.process_mut(key) else { return };
    process.busy = false;
    while let Some(call) = shim.process_mut(key).and_then(|process| process.queue.pop_front()) {
        in_turn(shim, call);
        if shim.process_mut(key).is_none_or(|process| process.busy) {
            return;
        }
    }
}

/// The task of an id, once it has been created.
fn task<'a>(shim: &'a Shim, id: &str) -> Result<&'a Task> {
    shim.tasks
        .get(id)
        .map(|task| &**task)
        .filter(|task| task.init.state != State::Creating)
        .ok_or_else(not_created)
}

fn task_mut<'a>(shim: &'a mut Shim, id: &str) -> Result<&'a mut Task> {
    shim.tasks
        .get_mut(id)
        .map(|task| &mut **task)
        .filter(|task| task.init.state != State::Creating)
        .ok_or_else(not_created)
}

fn not_created() -> Error {
    Error::not_found("container not created")
}

/// Decodes, serves and answers.
fn answer<Q: Message + Default, A: Message>(call: Call, serve: impl FnOnce(Q) -> Result<A>) {
    with_request(call, |request, responder| reply(responder, serve(request)));
}

/// Decodes and serves; the answer may come later.
fn with_request<Q: Message + Default>(call: Call, serve: impl FnOnce(Q, Responder)) {
    match Q::decode(call.payload.as_slice()) {
        Ok(request) => serve(request, call.responder),
        Err(error) => call.responder.send(Err(status(&malformed(error)))),
    }
}

fn with_nothing(call: Call, serve: impl FnOnce(Responder)) {
    serve(call.responder);
}

fn malformed(error: prost::DecodeError) -> Error {
    Error::invalid_argument("the request cannot be decoded").caused_by(error)
}

/// Answers.
fn reply<A: Message>(responder: Responder, result: Result<A>) {
    responder.send_message(result.map_err(|error| status(&error)));
}

/// An error as it travels.
fn status(error: &Error) -> Status {
    Status::new(Code::from(proto::status::code(error.kind())), error.chain())
}

/// Sends a signal to a child of ours. One that has ended but was not reaped takes it and does nothing.
pub(crate) fn send_signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        // Gone is what was wanted.
        let _ = kill_process(pid, signal);
    }
}
