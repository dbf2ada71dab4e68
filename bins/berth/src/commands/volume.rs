//! `volume`: data that outlives containers.

use std::collections::{BTreeMap, BTreeSet};

use berth_workload::human;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::inspect::{Document, print};
use super::{each, system::told};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{self, table};

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
    /// A Go template, `table TEMPLATE` or `json`
    #[arg(long)]
    format: Option<String>,
    /// Show names only
    #[arg(short, long)]
    quiet: bool,
}

/// Flags of `volume inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A Go template, or `json`
    #[arg(short, long)]
    format: Option<String>,
    /// Volumes
    #[arg(required = true)]
    names: Vec<String>,
}

/// Flags of `volume rm`.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Be content with one that is not there
    #[arg(short, long)]
    force: bool,
    /// Volumes
    #[arg(required = true)]
    names: Vec<String>,
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
            Self::Inspect(inspect) => inspect.run(context),
            Self::Rm(rm) => rm.run(context).await,
            Self::Prune(prune) => prune.run(context).await,
        }
    }
}

impl Create {
    fn run(self, context: &Context) -> Outcome {
        let labels: BTreeMap<String, String> = self
            .label
            .iter()
            .map(|text| text.split_once('=').unwrap_or((text, "")))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let (volume, _) = context.workload.create_volume(self.name.as_deref(), labels)?;
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
        let heads: table::Heads<'_> = &[
            ("Driver", "DRIVER"),
            ("Name", "VOLUME NAME"),
            ("Mountpoint", "MOUNTPOINT"),
            ("Scope", "SCOPE"),
            ("Labels", "LABELS"),
        ];
        let format = if self.quiet { Some("{{.Name}}") } else { self.format.as_deref() };
        table::print(&rows, format, "table {{.Driver}}\t{{.Name}}", heads)?;
        Ok(0)
    }
}

impl Inspect {
    fn run(self, context: &Context) -> Outcome {
        let mut documents = Vec::new();
        let mut code = 0;
        for name in &self.names {
            match context.workload.volume(name) {
                Ok(volume) => documents.push(Document::new(&volume)?),
                Err(error) => {
                    eprintln!("berth: {error}");
                    code = 1;
                }
            }
        }
        print(&documents, self.format.as_deref())?;
        Ok(code)
    }
}

impl Rm {
    async fn run(self, context: &Context) -> Outcome {
        each(&self.names, |name| async move {
            match context.workload.remove_volume(&name).await {
                Err(error) if self.force && error.kind() == berth_types::ErrorKind::NotFound => Ok(name),
                other => other.map(|()| name).map_err(Failure::from),
            }
        })
        .await
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
