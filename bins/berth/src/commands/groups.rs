//! `container` and `image`: the same commands by what they are about.

use clap::{Args, Subcommand};

use super::system::{told, until};
use super::*;
use crate::output;
use berth_workload::human;

/// Commands about containers.
#[derive(Debug, Subcommand)]
pub(crate) enum Container {
    /// Run a command in a container that runs
    Exec(exec::Exec),
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(ps::Ps),
    /// Start containers
    Start(start::Start),
    /// Stop containers
    Stop(stop::Stop),
    /// Stop and start containers
    Restart(stop::Restart),
    /// Send a signal to containers
    Kill(stop::Kill),
    /// Freeze containers
    Pause(stop::Pause),
    /// Let frozen containers go on
    Unpause(stop::Unpause),
    /// Wait for containers to end
    Wait(stop::Wait),
    /// Remove containers
    #[command(visible_alias = "remove")]
    Rm(rm::Rm),
    /// Attach to a container that runs
    Attach(attach::Attach),
    /// Show the output of a container
    Logs(logs::Logs),
    /// Show details
    Inspect(inspect::Inspect),
    /// Show the processes of a container
    Top(top::Top),
    /// Show what containers use
    Stats(stats::Stats),
    /// Copy files
    Cp(cp::Cp),
    /// Show what a container changed
    Diff(diff::Diff),
    /// Write a container's files as a tar
    Export(export::Export),
    /// Make an image of what a container changed
    Commit(commit::Commit),
    /// Give a container another name
    Rename(rename::Rename),
    /// Change limits
    Update(update::Update),
    /// Show ports
    Port(port::Port),
    /// Remove containers that do not run
    Prune(Prune),
}

/// Commands about images.
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// List images
    #[command(visible_alias = "list")]
    Ls(images::Images),
    /// Fetch an image
    Pull(pull::Pull),
    /// Send an image
    Push(push::Push),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(rmi::Rmi),
    /// Give an image one more name
    Tag(tag::Tag),
    /// Take in images from an archive
    Load(load::Load),
    /// Write images as an archive
    Save(save::Save),
    /// Make an image of a tar of files
    Import(import::Import),
    /// Show how an image came to be
    History(history::History),
    /// Make the layers anew: compressed in another way, or for lazy pulling
    Convert(Box<convert::Convert>),
    /// Run an image and put the files first that it opens, for lazy pulling
    #[command(disable_help_flag = true)]
    Optimize(Box<optimize::Optimize>),
    /// Show details
    Inspect(inspect::Inspect),
    /// Remove images that are not in use
    Prune(Prune),
}

/// Flags of `container prune` and `image prune`.
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Remove all that are not in use, not only those without a name (images)
    #[arg(short, long)]
    all: bool,
    /// Ask nothing
    #[arg(short, long)]
    force: bool,
    /// until=TIME
    #[arg(long)]
    filter: Vec<String>,
}

impl Container {
    pub(crate) async fn run(self, context: &mut Context) -> Outcome {
        let command = match self {
            Self::Exec(command) => Command::Exec(command),
            Self::Ls(command) => Command::Ps(command),
            Self::Start(command) => Command::Start(command),
            Self::Stop(command) => Command::Stop(command),
            Self::Restart(command) => Command::Restart(command),
            Self::Kill(command) => Command::Kill(command),
            Self::Pause(command) => Command::Pause(command),
            Self::Unpause(command) => Command::Unpause(command),
            Self::Wait(command) => Command::Wait(command),
            Self::Rm(command) => Command::Rm(command),
            Self::Attach(command) => Command::Attach(command),
            Self::Logs(command) => Command::Logs(command),
            Self::Inspect(mut command) => {
                command.kind = Some("container".to_owned());
                Command::Inspect(command)
            }
            Self::Top(command) => Command::Top(command),
            Self::Stats(command) => Command::Stats(command),
            Self::Cp(command) => Command::Cp(command),
            Self::Diff(command) => Command::Diff(command),
            Self::Export(command) => Command::Export(command),
            Self::Commit(command) => Command::Commit(command),
            Self::Rename(command) => Command::Rename(command),
            Self::Update(command) => Command::Update(command),
            Self::Port(command) => Command::Port(command),
            Self::Prune(prune) => return prune.containers(context).await,
        };
        connected(context, command).await
    }
}

impl Image {
    pub(crate) async fn run(self, context: &mut Context) -> Outcome {
        let command = match self {
            Self::Ls(command) => Command::Images(command),
            Self::Pull(command) => Command::Pull(command),
            Self::Push(command) => Command::Push(command),
            Self::Rm(command) => Command::Rmi(command),
            Self::Tag(command) => Command::Tag(command),
            Self::Load(command) => Command::Load(command),
            Self::Save(command) => Command::Save(command),
            Self::Import(command) => Command::Import(command),
            Self::History(command) => Command::History(command),
            Self::Inspect(mut command) => {
                command.kind = Some("image".to_owned());
                Command::Inspect(command)
            }
            Self::Convert(convert) => return convert.run(context).await,
            Self::Optimize(optimize) => return optimize.run(context).await,
            Self::Prune(prune) => return prune.images(context).await,
        };
        connected(context, command).await
    }
}

impl Prune {
    async fn containers(self, context: &Context) -> Outcome {
        if !self.force && !output::confirm("This removes every container that does not run. Go on?")? {
            return Ok(0);
        }
        let pruned = context.workload.prune_containers(until(&self.filter)?).await?;
        told("Deleted Containers:", &pruned.removed)?;
        output::line(&format!("Total reclaimed space: {}", human::size(pruned.freed, 4)))?;
        Ok(0)
    }

    async fn images(self, context: &Context) -> Outcome {
        let what = if self.all { "that no container uses" } else { "without a name" };
        if !self.force && !output::confirm(&format!("This removes every image {what}. Go on?"))? {
            return Ok(0);
        }
        let pruned = context.workload.prune_images(self.all, until(&self.filter)?).await?;
        told("Deleted Images:", &pruned.removed)?;
        output::line(&format!("Total reclaimed space: {}", human::size(pruned.freed, 4)))?;
        Ok(0)
    }
}
