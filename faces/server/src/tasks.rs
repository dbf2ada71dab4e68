//! `containerd.services.tasks.v1.Tasks`.

use std::sync::Arc;

use berth_core::{CreateTask, Endpoint, ExecProcess, Scope, UpdateTask};
use berth_proto as proto;
use berth_types::{ContainerId, Descriptor, Exit, KillTarget, ProcessRef, ProcessState, Stdio, TerminalSize};
use proto::containerd::services::tasks::v1::{self as wire, tasks_server};
use proto::containerd::v1::types::Process;
use proto::convert::{from_any, mounts_from, timestamp};
use tonic::{Request, Response, Status};

use crate::containers::container_id;
use crate::headers::scope;
use crate::shared::{Shared, ok, required};

/// The service.
pub(crate) struct Tasks(pub(crate) Shared);

impl Tasks {
    fn tasks(&self, scope: &Scope) -> Arc<dyn berth_core::Tasks> {
        self.0.catalog.tasks(scope)
    }

    /// The tasks of a request's namespace and the process that it means.
    fn process(
        &self,
        scope: &Scope,
        container: &str,
        exec: &str,
    ) -> Result<(Arc<dyn berth_core::Tasks>, ProcessRef), Status> {
        let container = container_id(scope, container)?;
        let exec = match exec {
            "" => None,
            exec => {
                let absent =
                    |_| Status::not_found(format!("process {exec:?} of task {container}: not found"));
                Some(exec.parse().map_err(absent)?)
            }
        };
        Ok((self.tasks(scope), ProcessRef { container, exec }))
    }

    /// The tasks of a request's namespace and the one that it means.
    fn task(
        &self,
        scope: &Scope,
        container: &str,
    ) -> Result<(Arc<dyn berth_core::Tasks>, ContainerId), Status> {
        Ok((self.tasks(scope), container_id(scope, container)?))
    }
}

/// Go's `time.Time{}`, which containerd sends for a process that has not ended; clients tell by it.
const NEVER: proto::prost_types::Timestamp =
    proto::prost_types::Timestamp { seconds: -62_135_596_800, nanos: 0 };

fn reported(state: ProcessState) -> Process {
    let mut process = Process::from(state);
    process.exited_at.get_or_insert(NEVER);
    process
}

fn deleted(id: String, exit: Exit) -> wire::DeleteResponse {
    let Exit { pid, status, at } = exit;
    wire::DeleteResponse { id, pid, exit_status: status, exited_at: timestamp(at) }
}

#[tonic::async_trait]
impl tasks_server::Tasks for Tasks {
    async fn create(
        &self,
        request: Request<wire::CreateTaskRequest>,
    ) -> Result<Response<wire::CreateTaskResponse>, Status> {
        let scope = scope(&request)?;
        let request = request.into_inner();
        let (tasks, container) = self.task(&scope, &request.container_id)?;
        let checkpoint: Option<Descriptor> = ok(request.checkpoint.map(TryInto::try_into).transpose())?;
        let endpoint = Endpoint { address: request.task_api_address, version: request.task_api_version };
        let endpoint = Some(endpoint).filter(|endpoint| !endpoint.address.is_empty());
        let create = CreateTask {
            container,
            rootfs: mounts_from(request.rootfs),
            stdio: Stdio {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
            },
            checkpoint,
            options: request.options.map(from_any),
            runtime_path: request.runtime_path,
            endpoint,
        };
        let change = async move {
            let container_id = create.container.to_string();
            let pid = tasks.create(create).await?;
            Ok(wire::CreateTaskResponse { container_id, pid })
        };
        self.0.mutations.run(change).await
    }

    async fn start(
        &self,
        request: Request<wire::StartRequest>,
    ) -> Result<Response<wire::StartResponse>, Status> {
        let scope = scope(&request)?;
        let wire::StartRequest { container_id, exec_id } = request.into_inner();
        let (tasks, process) = self.process(&scope, &container_id, &exec_id)?;
        let change = async move { Ok(wire::StartResponse { pid: tasks.start(&process).await? }) };
        self.0.mutations.run(change).await
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteTaskRequest>,
    ) -> Result<Response<wire::DeleteResponse>, Status> {
        let scope = scope(&request)?;
        let (tasks, container) = self.task(&scope, &request.into_inner().container_id)?;
        let change = async move { Ok(deleted(String::new(), tasks.delete(&container).await?)) };
        self.0.mutations.run(change).await
    }

    async fn delete_process(
        &self,
        request: Request<wire::DeleteProcessRequest>,
    ) -> Result<Response<wire::DeleteResponse>, Status> {
        let scope = scope(&request)?;
        let wire::DeleteProcessRequest { container_id, exec_id } = request.into_inner();
        let (tasks, ProcessRef { container, exec }) = self.process(&scope, &container_id, &exec_id)?;
        let exec = required("the exec id", exec)?;
        let change = async move {
            let exit = tasks.delete_process(&container, &exec).await?;
            Ok(deleted(exec.into(), exit))
        };
        self.0.mutations.run(change).await
    }

    async fn get(&self, request: Request<wire::GetRequest>) -> Result<Response<wire::GetResponse>, Status> {
        let scope = scope(&request)?;
        let wire::GetRequest { container_id, exec_id } = request.into_inner();
        let (tasks, process) = self.process(&scope, &container_id, &exec_id)?;
        let state = ok(tasks.state(&process).await)?;
        Ok(Response::new(wire::GetResponse { process: Some(reported(state)) }))
    }

