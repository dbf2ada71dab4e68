//! Tasks over the channel.

use async_trait::async_trait;
use berth_core::{CreateTask, ExecProcess, Tasks, UpdateTask};
use berth_proto::containerd::services::tasks::v1 as proto;
use berth_proto::convert::{any, mounts, required, time};
use berth_types::{
    Any, ContainerId, Descriptor, ExecId, Exit, KillTarget, Metric, ProcessInfo, ProcessRef, ProcessState,
    Result, TerminalSize,
};

use crate::bound::{Bound, FOREVER, RECORDS, WORK, call};

type Service = proto::tasks_client::TasksClient<tonic::transport::Channel>;

pub(crate) struct Remote(pub(crate) Bound);

fn exit(answer: &proto::DeleteResponse) -> Exit {
    Exit { pid: answer.pid, status: answer.exit_status, at: time(answer.exited_at) }
}

#[async_trait]
impl Tasks for Remote {
    async fn create(&self, request: CreateTask) -> Result<u32> {
        let CreateTask { container, rootfs, stdio, checkpoint, options, runtime_path, endpoint } = request;
        let endpoint = endpoint.unwrap_or_default();
        let message = proto::CreateTaskRequest {
            container_id: container.into(),
            rootfs: mounts(rootfs),
            stdin: stdio.stdin,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
            terminal: stdio.terminal,
            checkpoint: checkpoint.map(Into::into),
            options: options.map(any),
            runtime_path,
            task_api_address: endpoint.address,
            task_api_version: endpoint.version,
        };
        Ok(call!(self.0, Service, create, message, WORK)?.pid)
    }

    async fn start(&self, process: &ProcessRef) -> Result<u32> {
        let message = proto::StartRequest {
            container_id: process.container.to_string(),
            exec_id: process.exec_id().to_owned(),
        };
        Ok(call!(self.0, Service, start, message, WORK)?.pid)
    }

    async fn delete(&self, container: &ContainerId) -> Result<Exit> {
        let message = proto::DeleteTaskRequest { container_id: container.to_string() };
        Ok(exit(&call!(self.0, Service, delete, message, WORK)?))
    }

    async fn delete_process(&self, container: &ContainerId, exec: &ExecId) -> Result<Exit> {
        let message =
            proto::DeleteProcessRequest { container_id: container.to_string(), exec_id: exec.to_string() };
        Ok(exit(&call!(self.0, Service, delete_process, message, WORK)?))
    }

    async fn state(&self, process: &ProcessRef) -> Result<ProcessState> {
        let message = proto::GetRequest {
            container_id: process.container.to_string(),
            exec_id: process.exec_id().to_owned(),
        };
        let answer = call!(self.0, Service, get, message, RECORDS)?;
        let found = required("the process in the daemon's answer", answer.process)?;
        Ok(found.into_state(process.clone()))
    }

    async fn list(&self) -> Result<Vec<ProcessState>> {
        let message = proto::ListTasksRequest::default();
        let answer = call!(self.0, Service, list, message, RECORDS)?;
        let tasks = answer.tasks.into_iter().map(|process| {
            let container = ContainerId::try_from(process.id.clone())?;
            Ok(process.into_state(ProcessRef::init(container)))
        });
        tasks.collect()
    }

    async fn kill(&self, process: &ProcessRef, signal: u32, target: KillTarget) -> Result<()> {
        let message = proto::KillRequest {
            container_id: process.container.to_string(),
            exec_id: process.exec_id().to_owned(),
            signal,
            all: target == KillTarget::All,
        };
        call!(self.0, Service, kill, message, RECORDS).map(drop)
    }

    async fn exec(&self, request: ExecProcess) -> Result<()> {
        let ExecProcess { process, stdio, spec } = request;
        let message = proto::ExecProcessRequest {
            exec_id: process.exec_id().to_owned(),
            container_id: process.container.into(),
            stdin: stdio.stdin,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
            terminal: stdio.terminal,
            spec: Some(any(spec)),
        };
        call!(self.0, Service, exec, message, WORK).map(drop)
    }

    async fn resize(&self, process: &ProcessRef, size: TerminalSize) -> Result<()> {
        let message = proto::ResizePtyRequest {
            container_id: process.container.to_string(),
            exec_id: process.exec_id().to_owned(),
            width: size.width,
            height: size.height,
        };
        call!(self.0, Service, resize_pty, message, RECORDS).map(drop)
    }

    async fn close_stdin(&self, process: &ProcessRef) -> Result<()> {
        let message = proto::CloseIoRequest {
            container_id: process.container.to_string(),
            exec_id: process.exec_id().to_owned(),
            stdin: true,
        };
        call!(self.0, Service, close_io, message, RECORDS).map(drop)
    }

    async fn pids(&self, container: &ContainerId) -> Result<Vec<ProcessInfo>> {
        let message = proto::ListPidsRequest { container_id: container.to_string() };
        let answer = call!(self.0, Service, list_pids, message, RECORDS)?;
        Ok(answer.processes.into_iter().map(Into::into).collect())
    }

    async fn pause(&self, container: &ContainerId) -> Result<()> {
        let message = proto::PauseTaskRequest { container_id: container.to_string() };
        call!(self.0, Service, pause, message, WORK).map(drop)
    }

    async fn resume(&self, container: &ContainerId) -> Result<()> {
        let message = proto::ResumeTaskRequest { container_id: container.to_string() };
        call!(self.0, Service, resume, message, WORK).map(drop)
    }

    async fn checkpoint(
        &self,
        container: &ContainerId,
        parent: Option<&Descriptor>,
        options: Option<Any>,
    ) -> Result<Vec<Descriptor>> {
        let message = proto::CheckpointTaskRequest {
            container_id: container.to_string(),
            parent_checkpoint: parent.map(|parent| parent.digest.to_string()).unwrap_or_default(),
            options: options.map(any),
        };
        let answer = call!(self.0, Service, checkpoint, message, WORK)?;
        answer.descriptors.into_iter().map(TryInto::try_into).collect()
    }

    async fn update(&self, request: UpdateTask) -> Result<()> {
        let UpdateTask { container, resources, annotations } = request;
        let message = proto::UpdateTaskRequest {
            container_id: container.into(),
            resources: resources.map(any),
            annotations: annotations.into_iter().collect(),
        };
        call!(self.0, Service, update, message, WORK).map(drop)
    }

    async fn metrics(&self, filters: &[String]) -> Result<Vec<Metric>> {
        let message = proto::MetricsRequest { filters: filters.to_vec() };
        let answer = call!(self.0, Service, metrics, message, RECORDS)?;
        // A task that ended while it was asked leaves an empty entry.
        let known = answer.metrics.into_iter().filter(|metric| !metric.id.is_empty());
        known.map(TryInto::try_into).collect()
    }

    async fn wait(&self, process: &ProcessRef) -> Result<Exit> {
        let message = proto::WaitRequest {
            container_id: process.container.to_string(),
            exec_id: process.exec_id().to_owned(),
        };
        let answer = call!(self.0, Service, wait, message, FOREVER)?;
        Ok(Exit { pid: 0, status: answer.exit_status, at: time(answer.exited_at) })
    }
}
