//! What happens to a process between its making and its removal.

use std::path::PathBuf;

use berth_proto as proto;
use berth_proto::convert::timestamp;
use berth_ttrpc::server::Responder;
use berth_types::{Error, ErrorKind, Result};
use prost::{Message as _, Name as _};
use proto::containerd::events::{TaskDelete, TaskPaused, TaskResumed, TaskStart};
use proto::containerd::runc::v1::CheckpointOptions;
use proto::containerd::task::v3 as wire;
use rustix::process::{Pid, Signal, kill_process};

use super::{release, reply, task, task_mut};
use crate::children::Exited;
use crate::runtime::{Checkpoint, ChildIo, Running, Runtime, Spawned};
use crate::serve::Shim;
use crate::serve::task::{ProcessKey, State, wrong_state};

/// `Start` of a container's first process.
pub(super) fn start(shim: &mut Shim, key: &ProcessKey, responder: Responder) {
    let runtime = match begin_start(shim, key) {
        Ok(runtime) => runtime,
        Err(error) => return reply(responder, Err::<wire::StartResponse, _>(error)),
    };
    let restore = shim.tasks.get_mut(&key.container).and_then(|task| task.restore.take());
    if restore.is_none() && runtime.starts_quickly() {
        let outcome = runtime.start(&key.container);
        return started(shim, key, outcome, responder);
    }
    let (id, key) = (key.container.clone(), key.clone());
    shim.jobs.run(move || match restore {
        None => {
            let outcome = runtime.start(&id);
            Box::new(move |shim| started(shim, &key, outcome, responder))
        }
        Some(restore) => {
            let (request, mut plan) = *restore;
            let io = std::mem::replace(&mut plan.child, ChildIo::Terminal);
            let outcome = runtime.restore(&request, io);
            Box::new(move |shim| {
                let outcome = outcome.map(|Spawned { pid, console }| {
                    shim.install(&key, plan, console, None);
                    super::create::account_restored(shim, &key.container, pid);
                    shim.learn_pid(&key, pid);
                });
                started(shim, &key, outcome, responder);
            })
        }
    });
}

fn begin_start(shim: &mut Shim, key: &ProcessKey) -> Result<std::sync::Arc<dyn Runtime>> {
    let task = task_mut(shim, &key.container)?;
    if task.init.state != State::Created {
        return Err(wrong_state("start", task.init.state));
    }
    if task.held_exit.is_some() {
        return Err(wrong_state("start", State::Stopped));
    }
    task.init.busy = true;
    task.init.starting = true;
    Ok(task.runtime.clone())
}

fn started(shim: &mut Shim, key: &ProcessKey, outcome: Result<()>, responder: Responder) {
    let answer = outcome.map(|()| {
        let pid = shim.process_mut(key).map_or(0, |process| {
            process.state = State::Running;
            process.pid
        });
        shim.tell("/tasks/start", &TaskStart { container_id: key.container.clone(), pid });
        wire::StartResponse { pid }
    });
    reply(responder, answer);
    shim.started(key);
    release(shim, key);
}

/// `Delete` of a process, or of the whole container with its first one.
pub(super) fn delete(shim: &mut Shim, key: ProcessKey, responder: Responder) {
    let begun = task_mut(shim, &key.container).and_then(|task| {
        let is_telling = task.held_exit.is_some() && key.is_init();
        let process = task.process_mut(&key.exec)?;
        match process.state {
            State::Created | State::Stopped if !is_telling => {
                process.busy = true;
                Ok(())
            }
            state => Err(wrong_state("delete", state)),
        }
    });
    if let Err(error) = begun {
        return reply(responder, Err::<wire::DeleteResponse, _>(error));
    }
    // A created container is ended by its deletion; its output cannot end before.
    let is_created = shim.process_mut(&key).is_some_and(|process| process.state == State::Created);
    let of = key.clone();
    let then = move |shim: &mut Shim| {
        if key.is_init() {
            delete_container(shim, key, responder);
        } else {
            let answer = forget(shim, &key);
            reply(responder, Ok(answer));
        }
    };
    if is_created { then(shim) } else { shim.when_drained(&of, Box::new(then)) }
}