    async fn list(
        &self,
        request: Request<wire::ListTasksRequest>,
    ) -> Result<Response<wire::ListTasksResponse>, Status> {
        let found = ok(self.tasks(&scope(&request)?).list().await)?;
        self.0.bounded(wire::ListTasksResponse { tasks: found.into_iter().map(reported).collect() })
    }

    async fn kill(&self, request: Request<wire::KillRequest>) -> Result<Response<()>, Status> {
        let scope = scope(&request)?;
        let wire::KillRequest { container_id, exec_id, signal, all } = request.into_inner();
        let (tasks, process) = self.process(&scope, &container_id, &exec_id)?;
        let target = if all { KillTarget::All } else { KillTarget::Process };
        self.0.mutations.run(async move { tasks.kill(&process, signal, target).await }).await
    }

    async fn exec(&self, request: Request<wire::ExecProcessRequest>) -> Result<Response<()>, Status> {
        let scope = scope(&request)?;
        let request = request.into_inner();
        if request.exec_id.is_empty() {
            return Err(Status::invalid_argument("exec id cannot be empty"));
        }
        let (tasks, container) = self.task(&scope, &request.container_id)?;
        let exec = ExecProcess {
            process: ProcessRef::exec(container, ok(request.exec_id.parse())?),
            stdio: Stdio {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
            },
            spec: from_any(required("the process's spec", request.spec)?),
        };
        self.0.mutations.run(async move { tasks.exec(exec).await }).await
    }

    async fn resize_pty(&self, request: Request<wire::ResizePtyRequest>) -> Result<Response<()>, Status> {
        let scope = scope(&request)?;
        let wire::ResizePtyRequest { container_id, exec_id, width, height } = request.into_inner();
        let (tasks, process) = self.process(&scope, &container_id, &exec_id)?;
        let size = TerminalSize { width, height };
        self.0.mutations.run(async move { tasks.resize(&process, size).await }).await
    }

    async fn close_io(&self, request: Request<wire::CloseIoRequest>) -> Result<Response<()>, Status> {
        let scope = scope(&request)?;
        let wire::CloseIoRequest { container_id, exec_id, stdin } = request.into_inner();
        let (tasks, process) = self.process(&scope, &container_id, &exec_id)?;
        let change = async move {
            if stdin { tasks.close_stdin(&process).await } else { tasks.state(&process).await.map(|_| ()) }
        };
        self.0.mutations.run(change).await
    }

    async fn pause(&self, request: Request<wire::PauseTaskRequest>) -> Result<Response<()>, Status> {
        let scope = scope(&request)?;
        let (tasks, container) = self.task(&scope, &request.into_inner().container_id)?;
        self.0.mutations.run(async move { tasks.pause(&container).await }).await
    }

    async fn resume(&self, request: Request<wire::ResumeTaskRequest>) -> Result<Response<()>, Status> {
        let scope = scope(&request)?;
        let (tasks, container) = self.task(&scope, &request.into_inner().container_id)?;
        self.0.mutations.run(async move { tasks.resume(&container).await }).await
    }

    async fn list_pids(
        &self,
        request: Request<wire::ListPidsRequest>,
    ) -> Result<Response<wire::ListPidsResponse>, Status> {
        let scope = scope(&request)?;
        let (tasks, container) = self.task(&scope, &request.into_inner().container_id)?;
        let found = ok(tasks.pids(&container).await)?;
        let processes = found.into_iter().map(Into::into).collect();
        Ok(Response::new(wire::ListPidsResponse { processes }))
    }

    async fn checkpoint(
        &self,
        request: Request<wire::CheckpointTaskRequest>,
    ) -> Result<Response<wire::CheckpointTaskResponse>, Status> {
        let scope = scope(&request)?;
        // The parent is a digest without a type or size, which containerd does not read either.
        let wire::CheckpointTaskRequest { container_id, parent_checkpoint: _, options } =
            request.into_inner();
        let (tasks, container) = self.task(&scope, &container_id)?;
        let change = async move {
            let stored = tasks.checkpoint(&container, None, options.map(from_any)).await?;
            let descriptors = stored.into_iter().map(Into::into).collect();
            Ok(wire::CheckpointTaskResponse { descriptors })
        };
        self.0.mutations.run(change).await
    }

    async fn update(&self, request: Request<wire::UpdateTaskRequest>) -> Result<Response<()>, Status> {
        let scope = scope(&request)?;
        let wire::UpdateTaskRequest { container_id, resources, annotations } = request.into_inner();
        let (tasks, container) = self.task(&scope, &container_id)?;
        let update = UpdateTask {
            container,
            resources: resources.map(from_any),
            annotations: annotations.into_iter().collect(),
        };
        self.0.mutations.run(async move { tasks.update(update).await }).await
    }

    async fn metrics(
        &self,
        request: Request<wire::MetricsRequest>,
    ) -> Result<Response<wire::MetricsResponse>, Status> {
        let tasks = self.tasks(&scope(&request)?);
        let found = ok(tasks.metrics(&request.into_inner().filters).await)?;
        self.0.bounded(wire::MetricsResponse { metrics: found.into_iter().map(Into::into).collect() })
    }

    /// Ends with its client: a wait changes nothing.
    async fn wait(
        &self,
        request: Request<wire::WaitRequest>,
    ) -> Result<Response<wire::WaitResponse>, Status> {
        let scope = scope(&request)?;
        let wire::WaitRequest { container_id, exec_id } = request.into_inner();
        let (tasks, process) = self.process(&scope, &container_id, &exec_id)?;
        let exit = ok(tasks.wait(&process).await)?;
        Ok(Response::new(wire::WaitResponse { exit_status: exit.status, exited_at: timestamp(exit.at) }))
    }
}
