//! `snapshot df`: what each snapshotter takes.

use std::collections::{BTreeMap, BTreeSet};

use berth_types::filter::Filters;
use berth_types::{PluginState, SnapshotInfo, SnapshotKey, SnapshotKind, SnapshotterName};
use berth_workload::human;
use clap::Args;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::table;

/// Flags of `snapshot df`.
#[derive(Debug, Args)]
pub(crate) struct Df {
    /// A Go template, `table TEMPLATE` or `json`
    #[arg(long)]
    format: Option<String>,
}

/// What a snapshotter has, in one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    committed: usize,
    active: usize,
    views: usize,
    /// Bytes of all.
    size: u64,
    /// Bytes of those that no container stands on.
    reclaimable: u64,
}

impl Df {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let containers = context.client.containers(context.scope()).list(&Filters::default()).await?;
        let mut rows: Vec<Value> = Vec::new();
        let introspection = context.client.introspection();
        for plugin in introspection.plugins(&["type==io.containerd.snapshotter.v1".to_owned()]).await? {
            if plugin.state != PluginState::Ready {
                continue;
            }
            let own = containers.iter().filter(|container| container.snapshotter == plugin.id);
            let used: BTreeSet<&str> = own.map(|container| container.snapshot_key.as_str()).collect();
            let taken = taken(context, &plugin.id.parse()?, &used).await?;
            let share = (taken.reclaimable * 100).checked_div(taken.size).unwrap_or(0);
            rows.push(json!({
                "Name": plugin.id,
                "Committed": taken.committed.to_string(),
                "Active": taken.active.to_string(),
                "Views": taken.views.to_string(),
                "Size": human::size(taken.size, 4),
                "Reclaimable": format!("{} ({share}%)", human::size(taken.reclaimable, 4)),
            }));
        }
        let heads: table::Heads<'_> = &[
            ("Name", "SNAPSHOTTER"),
            ("Committed", "COMMITTED"),
            ("Active", "ACTIVE"),
            ("Views", "VIEWS"),
            ("Size", "SIZE"),
            ("Reclaimable", "RECLAIMABLE"),
        ];
        let default = "table {{.Name}}\t{{.Committed}}\t{{.Active}}\t{{.Views}}\t{{.Size}}\t{{.Reclaimable}}";
        table::print(&rows, self.format.as_deref(), default, heads)?;
        Ok(0)
    }
}

async fn taken(context: &Context, name: &SnapshotterName, used: &BTreeSet<&str>) -> Result<Taken, Failure> {
    let snapshots = context.client.snapshotter(name, context.scope())?;
    let all = snapshots.list(&Filters::default()).await?;
    let needed = needed(&all, used);
    let mut taken = Taken::default();
    for info in &all {
        match info.kind {
            SnapshotKind::Committed => taken.committed += 1,
            SnapshotKind::Active => taken.active += 1,
            SnapshotKind::View => taken.views += 1,
        }
        // One that is removed meanwhile takes nothing.
        let size = snapshots.usage(&info.key).await.unwrap_or_default().size;
        taken.size += size;
        taken.reclaimable += if needed.contains(&info.key) { 0 } else { size };
    }
    Ok(taken)
}

/// The snapshots of these names and everything beneath them.
fn needed<'a>(all: &'a [SnapshotInfo], used: &BTreeSet<&str>) -> BTreeSet<&'a SnapshotKey> {
    let parents: BTreeMap<&SnapshotKey, Option<&SnapshotKey>> =
        all.iter().map(|info| (&info.key, info.parent.as_ref())).collect();
    let mut found = BTreeSet::new();
    for info in all.iter().filter(|info| used.contains(info.key.as_str())) {
        let mut next = Some(&info.key);
        while let Some(key) = next {
            if !found.insert(key) {
                break;
            }
            next = parents.get(key).copied().flatten();
        }
    }
    found
}
