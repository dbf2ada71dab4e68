//! More processes for a container.

use berth_proto as proto;
use berth_ttrpc::server::Responder;
use berth_types::{Error, ErrorKind, Result};
use proto::containerd::events::{TaskExecAdded, TaskExecStarted};
use proto::containerd::task::v3::{ExecProcessRequest, StartResponse, WaitResponse};

use super::{release, reply, send_signal, task, task_mut};
use crate::runtime::{ChildIo, Exec, Spawned};
use crate::serve::Shim;
use crate::serve::task::{Process, ProcessKey, State, wrong_state};
use crate::stdio::{Handing, Plan, Streams};

/// `Exec`: takes note of a process that is to be started.
pub(super) fn add(shim: &mut Shim, request: ExecProcessRequest) -> Result<()> {
    let task = task_mut(shim, &request.id)?;
    let exec_id = request.exec_id;
    if exec_id.is_empty() || exec_id.contains('/') {
        return Err(Error::invalid_argument(format!("exec id {exec_id:?} is not valid")));
    }
    if task.execs.contains_key(&exec_id) {
        return Err(Error::already_exists(format!("id {exec_id}")));
    }
    match task.init.state {
        State::Created | State::Running if task.restore.is_none() => {}
        state => return Err(Error::new(ErrorKind::Unknown, format!("cannot exec in a {state} state"))),
    }
    let streams = Streams {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        terminal: request.terminal,
    };
    let spec = process_document(&request.spec.unwrap_or_default().value, request.terminal)?;
    let process = Process { state: State::Created, streams, spec, ..Process::default() };
    task.execs.insert(exec_id.clone(), Box::new(process));
    shim.tell("/tasks/exec-added", &TaskExecAdded { container_id: request.id, exec_id });
    Ok(())
}

/// The OCI process, with a terminal or without as the request says.
fn process_document(spec: &[u8], terminal: bool) -> Result<Vec<u8>> {
    let wrong = |e| Error::invalid_argument("the process to run is no OCI process").caused_by(e);
    let mut document: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(spec).map_err(wrong)?;
    document.insert("terminal".to_owned(), terminal.into());
    serde_json::to_vec(&document).map_err(wrong)
}

/// `Start` of such a process.
pub(super) fn start(shim: &mut Shim, key: ProcessKey, responder: Responder) {
    let prepared = prepare(shim, &key);
    let (mut plan, request) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return reply(responder, Err::<StartResponse, _>(error)),
    };
    let Ok(task) = task(shim, &key.container) else { return };
    let (runtime, children, namespace) =
        (task.runtime.clone(), shim.children.clone(), shim.settings.namespace.clone());
    let child = std::mem::replace(&mut plan.child, ChildIo::Terminal);
    let logger = plan.logger.take();
    shim.jobs.run(move || {
        let mut logger_pid = None;
        let run = || -> Result<Spawned> {
            if let Some(logger) = logger {
                logger_pid = Some(logger.start(&request.exec_id, &namespace, &children)?);
            }
            runtime.exec(&request, child)
        };
        let outcome = run();
        Box::new(move |shim| match outcome {
            Ok(spawned) => started(shim, &key, spawned, plan, logger_pid, responder),
            Err(error) => {
                if let Some(pid) = logger_pid {
                    send_signal(pid, rustix::process::Signal::TERM);
                }
                failed(shim, &key, error, responder);
            }
        })
    });
}

fn prepare(shim: &mut Shim, key: &ProcessKey) -> Result<(Plan, Exec)> {
    let task = task_mut(shim, &key.container)?;
    if task.held_exit.is_some() || task.init.state == State::Stopped {
        return Err(Error::failed_precondition(format!(
            "container {} init process is not running",
            key.container
        )));
    }
    let (bundle, owner) = (task.bundle.clone(), task.owner);
    let handing = if task.runtime.is_quick() { Handing::Direct } else { Handing::Copied };
    let process = task.process_mut(&key.exec)?;
    if process.state != State::Created {
        return Err(wrong_state("start", process.state));
    }
    let plan = Plan::open(&process.streams, &bundle, owner, handing)?;
    if plan.output.is_some() {
        return Err(Error::invalid_argument("only a container's first process can have a berth-json log"));
    }
    process.busy = true;
    process.starting = true;
    let request = Exec {
        id: key.container.clone(),
        exec_id: key.exec.clone(),
        bundle,
        process: std::mem::take(&mut process.spec),
    };
    Ok((plan, request))
}

fn started(
    shim: &mut Shim,
    key: &ProcessKey,
    spawned: Spawned,
    plan: Plan,
    logger: Option<u32>,
    responder: Responder,
) {
    let Spawned { pid, console } = spawned;
    shim.install(key, plan, console, logger);
    if let Some(process) = shim.process_mut(key) {
        process.state = State::Running;
    }
    shim.learn_pid(key, pid);
    let event = TaskExecStarted { container_id: key.container.clone(), exec_id: key.exec.clone(), pid };
    shim.tell("/tasks/exec-started", &event);
    reply(responder, Ok(StartResponse { pid }));
    shim.started(key);
    release(shim, key);
}

fn failed(shim: &mut Shim, key: &ProcessKey, error: Error, responder: Responder) {
    if let Some(process) = shim.process_mut(key) {
        // Nobody waits for what never ran.
        for waiter in std::mem::take(&mut process.waiters) {
            waiter.send_message(Ok(WaitResponse::default()));
        }
    }
    reply(responder, Err::<StartResponse, _>(error));
    shim.started(key);
    release(shim, key);
}
