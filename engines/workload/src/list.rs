//! The containers of a namespace with what they are doing.

use std::collections::HashMap;
use std::time::SystemTime;

use berth_types::filter::Filters;
use berth_types::{Container, ProcessState, ProcessStatus, Result};

use crate::find::{definition_of, name_of};
use crate::{Definition, Workload, human, labels};

/// What a container is doing, in Docker's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Made, never started.
    Created,
    /// Runs.
    Running,
    /// Frozen.
    Paused,
    /// Is started again and again.
    Restarting,
    /// Ended.
    Exited,
}

impl Status {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
        }
    }
}

/// One container of a list.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its record.
    pub container: Container,
    /// What it was made from.
    pub definition: Definition,
    /// Its first process, if it has a task.
    pub task: Option<ProcessState>,
    /// When it was last started, if anybody knows.
    pub started_at: Option<SystemTime>,
    /// What it is doing.
    pub status: Status,
}

impl Row {
    /// Its name.
    pub fn name(&self) -> &str {
        name_of(&self.container)
    }

    /// `Up 5 minutes`, `Exited (0) 2 hours ago` …
    pub fn status_text(&self) -> String {
        let since = |time: Option<SystemTime>| {
            human::duration(
                time.and_then(|time| SystemTime::now().duration_since(time).ok()).unwrap_or_default(),
            )
        };
        match self.status {
            Status::Created => "Created".to_owned(),
            Status::Running => format!("Up {}", since(self.started_at)),
            Status::Paused => format!("Up {} (Paused)", since(self.started_at)),
            Status::Restarting | Status::Exited => {
                let word = if self.status == Status::Exited { "Exited" } else { "Restarting" };
                match self.task.as_ref().and_then(|task| task.exit) {
                    Some(exit) => format!("{word} ({}) {} ago", exit.status, since(Some(exit.at))),
                    // Its task went with a reboot, or with a tool that removes tasks.
                    None => format!("{word} (255) {} ago", since(self.started_at)),
                }
            }
        }
    }

    /// The command line, quoted as Docker shows it.
    pub fn command(&self) -> String {
        let config = &self.definition.config;
        let words = config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten());
        words.map(String::as_str).collect::<Vec<_>>().join(" ")
    }
}

impl Workload {
    /// Every container, the newest first.
    pub async fn list(&self) -> Result<Vec<Row>> {
        let (containers, tasks) = (self.catalog.containers(&self.scope), self.catalog.tasks(&self.scope));
        let filters = Filters::default();
        let (containers, tasks) = tokio::join!(containers.list(&filters), tasks.list());
        let mut tasks: HashMap<String, ProcessState> =
            tasks?.into_iter().map(|state| (state.process.container.to_string(), state)).collect();
        let mut rows = Vec::new();
        for container in containers? {
            let task = tasks.remove(container.id.as_str());
            rows.push(self.row(container, task)?);
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.container.created_at));
        Ok(rows)
    }

    /// One container with what it is doing.
    pub async fn row_of(&self, container: Container) -> Result<Row> {
        let task = self.task_state(&container.id).await?;
        self.row(container, task)
    }

    fn row(&self, container: Container, task: Option<ProcessState>) -> Result<Row> {
        let running = task.as_ref().filter(|task| task.status != ProcessStatus::Stopped).map(|task| task.pid);
        let started_at = self.started_at(&container.id, running);
        let restarting =
            container.labels.get(labels::RESTART_STATUS).is_some_and(|status| status == "running");
        let status = match task.as_ref().map(|task| task.status) {
            None if started_at.is_none() => Status::Created,
            None => Status::Exited,
            Some(ProcessStatus::Created) => Status::Created,
            Some(ProcessStatus::Running | ProcessStatus::Unknown) => Status::Running,
            Some(ProcessStatus::Paused | ProcessStatus::Pausing) => Status::Paused,
            Some(ProcessStatus::Stopped) if restarting && will_restart(&container) => Status::Restarting,
            Some(ProcessStatus::Stopped) => Status::Exited,
        };
        let definition = definition_of(&container)?;
        Ok(Row { container, definition, task, started_at, status })
    }
}

fn will_restart(container: &Container) -> bool {
    container
        .labels
        .get(labels::RESTART_POLICY)
        .is_some_and(|policy| policy == "always" || policy == "unless-stopped")
}
