//! One more process in a container.

use berth_core::ExecProcess;
use berth_sys::beneath::Root;
use berth_types::{Any, ContainerId, ErrorKind, ExecId, Exit, ProcessRef, Result, Stdio};

use crate::spec::exec_process;
use crate::{ExecOptions, Found, Workload, names};
use berth_rootfs::{Accounts, Identity};

/// The type of a process on its way to a runtime.
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// A process that was added and not started yet.
#[derive(Clone, Debug)]
pub struct Exec {
    /// Which.
    pub process: ProcessRef,
    id: ExecId,
}

impl Workload {
    /// Adds a process to a container that runs.
    pub async fn exec(&self, found: &Found, options: &ExecOptions, stdio: Stdio) -> Result<Exec> {
        let container = &found.container;
        let process = exec_process(&found.spec()?, options)?;
        let json = serde_json::to_vec(&process).expect("strings and numbers always serialize");
        let id: ExecId = names::new_id().as_str().parse()?;
        let exec = Exec { process: ProcessRef::exec(container.id.clone(), id.clone()), id };
        let request =
            ExecProcess { process: exec.process.clone(), stdio, spec: Any::new(PROCESS_TYPE, json) };
        match self.catalog.tasks(&self.scope).exec(request).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(crate::task::not_running(found.name())),
            other => other.map(|()| exec),
        }
    }

    /// Who `user` is inside a container that runs, read from its own files.
    pub async fn identity_in(&self, id: &ContainerId, user: &str) -> Result<Identity> {
        let pid = self.running_pid(id).await?;
        let root = Root::open(std::path::Path::new(&format!("/proc/{pid}/root")))
            .map_err(|error| berth_types::Error::io(format!("cannot look into container {id}"), error))?;
        Accounts::read(&root)?.find(user, &[])
    }

    /// Removes a process that has ended; answers how.
    pub async fn delete_exec(&self, exec: &Exec) -> Result<Exit> {
        self.catalog.tasks(&self.scope).delete_process(&exec.process.container, &exec.id).await
    }
}