fn delete_container(shim: &mut Shim, key: ProcessKey, responder: Responder) {
    let Ok(task) = task(shim, &key.container) else { return };
    let (runtime, rootfs, id) = (task.runtime.clone(), task.bundle.join("rootfs"), task.id.clone());
    shim.jobs.run(move || {
        let deleted = runtime.delete(&id, Running::Spare);
        let unmounted = berth_sys::mount::detach_all(&rootfs)
            .map_err(|e| Error::unknown("failed rootfs umount").caused_by(e));
        // Here, so that an overlay whose container could not be deleted does not end in the loop.
        let done = deleted.and(unmounted);
        Box::new(move |shim| {
            let rest = match done {
                Ok(rest) => rest,
                Err(error) => {
                    reply(responder, Err::<wire::DeleteResponse, _>(error));
                    return release(shim, &key);
                }
            };
            let answer = forget(shim, &key);
            let event = TaskDelete {
                container_id: key.container,
                pid: answer.pid,
                exit_status: answer.exit_status,
                exited_at: answer.exited_at,
                id: String::new(),
            };
            shim.tell("/tasks/delete", &event);
            reply(responder, Ok(answer));
            // The end of an overlay waits for the disk, and nobody waits for that: its folder is free, and what was
            // written through it is in the files beneath. A shim that is told to go takes it along.
            shim.jobs.run(move || {
                drop(rest);
                Box::new(|_| {})
            });
        })
    });
}

/// Removes a process, and with the first one the container; calls that waited for their turn find nothing any more.
fn forget(shim: &mut Shim, key: &ProcessKey) -> wire::DeleteResponse {
    let process = if key.is_init() {
        shim.tasks.remove(&key.container).map(|task| task.init)
    } else {
        let exec = shim.tasks.get_mut(&key.container).and_then(|task| task.execs.remove(&key.exec));
        exec.map(|process| *process)
    };
    let Some(process) = process else { return wire::DeleteResponse::default() };
    if let Some(output) = process.output {
        shim.discard_output(output);
    }
    for call in process.queue {
        shim.call(call);
    }
    let Exited { status, at, .. } =
        process.exit.unwrap_or(Exited { pid: process.pid, status: 0, at: std::time::SystemTime::UNIX_EPOCH });
    wire::DeleteResponse { pid: process.pid, exit_status: status, exited_at: timestamp(at) }
}

/// `Kill`.
pub(super) fn kill(shim: &mut Shim, key: &ProcessKey, request: &wire::KillRequest, responder: Responder) {
    if !key.is_init() {
        return reply(responder, kill_exec(shim, key, request.signal));
    }
    let task = match task_mut(shim, &key.container) {
        Ok(task) => task,
        Err(error) => return reply(responder, Err::<(), _>(error)),
    };
    if !request.all && (task.init.state == State::Stopped || task.held_exit.is_some()) {
        return reply(responder, Err::<(), _>(Error::not_found("process already finished")));
    }
    let (runtime, id, signal, all) = (task.runtime.clone(), task.id.clone(), request.signal, request.all);
    let send = move || if all { runtime.kill_all(&id, signal) } else { runtime.kill(&id, signal) };
    if task.runtime.is_quick() {
        return reply(responder, send());
    }
    task.init.busy = true;
    let key = key.clone();
    shim.jobs.run(move || {
        let outcome = send();
        Box::new(move |shim| {
            reply(responder, outcome);
            release(shim, &key);
        })
    });
}

fn kill_exec(shim: &mut Shim, key: &ProcessKey, signal: u32) -> Result<()> {
    let process = task_mut(shim, &key.container)?.process_mut(&key.exec)?;
    if process.pid == 0 {
        return Err(Error::failed_precondition("process not created"));
    }
    if process.exit.is_some() {
        return Err(Error::not_found("process already finished"));
    }
    let signal = named_signal(signal)?;
    // It is our child and not reaped, so the number is still its own.
    match Pid::from_raw(process.pid as i32).map(|pid| kill_process(pid, signal)) {
        Some(Err(rustix::io::Errno::SRCH)) | None => Err(Error::not_found("process already finished")),
        Some(Err(error)) => Err(Error::io("exec kill error", error.into())),
        Some(Ok(())) => Ok(()),
    }
}

fn named_signal(number: u32) -> Result<Signal> {
    let highest = libc::SIGRTMAX();
    i32::try_from(number)
        .ok()
        .filter(|number| (1..=highest).contains(number))
        .and_then(berth_sys::signal::by_number)
        .ok_or_else(|| Error::invalid_argument(format!("{number} is no signal")))
}

/// `Pause`.
pub(super) fn pause(shim: &mut Shim, key: &ProcessKey, responder: Responder) {
    let begun = task_mut(shim, &key.container).and_then(|task| match task.init.state {
        State::Running => {
            task.init.state = State::Pausing;
            task.init.busy = true;
            Ok(task.runtime.clone())
        }
        State::Created => Err(unkind("cannot pause task in created state")),
        state => Err(unkind(&format!("cannot pause a {state} container"))),
    });
    let runtime = match begun {
        Ok(runtime) => runtime,
        Err(error) => return reply(responder, Err::<(), _>(error)),
    };
    let key = key.clone();
    shim.jobs.run(move || {
        let outcome = runtime.pause(&key.container);
        Box::new(move |shim| {
            settle_state(shim, &key, if outcome.is_ok() { State::Paused } else { State::Running });
            if outcome.is_ok() {
                shim.tell("/tasks/paused", &TaskPaused { container_id: key.container.clone() });
            }
            reply(responder, outcome);
            release(shim, &key);
        })
    });
}

