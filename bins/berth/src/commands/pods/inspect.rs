//! `pods inspect`.

use berth_client::Pods as Remote;
use clap::Args;
use serde_json::{Map, Value, json};

use super::underway::Underway;
use super::{Name, find};
use crate::commands::inspect::{Document, print};
use crate::failure::{Failure, Outcome};

/// Flags of `pods inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A Go template, or `json`
    #[arg(short, long)]
    format: Option<String>,
    #[command(flatten)]
    name: Name,
}

impl Inspect {
    pub(super) async fn run(self, pods: &Remote) -> Outcome {
        let underway = Underway::of(pods).await?;
        let text = &self.name.pod;
        let found = find(pods, &underway, text).await?;
        let found = found.ok_or_else(|| Failure::new(format!("no such pod: {text} (berth pods ps)")))?;
        let answer = pods.inspect(&found.id).await?;
        let mut document = Map::from_iter([("status".to_owned(), json!(answer.status))]);
        for (name, text) in answer.info {
            let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
            document.insert(name, value);
        }
        document.insert("containers".to_owned(), json!(pods.containers(&found.id).await?));
        print(&[Document::new(&document)?], self.format.as_deref())?;
        Ok(0)
    }
}
