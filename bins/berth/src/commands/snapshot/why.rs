//! `snapshot why`: what keeps a snapshot from being removed.

use std::collections::{BTreeMap, BTreeSet};

use berth_oci::image::{PlatformMatch, chain_ids};
use berth_types::filter::Filters;
use berth_types::{Labels, SnapshotInfo, SnapshotKey, SnapshotKind};
use clap::Args;
use serde_json::{Value, json};

use super::kind;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{self, table};

/// The garbage collector's labels, as containerd has them.
const REFERENCE: &str = "containerd.io/gc.ref.snapshot.";
const ROOT: &str = "containerd.io/gc.root";
const EXPIRE: &str = "containerd.io/gc.expire";

/// Flags of `snapshot why`.
#[derive(Debug, Args)]
pub(crate) struct Why {
    /// A Go template, `table TEMPLATE` or `json`
    #[arg(long)]
    format: Option<String>,
    /// The snapshot, or how its name begins
    name: String,
}

/// Something that holds a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Holder {
    what: &'static str,
    name: String,
    how: String,
}

impl Why {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let snapshots = context.client.snapshotter(&context.place.snapshotter, context.scope())?;
        let all = snapshots.list(&Filters::default()).await?;
        let meant = meant(&all, &self.name)?.clone();
        let above = above(&all, &meant);
        let mut holders = children(&all, &meant);
        holders.extend(own_labels(&meant));
        holders.extend(containers(context, &meant, &above).await?);
        holders.extend(leases(context, &meant, &above).await?);
        holders.extend(images(context, &meant, &above).await?);
        holders.sort();
        holders.dedup();
        if holders.is_empty() && self.format.is_none() {
            output::line("nothing holds it: the next garbage collection removes it")?;
            return Ok(0);
        }
        let rows: Vec<Value> = holders
            .iter()
            .map(|holder| json!({ "What": holder.what, "Name": holder.name, "How": holder.how }))
            .collect();
        let heads: table::Heads<'_> = &[("What", "HELD BY"), ("Name", "NAME"), ("How", "HOW")];
        let default = "table {{.What}}\t{{.Name}}\t{{.How}}";
        table::print(&rows, self.format.as_deref(), default, heads)?;
        Ok(0)
    }
}

/// The snapshot of that name, or the only one whose name begins so; of a digest the algorithm may be left out.
fn meant<'a>(all: &'a [SnapshotInfo], name: &str) -> Result<&'a SnapshotInfo, Failure> {
    if let Some(exact) = all.iter().find(|info| info.key.as_str() == name) {
        return Ok(exact);
    }
    let begins = |info: &&SnapshotInfo| {
        let key = info.key.as_str();
        !name.is_empty()
            && (key.starts_with(name)
                || key.strip_prefix("sha256:").is_some_and(|rest| rest.starts_with(name)))
    };
    let mut found = all.iter().filter(begins);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(Failure::new(format!("no such snapshot: {name} (berth snapshot ls shows them)"))),
        (Some(_), Some(_)) => {
            Err(Failure::new(format!("{name} is how several snapshots begin: say more of the name")))
        }
    }
}

/// Everything that stands on a snapshot, itself included.
fn above(all: &[SnapshotInfo], meant: &SnapshotInfo) -> BTreeSet<SnapshotKey> {
    let mut children: BTreeMap<&SnapshotKey, Vec<&SnapshotKey>> = BTreeMap::new();
    for info in all {
        if let Some(parent) = &info.parent {
            children.entry(parent).or_default().push(&info.key);
        }
    }
    let mut found = BTreeSet::new();
    let mut pending = vec![&meant.key];
    while let Some(key) = pending.pop() {
        if found.insert(key.clone()) {
            pending.extend(children.get(key).into_iter().flatten());
        }
    }
    found
}

fn children(all: &[SnapshotInfo], meant: &SnapshotInfo) -> Vec<Holder> {
    let children = all.iter().filter(|info| info.parent.as_ref() == Some(&meant.key));
    let holder = |info: &SnapshotInfo| Holder {
        what: "snapshot",
        name: info.key.to_string(),
        how: format!("stands on it ({})", kind(info.kind)),
    };
    children.map(holder).collect()
}

fn own_labels(meant: &SnapshotInfo) -> Vec<Holder> {
    let roots = meant.labels.iter().filter(|(label, _)| label.starts_with(ROOT));
    let holder = |(label, value): (&String, &String)| Holder {
        what: "label",
        name: label.clone(),
        how: format!("keeps it for ever ({value})"),
    };
    roots.map(holder).collect()
}

/// In what way somebody who names `key` holds the snapshot that is meant.
fn how(meant: &SnapshotInfo, key: &str, own: &str) -> String {
    if key == meant.key.as_str() { own.to_owned() } else { format!("{own} by {key}, which stands on it") }
}

async fn containers(
    context: &Context,
    meant: &SnapshotInfo,
    above: &BTreeSet<SnapshotKey>,
) -> Result<Vec<Holder>, Failure> {
    let all = context.client.containers(context.scope()).list(&Filters::default()).await?;
    let own = all.into_iter().filter(|container| container.snapshotter == context.place.snapshotter.as_str());
    let names = own.filter(|container| above.iter().any(|key| key.as_str() == container.snapshot_key));
    let holder = |container: berth_types::Container| {
        let how = match meant.kind {
            SnapshotKind::Committed => "its root filesystem is made of it",
            SnapshotKind::Active | SnapshotKind::View => "its root filesystem",
        };
        Holder { what: "container", name: container.id.to_string(), how: how.to_owned() }
    };
    Ok(names.map(holder).collect())
}

