//! `checkpoint`: the processes of a container as files.

use std::path::PathBuf;

use berth_workload::Afterwards;
use clap::{Args, Subcommand};

use crate::context::Context;
use crate::failure::Outcome;
use crate::output::{self, progress};

/// Commands about checkpoints.
#[derive(Debug, Subcommand)]
pub(crate) enum Checkpoint {
    /// Save a container that runs; it ends unless told otherwise
    Create(Create),
    /// List the checkpoints of a container
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Remove a checkpoint
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

/// Flags of `checkpoint create`.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The folder for checkpoints (default: one of the container's own)
    #[arg(long, value_name = "FOLDER")]
    checkpoint_dir: Option<PathBuf>,
    /// Let the container go on
    #[arg(long)]
    leave_running: bool,
    /// Container
    container: String,
    /// Name of the checkpoint
    checkpoint: String,
}

/// Flags of `checkpoint ls`.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// The folder that checkpoints are in
    #[arg(long, value_name = "FOLDER")]
    checkpoint_dir: Option<PathBuf>,
    /// Container
    container: String,
}

/// Flags of `checkpoint rm`.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// The folder that the checkpoint is in
    #[arg(long, value_name = "FOLDER")]
    checkpoint_dir: Option<PathBuf>,
    /// Container
    container: String,
    /// Name of the checkpoint
    checkpoint: String,
}

impl Checkpoint {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Create(command) => command.run(context).await,
            Self::Ls(command) => command.run(context).await,
            Self::Rm(command) => command.run(context).await,
        }
    }
}

impl Create {
    async fn run(self, context: &Context) -> Outcome {
        let found = context.find(&self.container).await?;
        let id = &found.container.id;
        // The daemon writes there, from a folder of its own.
        let folder = self.checkpoint_dir.map(std::path::absolute).transpose()?;
        let checkpoints = context.workload.checkpoints(id, folder.as_deref());
        let afterwards = if self.leave_running { Afterwards::Runs } else { Afterwards::Ends };
        let spinner = progress::spinner("saving");
        let saved = context.workload.checkpoint(id, &checkpoints, &self.checkpoint, afterwards).await;
        if let Some(spinner) = spinner {
            spinner.finish_and_clear();
        }
        saved?;
        output::line(&self.checkpoint)?;
        Ok(0)
    }
}

impl Ls {
    async fn run(self, context: &Context) -> Outcome {
        let found = context.find(&self.container).await?;
        let checkpoints = context.workload.checkpoints(&found.container.id, self.checkpoint_dir.as_deref());
        output::line("CHECKPOINT NAME")?;
        for name in checkpoints.list()? {
            output::line(&name)?;
        }
        Ok(0)
    }
}

impl Rm {
    async fn run(self, context: &Context) -> Outcome {
        let found = context.find(&self.container).await?;
        let checkpoints = context.workload.checkpoints(&found.container.id, self.checkpoint_dir.as_deref());
        checkpoints.remove(&self.checkpoint)?;
        Ok(0)
    }
}