/// `Resume`.
pub(super) fn resume(shim: &mut Shim, key: &ProcessKey, responder: Responder) {
    let begun = task_mut(shim, &key.container).and_then(|task| match task.init.state {
        State::Paused => {
            task.init.busy = true;
            Ok(task.runtime.clone())
        }
        State::Created => Err(unkind("cannot resume task in created state")),
        State::Running => Err(unkind("cannot resume a running process")),
        state => Err(unkind(&format!("cannot resume a {state} container"))),
    });
    let runtime = match begun {
        Ok(runtime) => runtime,
        Err(error) => return reply(responder, Err::<(), _>(error)),
    };
    let key = key.clone();
    shim.jobs.run(move || {
        let outcome = runtime.resume(&key.container);
        Box::new(move |shim| {
            if outcome.is_ok() {
                settle_state(shim, &key, State::Running);
                shim.tell("/tasks/resumed", &TaskResumed { container_id: key.container.clone() });
            }
            reply(responder, outcome);
            release(shim, &key);
        })
    });
}

/// Sets the state after a change, unless the process has ended meanwhile.
fn settle_state(shim: &mut Shim, key: &ProcessKey, state: State) {
    if let Some(process) = shim.process_mut(key).filter(|process| process.state != State::Stopped) {
        process.state = state;
    }
}

/// `Update`.
pub(super) fn update(
    shim: &mut Shim,
    key: &ProcessKey,
    request: wire::UpdateTaskRequest,
    responder: Responder,
) {
    let begun = task_mut(shim, &key.container).and_then(|task| {
        if task.init.state == State::Stopped {
            return Err(unkind("cannot update a stopped container"));
        }
        task.init.busy = true;
        Ok(task.runtime.clone())
    });
    let runtime = match begun {
        Ok(runtime) => runtime,
        Err(error) => return reply(responder, Err::<(), _>(error)),
    };
    let (key, resources) = (key.clone(), request.resources.unwrap_or_default().value);
    shim.jobs.run(move || {
        let outcome = runtime.update(&key.container, &resources);
        Box::new(move |shim| {
            reply(responder, outcome);
            release(shim, &key);
        })
    });
}

/// `Checkpoint`.
pub(super) fn checkpoint(
    shim: &mut Shim,
    key: &ProcessKey,
    request: wire::CheckpointTaskRequest,
    responder: Responder,
) {
    let begun = checkpoint_options(&request).and_then(|options| {
        let task = task_mut(shim, &key.container)?;
        match task.init.state {
            State::Running | State::Paused => {}
            State::Created => return Err(unkind("cannot checkpoint a task in created state")),
            state => return Err(unkind(&format!("cannot checkpoint a {state} container"))),
        }
        task.init.busy = true;
        let own_work = task.bundle.join("work").join("criu-work");
        Ok((task.runtime.clone(), options, own_work))
    });
    let (runtime, options, own_work) = match begun {
        Ok(begun) => begun,
        Err(error) => return reply(responder, Err::<(), _>(error)),
    };
    let image = if request.path.is_empty() { options.image_path } else { request.path };
    let keeps_work = !options.work_path.is_empty();
    let what = Checkpoint {
        image,
        work: if keeps_work { PathBuf::from(options.work_path) } else { own_work },
        exit: options.exit,
        open_tcp: options.open_tcp,
        external_unix_sockets: options.external_unix_sockets,
        terminal: options.terminal,
        file_locks: options.file_locks,
        empty_namespaces: options.empty_namespaces,
        cgroups_mode: options.cgroups_mode,
    };
    let key = key.clone();
    shim.jobs.run(move || {
        let outcome = runtime.checkpoint(&key.container, &what);
        if !keeps_work {
            // CRIU's scratch; it may never have been made.
            let _ = std::fs::remove_dir_all(&what.work);
        }
        Box::new(move |shim| {
            reply(responder, outcome);
            release(shim, &key);
        })
    });
}

fn checkpoint_options(request: &wire::CheckpointTaskRequest) -> Result<CheckpointOptions> {
    let Some(any) = request.options.as_ref().filter(|any| !any.value.is_empty()) else {
        return Ok(CheckpointOptions::default());
    };
    if any.type_url.rsplit('/').next() != Some(CheckpointOptions::full_name().as_str()) {
        return Err(Error::invalid_argument(format!("checkpoint options of type {:?}", any.type_url)));
    }
    CheckpointOptions::decode(any.value.as_slice())
        .map_err(|e| Error::invalid_argument("the checkpoint options cannot be decoded").caused_by(e))
}

/// containerd's shim gives errors of this sort no kind, so neither do we.
fn unkind(message: &str) -> Error {
    Error::new(ErrorKind::Unknown, message)
}