async fn leases(
    context: &Context,
    meant: &SnapshotInfo,
    above: &BTreeSet<SnapshotKey>,
) -> Result<Vec<Holder>, Failure> {
    let leases = context.client.leases(context.scope());
    let kind = format!("snapshots/{}", context.place.snapshotter);
    let mut holders = Vec::new();
    for lease in leases.list(&Filters::default()).await? {
        // One that ends meanwhile holds nothing.
        let resources = leases.resources(&lease.id).await.unwrap_or_default();
        let until =
            lease.labels.get(EXPIRE).map_or_else(|| "until it ends".to_owned(), |at| format!("until {at}"));
        let held = resources.iter().filter(|held| held.kind == kind);
        for held in held.filter(|held| above.iter().any(|key| key.as_str() == held.id)) {
            let how = how(meant, &held.id, &format!("holds it {until}"));
            holders.push(Holder { what: "lease", name: lease.id.to_string(), how });
        }
    }
    Ok(holders)
}

/// The images whose configuration refers to the snapshot or to what stands on it, and other blobs that do.
async fn images(
    context: &Context,
    meant: &SnapshotInfo,
    above: &BTreeSet<SnapshotKey>,
) -> Result<Vec<Holder>, Failure> {
    let content = context.client.content(context.scope());
    let mut blobs: BTreeMap<String, String> = BTreeMap::new();
    for blob in content.list(&Filters::default()).await? {
        let key = references(&blob.labels, context.place.snapshotter.as_str())
            .find(|key| above.iter().any(|one| one.as_str() == *key));
        if let Some(key) = key {
            blobs.insert(blob.digest.to_string(), key.to_owned());
        }
    }
    let platform = PlatformMatch::only(&context.workload.settings().platform);
    let (mut holders, mut named) = (Vec::new(), BTreeSet::new());
    for image in context.client.images(context.scope()).list(&Filters::default()).await? {
        // An image of which only a part is here refers to nothing that could be told.
        let Ok(loaded) = berth_transfer::load(&*content, &image.target, &platform).await else { continue };
        let config = loaded.manifest.config.digest.to_string();
        if !blobs.contains_key(&config) {
            continue;
        }
        let chain = chain_ids(&loaded.config.rootfs.diff_ids);
        let layer = chain.iter().position(|id| id.as_str() == meant.key.as_str());
        let how = match layer {
            Some(at) => format!("layer {} of {}", at + 1, chain.len()),
            None => how(meant, &blobs[&config], "holds it"),
        };
        named.insert(config);
        holders.push(Holder { what: "image", name: image.name.to_string(), how });
    }
    for (digest, key) in blobs.into_iter().filter(|(digest, _)| !named.contains(digest)) {
        let how = how(meant, &key, "a label of it refers to it");
        holders.push(Holder { what: "content", name: digest, how });
    }
    Ok(holders)
}

/// The snapshots that labels refer to, of one snapshotter.
fn references<'a>(labels: &'a Labels, snapshotter: &'a str) -> impl Iterator<Item = &'a str> {
    labels.iter().filter_map(move |(label, value)| {
        let name = label.strip_prefix(REFERENCE)?;
        let name = name.split_once('/').map_or(name, |(name, _)| name);
        (name == snapshotter).then_some(value.as_str())
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn snapshot(key: &str, parent: &str) -> SnapshotInfo {
        SnapshotInfo {
            kind: SnapshotKind::Committed,
            key: key.parse().unwrap(),
            parent: (!parent.is_empty()).then(|| parent.parse().unwrap()),
            labels: Labels::new(),
            created_at: SystemTime::UNIX_EPOCH,
            updated_at: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_name_may_be_short_where_it_is_the_only_one() {
        let all =
            [snapshot("sha256:abc", ""), snapshot("sha256:abd", ""), snapshot("ab", ""), snapshot("web", "")];
        for (name, key) in [("sha256:abc", "sha256:abc"), ("abc", "sha256:abc"), ("ab", "ab"), ("w", "web")] {
            assert_eq!(meant(&all, name).unwrap().key.as_str(), key);
        }
        for name in ["sha256:ab", "absent", ""] {
            assert!(meant(&all, name).is_err(), "{name}");
        }
    }

    #[test]
    fn what_stands_on_it_is_found_at_any_height() {
        let all = [
            snapshot("a", ""),
            snapshot("b", "a"),
            snapshot("c", "b"),
            snapshot("d", "a"),
            snapshot("e", ""),
        ];
        let names: Vec<String> = above(&all, &all[0]).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
        assert_eq!(children(&all, &all[0]).len(), 2);
    }

    #[test]
    fn labels_of_one_snapshotter_count() {
        let label = |name: &str, value: &str| (format!("{REFERENCE}{name}"), value.to_owned());
        let labels = Labels::from([label("erofs", "a"), label("erofs/x", "b"), label("overlayfs", "c")]);
        assert_eq!(references(&labels, "erofs").collect::<Vec<_>>(), ["a", "b"]);
    }
}
