//! `start`: containers that are there.

use std::path::PathBuf;

use berth_types::ProcessStatus;
use berth_types::attach::Pace;
use berth_workload::Created;
use berth_workload::parse::detach_keys;
use clap::Args;

use super::each;
use super::run::{attached_start, finish};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::terminal::{Wanted, is_terminal};

/// Flags of `start`.
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Attach to its output
    #[arg(short, long)]
    attach: bool,
    /// Attach to its input, too
    #[arg(short, long)]
    interactive: bool,
    /// Keys that leave the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Pass signals on
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true",
        action = clap::ArgAction::Set)]
    sig_proxy: bool,
    /// Start where a checkpoint of this name left off
    #[arg(long, value_name = "NAME", conflicts_with_all = ["attach", "interactive"])]
    checkpoint: Option<String>,
    /// The folder that the checkpoint is in
    #[arg(long, value_name = "FOLDER", requires = "checkpoint")]
    checkpoint_dir: Option<PathBuf>,
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Start {
    pub(crate) async fn run(self, context: &mut Context) -> Outcome {
        context.settle_logging().await?;
        if self.attach || self.interactive {
            let [name] = &self.containers[..] else {
                return Err(Failure::new("you cannot start and attach multiple containers at once"));
            };
            return self.attached(context, name).await;
        }
        if let Some(checkpoint) = &self.checkpoint {
            return self.restored(context, checkpoint).await;
        }
        let context = &*context;
        each(&self.containers, |name| async move {
            let found = context.find(&name).await?;
            if is_running(context, &found.container.id).await? {
                return Ok(name);
            }
            context.workload.start(&found.container, &found.definition()?, None).await?;
            if found.definition()?.host.auto_remove {
                crate::reaper::ensure(context)?;
            }
            Ok(name)
        })
        .await
    }

    async fn restored(&self, context: &Context, checkpoint: &str) -> Outcome {
        let [name] = &self.containers[..] else {
            return Err(Failure::new("you cannot restore multiple containers at once"));
        };
        let found = context.find(name).await?;
        let id = &found.container.id;
        if is_running(context, id).await? {
            return Err(Failure::new(format!("container {name} is running already: stop it first")));
        }
        // The daemon reads it, from a folder of its own.
        let folder = self.checkpoint_dir.as_deref().map(std::path::absolute).transpose()?;
        let folder = context.workload.checkpoints(id, folder.as_deref()).find(checkpoint)?;
        context.workload.start_from(&found.container, &found.definition()?, &folder).await?;
        if found.definition()?.host.auto_remove {
            crate::reaper::ensure(context)?;
        }
        output::line(name)?;
        Ok(0)
    }

    async fn attached(&self, context: &Context, name: &str) -> Outcome {
        let found = context.find(name).await?;
        if is_running(context, &found.container.id).await? {
            return Err(Failure::new(format!("container {name} is running already: use attach")));
        }
        let mut definition = found.definition()?;
        definition.config.stdin_once = self.interactive;
        let keys = self.detach_keys.as_deref().map(detach_keys).transpose()?.unwrap_or_default();
        let wanted = Wanted {
            stdin: self.interactive && definition.config.open_stdin,
            stdout: true,
            stderr: true,
            keys: (definition.config.tty && is_terminal()).then_some(keys),
            pace: Pace::Wait,
        };
        let remove = definition.host.auto_remove;
        let created = Created {
            name: found.name().to_owned(),
            container: found.container,
            definition,
            rootfs: Vec::new(),
        };
        let ended = attached_start(&context.workload, &created, wanted, self.sig_proxy, None).await?;
        finish(&context.workload, &created, ended, remove).await
    }
}

async fn is_running(context: &Context, id: &berth_types::ContainerId) -> Result<bool, Failure> {
    let state = context.workload.task_state(id).await?;
    Ok(state.is_some_and(|state| matches!(state.status, ProcessStatus::Running | ProcessStatus::Paused)))
}
