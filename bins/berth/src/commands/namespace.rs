//! `namespace`: containerd's, each with its own images and containers.

use berth_types::filter::Filters;
use berth_types::{FieldMask, Labels, NamespaceRecord};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::each;
use super::named::{Inspect, List};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use berth_core::Scope;

/// Commands about namespaces.
#[derive(Debug, Subcommand)]
pub(crate) enum Namespace {
    /// Make a namespace
    Create(Create),
    /// List namespaces
    #[command(visible_alias = "list")]
    Ls(List),
    /// Show details of namespaces
    Inspect(Inspect),
    /// Change labels of a namespace
    Update(Create),
    /// Remove namespaces
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

/// Flags of `namespace create` and `namespace update`.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Set a label: KEY=VALUE
    #[arg(short, long)]
    label: Vec<String>,
    /// Name
    name: String,
}

/// Flags of `namespace rm`.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Namespaces
    #[arg(required = true)]
    names: Vec<String>,
}

impl Namespace {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let namespaces = context.client.namespaces();
        match self {
            Self::Create(create) => {
                let record = create.record()?;
                namespaces.create(record).await?;
                Ok(0)
            }
            Self::Update(update) => {
                let record = update.record()?;
                let paths = record.labels.keys().map(|key| format!("labels.{key}")).collect::<Vec<_>>();
                namespaces.update(&record.name, record.labels, &FieldMask::new(paths)).await?;
                Ok(0)
            }
            Self::Ls(ls) => list(&ls, context).await,
            Self::Inspect(inspect) => inspect.run(|name| describe(context, name)).await,
            Self::Rm(rm) => {
                each(&rm.names, |name| async move {
                    context.client.namespaces().delete(&name.parse()?).await?;
                    Ok(name)
                })
                .await
            }
        }
    }
}

impl Create {
    fn record(&self) -> Result<NamespaceRecord, Failure> {
        let mut labels = Labels::new();
        for text in &self.label {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| Failure::new(format!("invalid label {text:?}: expected KEY=VALUE")))?;
            labels.insert(key.to_owned(), value.to_owned());
        }
        Ok(NamespaceRecord { name: self.name.parse()?, labels })
    }
}

async fn list(ls: &List, context: &Context) -> Outcome {
    let mut rows: Vec<Value> = Vec::new();
    for record in context.client.namespaces().list().await? {
        let scope = Scope::new(record.name.clone());
        let labels: Vec<String> = record.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let (containers, images) = if ls.quiet {
            (String::new(), String::new())
        } else {
            let filters = Filters::default();
            let (containers, images) = (context.client.containers(&scope), context.client.images(&scope));
            let (containers, images) = tokio::join!(containers.list(&filters), images.list(&filters));
            (containers?.len().to_string(), images?.len().to_string())
        };
        rows.push(json!({
            "Name": record.name.as_str(), "Containers": containers, "Images": images,
            "Labels": labels.join(","),
        }));
    }
    let heads = &[("Name", "NAME"), ("Containers", "CONTAINERS"), ("Images", "IMAGES"), ("Labels", "LABELS")];
    ls.print(&rows, "table {{.Name}}\t{{.Containers}}\t{{.Images}}\t{{.Labels}}", heads)
}

async fn describe(context: &Context, name: String) -> Result<Value, Failure> {
    let record = context.client.namespaces().namespace(&name.parse()?).await?;
    Ok(json!({ "Name": record.name.as_str(), "Labels": record.labels }))
}
