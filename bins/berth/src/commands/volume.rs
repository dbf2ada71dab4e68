//! `volume`: data that outlives containers.

use std::collections::BTreeSet;

use berth_workload::human;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::named::{Inspect, List, Rm};
use super::options::pairs;
use super::system::told;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;

/// Commands about volumes.
#[derive(Debug, Subcommand)]
pub(crate) enum Volume {
    /// Make a volume
    Create(Create),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Show details of volumes
    Inspect(Inspect),
    /// Remove volumes
    #[command(visible_alias = "remove")]
    Rm(Rm),
    /// Remove volumes that no container uses
    Prune(Prune),
}

/// Flags of `volume create`.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Driver: local
    #[arg(short, long, default_value = "local", value_parser = ["local"])]
    driver: String,
    /// Set a label
    #[arg(long)]
    label: Vec<String>,
    /// Name
    name: Option<String>,
}

/// Flags of `volume ls`.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Show only what passes: name=, label=, dangling=, driver=
    #[arg(short, long)]
    filter: Vec<String>,
    #[command(flatten)]
    list: List,
}

/// Flags of `volume prune`.
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Remove those with a name, too
    #[arg(short, long)]
    all: bool,
    /// Ask nothing
    #[arg(short, long)]
    force: bool,
}

impl Volume {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Create(create) => create.run(context),
            Self::Ls(ls) => ls.run(context).await,
            Self::Inspect(inspect) => {
                inspect.run(|name| async move { Ok(context.workload.volume(&name)?) }).await
            }
            Self::Rm(rm) => rm.run(|name| async move { context.workload.remove_volume(&name).await }).await,
            Self::Prune(prune) => prune.run(context).await,
        }
    }
}

impl Create {
    fn run(self, context: &Context) -> Outcome {
        let (volume, _) = context.workload.create_volume(self.name.as_deref(), pairs(&self.label))?;
        output::line(&volume.name)?;
        Ok(0)
    }
}

impl Ls {
    async fn run(self, context: &Context) -> Outcome {
        let used: BTreeSet<String> =
            context.workload.volume_users().await?.into_iter().map(|(name, _)| name).collect();
        let mut rows: Vec<Value> = Vec::new();
        for volume in context.workload.volumes()? {
            let mut shown = true;
            for text in &self.filter {
                shown &= match text.split_once('=') {
                    Some(("name", name)) => volume.name.contains(name),
                    Some(("driver", driver)) => volume.driver == driver,
                    Some(("dangling", value)) => used.contains(&volume.name) != matches!(value, "true" | "1"),
                    Some(("label", label)) => {
                        let (key, wanted) =
                            label.split_once('=').map_or((label, None), |(k, v)| (k, Some(v)));
                        volume.labels.get(key).is_some_and(|own| wanted.is_none_or(|wanted| wanted == own))
                    }
                    _ => return Err(Failure::new(format!("invalid filter '{text}'"))),
                };
            }
            if shown {
                let labels: Vec<String> =
                    volume.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                rows.push(json!({
                    "Driver": volume.driver, "Name": volume.name, "Mountpoint": volume.mountpoint,
                    "Scope": volume.scope, "Labels": labels.join(","), "Links": "N/A", "Size": "N/A",
                }));
            }
        }
        let heads = &[
            ("Driver", "DRIVER"),
            ("Name", "VOLUME NAME"),
            ("Mountpoint", "MOUNTPOINT"),
            ("Scope", "SCOPE"),
            ("Labels", "LABELS"),
        ];
        self.list.print(&rows, "table {{.Driver}}\t{{.Name}}", heads)
    }
}

impl Prune {
    async fn run(self, context: &Context) -> Outcome {
        let what = if self.all { "every volume" } else { "every volume without a name" };
        if !self.force && !output::confirm(&format!("This removes {what} that no container uses. Go on?"))? {
            return Ok(0);
        }
        let pruned = context.workload.prune_volumes(self.all).await?;
        told("Deleted Volumes:", &pruned.removed)?;
        output::line(&format!("Total reclaimed space: {}", human::size(pruned.freed, 4)))?;
        Ok(0)
    }
}
