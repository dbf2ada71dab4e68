//! Calls that look, and those that touch a stream.

use berth_proto as proto;
use berth_proto::convert::{any, pack, timestamp};
use berth_ttrpc::server::Responder;
use berth_types::{Error, ErrorKind, Result};
use prost_types::Timestamp;
use proto::containerd::runc::v1::ProcessDetails;
use proto::containerd::task::v3 as wire;
use proto::containerd::v1::types::ProcessInfo;
use rustix::termios::{Winsize, tcsetwinsize};

use super::{reply, status, task, task_mut};
use crate::cgroup;
use crate::serve::Shim;
use crate::serve::task::{ProcessKey, State};

/// What Go's programs say for "never": the first second of the year 1. containerd's shim answers it for a process
/// that has not ended.
const NEVER: Timestamp = Timestamp { seconds: -62_135_596_800, nanos: 0 };

/// `State`.
pub(super) fn state(shim: &Shim, request: &wire::StateRequest) -> Result<wire::StateResponse> {
    let task = task(shim, &request.id)?;
    let process = task.process(&request.exec_id)?;
    // A frozen container's processes are all frozen.
    let state = match (task.init.state, process.state) {
        (frozen @ (State::Paused | State::Pausing), own) if own != State::Stopped => frozen,
        (_, own) => own,
    };
    let streams = process.streams.clone();
    Ok(wire::StateResponse {
        id: ProcessKey::new(&request.id, &request.exec_id).id().to_owned(),
        bundle: task.bundle.to_string_lossy().into_owned(),
        pid: process.pid,
        status: state.wire() as i32,
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr,
        terminal: streams.terminal,
        exit_status: process.exit.map_or(0, |exit| exit.status),
        exited_at: process.exit.map_or(Some(NEVER), |exit| timestamp(exit.at)),
        exec_id: String::new(),
    })
}

/// `Pids`.
pub(super) fn pids(shim: &mut Shim, request: wire::PidsRequest, responder: Responder) {
    let runtime = match task(shim, &request.id) {
        Ok(task) => task.runtime.clone(),
        Err(error) => return reply(responder, Err::<wire::PidsResponse, _>(error)),
    };
    if runtime.is_quick() {
        let answer = runtime.pids(&request.id).map(|pids| describe(shim, &request.id, pids));
        return reply(responder, answer);
    }
    shim.jobs.run(move || {
        let pids = runtime.pids(&request.id);
        Box::new(move |shim| {
            let answer = pids.map(|pids| describe(shim, &request.id, pids));
            reply(responder, answer);
        })
    });
}

/// Says of which pid we know that it is an exec.
fn describe(shim: &Shim, id: &str, pids: Vec<u32>) -> wire::PidsResponse {
    let execs = shim.tasks.get(id).map(|task| &task.execs);
    let info = |pid: u32| {
        let (exec_id, _) = execs?.iter().find(|(_, process)| process.pid == pid)?;
        Some(any(pack(&ProcessDetails { exec_id: exec_id.clone() })))
    };
    let processes = pids.into_iter().map(|pid| ProcessInfo { pid, info: info(pid) });
    wire::PidsResponse { processes: processes.collect() }
}

/// `Wait`: answered when the process has ended.
pub(super) fn wait(shim: &mut Shim, request: &wire::WaitRequest, responder: Responder) {
    let process = task_mut(shim, &request.id).and_then(|task| task.process_mut(&request.exec_id));
    match process {
        Err(error) => responder.send(Err(status(&error))),
        Ok(process) => match process.exit {
            Some(exit) => {
                let answer = wire::WaitResponse { exit_status: exit.status, exited_at: timestamp(exit.at) };
                reply(responder, Ok(answer));
            }
            None => process.waiters.push(responder),
        },
    }
}

/// `Stats`.
pub(super) fn stats(shim: &Shim, request: &wire::StatsRequest) -> Result<wire::StatsResponse> {
    let cgroup = task(shim, &request.id)?.cgroup.as_ref();
    let cgroup = cgroup.ok_or_else(|| Error::not_found("cgroup does not exist"))?;
    Ok(wire::StatsResponse { stats: Some(any(cgroup::metrics(cgroup)?)) })
}

/// `Connect`.
pub(super) fn connect(shim: &Shim, request: &wire::ConnectRequest) -> wire::ConnectResponse {
    wire::ConnectResponse {
        shim_pid: std::process::id(),
        task_pid: task(shim, &request.id).map_or(0, |task| task.init.pid),
        version: String::new(),
    }
}

/// `ResizePty`.
pub(super) fn resize(shim: &mut Shim, request: &wire::ResizePtyRequest) -> Result<()> {
    let process = task_mut(shim, &request.id)?.process_mut(&request.exec_id)?;
    if process.state == State::Stopped && !request.exec_id.is_empty() {
        return Err(Error::new(ErrorKind::Unknown, "cannot resize a stopped container"));
    }
    let Some(console) = &process.console else { return Ok(()) };
    let size = Winsize {
        ws_row: request.height.min(u32::from(u16::MAX)) as u16,
        ws_col: request.width.min(u32::from(u16::MAX)) as u16,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(console, size).map_err(|e| Error::io("cannot resize the terminal", e.into()))
}

/// `CloseIO`: the client has no more input.
pub(super) fn close_io(shim: &mut Shim, request: &wire::CloseIoRequest) -> Result<()> {
    let process = task_mut(shim, &request.id)?.process_mut(&request.exec_id)?;
    process.stdin = None;
    process.input_closed = true;
    if let Some(output) = process.output {
        shim.close_feed(output);
    }
    Ok(())
}
