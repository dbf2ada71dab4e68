//! `snapshot`: what a snapshotter has, for who wonders where the disk went.

mod df;
mod why;

use berth_types::SnapshotKind;
use berth_types::filter::Filters;
use berth_workload::human;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::named::List;
use crate::context::Context;
use crate::failure::Outcome;

/// Commands about snapshots.
#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// List the snapshots of a snapshotter
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Say what holds a snapshot: containers, images, leases, snapshots on top
    Why(why::Why),
    /// Show what each snapshotter takes
    Df(df::Df),
}

/// Flags of `snapshot ls`.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// kind=active, committed or view; parent=NAME; or a filter as containerd has them
    #[arg(short, long)]
    filter: Vec<String>,
    #[command(flatten)]
    list: List,
}

impl Snapshot {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Ls(ls) => ls.run(context).await,
            Self::Why(why) => why.run(context).await,
            Self::Df(df) => df.run(context).await,
        }
    }
}

impl Ls {
    async fn run(self, context: &Context) -> Outcome {
        let snapshots = context.client.snapshotter(&context.place.snapshotter, context.scope())?;
        let mut rows: Vec<Value> = Vec::new();
        for info in snapshots.list(&Filters::parse(&filters(&self.filter))?).await? {
            // One that is removed meanwhile takes nothing.
            let usage = snapshots.usage(&info.key).await.unwrap_or_default();
            rows.push(json!({
                "Name": info.key.as_str(),
                "Kind": kind(info.kind),
                "Parent": info.parent.as_ref().map_or("", |parent| parent.as_str()),
                "Size": human::size(usage.size, 4),
                "Inodes": usage.inodes.to_string(),
            }));
        }
        let heads = &[
            ("Name", "NAME"),
            ("Kind", "KIND"),
            ("Parent", "PARENT"),
            ("Size", "SIZE"),
            ("Inodes", "FILES"),
        ];
        let columns = "table {{.Kind}}\t{{.Size}}\t{{.Inodes}}\t{{.Name}}\t{{.Parent}}";
        self.list.print(&rows, columns, heads)
    }
}

/// A snapshot's kind as containerd writes it.
fn kind(kind: SnapshotKind) -> &'static str {
    match kind {
        SnapshotKind::Active => "active",
        SnapshotKind::Committed => "committed",
        SnapshotKind::View => "view",
    }
}

/// Docker's `key=value` as containerd's `key==value`; what is a filter already stays one.
fn filters(words: &[String]) -> Vec<String> {
    let translated = words.iter().map(|word| match word.split_once('=') {
        Some((key, value)) if !value.starts_with('=') && !key.ends_with(['!', '~']) => {
            format!("{}=={value}", key.to_lowercase())
        }
        _ => word.clone(),
    });
    translated.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_may_be_dockers_or_containerds() {
        let found = |word: &str| filters(&[word.to_owned()]).remove(0);
        assert_eq!(found("KIND=active"), "kind==active");
        for same in ["kind==active", "name~=a", "parent!=b", "labels.x"] {
            assert_eq!(found(same), same);
        }
    }
}
