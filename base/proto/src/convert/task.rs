//! Processes of tasks.

use berth_types::{
    ContainerId, Error, Exit, Metric, ProcessInfo, ProcessRef, ProcessState, ProcessStatus, Stdio,
};

use super::{any, from_any, time, timestamp};
use crate::containerd::{types, v1::types as wire};

impl From<ProcessStatus> for wire::Status {
    fn from(status: ProcessStatus) -> Self {
        match status {
            ProcessStatus::Unknown => Self::Unknown,
            ProcessStatus::Created => Self::Created,
            ProcessStatus::Running => Self::Running,
            ProcessStatus::Stopped => Self::Stopped,
            ProcessStatus::Paused => Self::Paused,
            ProcessStatus::Pausing => Self::Pausing,
        }
    }
}

impl From<wire::Status> for ProcessStatus {
    fn from(status: wire::Status) -> Self {
        match status {
            wire::Status::Unknown => Self::Unknown,
            wire::Status::Created => Self::Created,
            wire::Status::Running => Self::Running,
            wire::Status::Stopped => Self::Stopped,
            wire::Status::Paused => Self::Paused,
            wire::Status::Pausing => Self::Pausing,
        }
    }
}

/// As containerd does, `id` names the process (a task's first process is named like its container) and
/// `container_id` stays empty.
impl From<ProcessState> for wire::Process {
    fn from(state: ProcessState) -> Self {
        let ProcessState { process, pid, status, stdio, exit } = state;
        Self {
            container_id: String::new(),
            id: process.exec.map_or_else(|| process.container.into(), String::from),
            pid,
            status: wire::Status::from(status) as i32,
            stdin: stdio.stdin,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
            terminal: stdio.terminal,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.and_then(|exit| timestamp(exit.at)),
        }
    }
}

impl wire::Process {
    /// The state of the process that was asked for; a status of a later version is unknown.
    pub fn into_state(self, process: ProcessRef) -> ProcessState {
        let status = wire::Status::try_from(self.status).unwrap_or(wire::Status::Unknown).into();
        let exit = Exit { pid: self.pid, status: self.exit_status, at: time(self.exited_at) };
        ProcessState {
            process,
            pid: self.pid,
            status,
            stdio: Stdio {
                stdin: self.stdin,
                stdout: self.stdout,
                stderr: self.stderr,
                terminal: self.terminal,
            },
            exit: (status == ProcessStatus::Stopped).then_some(exit),
        }
    }
}

impl From<ProcessInfo> for wire::ProcessInfo {
    fn from(info: ProcessInfo) -> Self {
        Self { pid: info.pid, info: info.info.map(any) }
    }
}

impl From<wire::ProcessInfo> for ProcessInfo {
    fn from(info: wire::ProcessInfo) -> Self {
        Self { pid: info.pid, info: info.info.map(from_any) }
    }
}

impl From<Metric> for types::Metric {
    fn from(metric: Metric) -> Self {
        Self { timestamp: timestamp(metric.timestamp), id: metric.id.into(), data: metric.data.map(any) }
    }
}

impl TryFrom<types::Metric> for Metric {
    type Error = Error;

    fn try_from(metric: types::Metric) -> Result<Self, Error> {
        Ok(Self {
            id: ContainerId::try_from(metric.id)?,
            timestamp: time(metric.timestamp),
            data: metric.data.map(from_any),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_process_keeps_its_state_over_the_wire() {
        let process = ProcessRef::exec("a".parse().unwrap(), "b".parse().unwrap());
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
        let state = ProcessState {
            process: process.clone(),
            pid: 9,
            status: ProcessStatus::Stopped,
            stdio: Stdio { stdout: "/o".into(), ..Stdio::default() },
            exit: Some(Exit { pid: 9, status: 137, at }),
        };
        let message = wire::Process::from(state.clone());
        assert_eq!((message.id.as_str(), message.container_id.as_str()), ("b", ""));
        assert_eq!(message.into_state(process), state);
    }
}
