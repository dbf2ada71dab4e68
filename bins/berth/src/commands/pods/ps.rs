//! `pods ps`.

use std::time::{Duration, UNIX_EPOCH};

use berth_client::Pods as Remote;
use berth_proto::runtime::v1 as proto;
use berth_workload::human;
use clap::Args;
use serde_json::{Value, json};

use super::Found;
use super::underway::Underway;
use crate::failure::Outcome;
use crate::output::table;

/// What `crictl` shows of an id.
const SHORT: usize = 13;
const TABLE: &str =
    "table {{.ID}}\t{{.Created}}\t{{.State}}\t{{.Name}}\t{{.Namespace}}\t{{.Attempt}}\t{{.Runtime}}";
const HEADS: table::Heads<'_> = &[
    ("ID", "POD ID"),
    ("Created", "CREATED"),
    ("State", "STATE"),
    ("Name", "NAME"),
    ("Namespace", "NAMESPACE"),
    ("Attempt", "ATTEMPT"),
    ("Runtime", "RUNTIME"),
];

/// Flags of `pods ps`.
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// A Go template, `table TEMPLATE` or `json`
    #[arg(long)]
    format: Option<String>,
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
    /// Show whole ids
    #[arg(long)]
    no_trunc: bool,
}

impl Ps {
    pub(super) async fn run(self, pods: &Remote) -> Outcome {
        let mut listed = pods.list().await?;
        listed.sort_by_key(|pod| std::cmp::Reverse(pod.created_at));
        let underway = Underway::of(pods).await?;
        let making = underway.making.iter().rev().map(|pod| self.row(pod, "", "Making", ""));
        let whole = listed.iter().map(|pod| {
            let made = UNIX_EPOCH + Duration::from_nanos(pod.created_at.unsigned_abs());
            self.row(&Found::of(pod), &human::ago(made), state(pod), &pod.runtime_handler)
        });
        let rows: Vec<Value> = making.chain(whole).collect();
        let format = if self.quiet { Some("{{.ID}}") } else { self.format.as_deref() };
        table::print(&rows, format, TABLE, HEADS)?;
        Ok(0)
    }

    fn row(&self, pod: &Found, created: &str, state: &str, handler: &str) -> Value {
        let id = if self.no_trunc { &pod.id } else { pod.id.get(..SHORT).unwrap_or(&pod.id) };
        json!({
            "ID": id, "Created": created, "State": state, "Name": pod.name, "Namespace": pod.namespace,
            "Attempt": pod.attempt, "Runtime": if handler.is_empty() { "(default)" } else { handler },
        })
    }
}

/// As `crictl` words it.
pub(super) fn state(pod: &proto::PodSandbox) -> &'static str {
    if pod.state() == proto::PodSandboxState::SandboxReady { "Ready" } else { "NotReady" }
}
