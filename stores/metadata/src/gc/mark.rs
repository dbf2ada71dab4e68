//! What is reachable.
//!
//! The mark works on one state of the records. What is stored afterwards is marked later, from
//! its own keys on ([`Marks::add`]): whatever was made, changed or newly referred to since is
//! kept by that.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::time::SystemTime;

use berth_core::HeldMount;
use berth_types::{Container, Labels, Result};

use super::labels;
use crate::key::{Kind, key, names};
use crate::record::{
    BlobRecord, CommitRecord, ContainerRecord, ImageRecord, IngestRecord, LeaseRecord, SandboxRecord,
    SnapshotRecord, each, load,
};
use crate::storage::Read;

/// The key of a record.
pub(super) type Node = Vec<u8>;

/// How a record is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// With everything that it refers to.
    Full,
    /// With its parents or its target alone.
    Flat,
}

/// The records that are kept.
#[derive(Debug)]
pub(super) struct Marks {
    full: HashSet<Node>,
    flat: HashSet<Node>,
    /// What is kept as long as the key is.
    back: HashMap<Node, Vec<Node>>,
    now: SystemTime,
}

impl Marks {
    pub(super) fn contains(&self, node: &Node) -> bool {
        self.full.contains(node) || self.flat.contains(node)
    }

    /// Marks everything that is reachable.
    pub(super) fn of(read: &dyn Read, mounts: &[HeldMount], now: SystemTime) -> Result<Self> {
        let mut marks = Self { full: HashSet::new(), flat: HashSet::new(), back: HashMap::new(), now };
        let mut roots = marks.roots_among(mounts, read)?;
        roots.extend(marks.roots(read)?);
        marks.spread(read, roots)?;
        Ok(marks)
    }

    /// Marks what was stored since, and what is reachable from that.
    pub(super) fn add(&mut self, read: &dyn Read, stored: Vec<Node>) -> Result<()> {
        let mut roots = Vec::new();
        for node in stored {
            match Kind::of(&node) {
                Some(
                    Kind::Image
                    | Kind::Container
                    | Kind::Sandbox
                    | Kind::Blob
                    | Kind::Ingest
                    | Kind::Snapshot,
                ) => {
                    // It may refer to other things than at the first mark.
                    self.full.remove(&node);
                    roots.push((node, Reach::Full));
                }
                Some(Kind::Lease) => {
                    let [namespace, id] = names(&node)?;
                    if let Some(record) = load::<LeaseRecord>(read, &node)? {
                        self.lease(read, &namespace, &id, &record.labels, &mut roots)?;
                    }
                }
                Some(Kind::LeaseResource) => {
                    let [namespace, lease, kind, id] = names(&node)?;
                    if load::<LeaseRecord>(read, &LeaseRecord::key(&namespace, &lease))?.is_some()
                        && let Some(node) = resource(&namespace, &kind, &id)
                    {
                        roots.push((node, Reach::Full));
                    }
                }
                Some(Kind::Commit) => {
                    let [namespace, snapshotter, name] = names(&node)?;
                    roots.push((SnapshotRecord::key(&namespace, &snapshotter, &name), Reach::Full));
                }
                Some(Kind::Meta | Kind::Namespace | Kind::Child | Kind::Mount) | None => {}
            }
        }
        self.spread(read, roots)
    }

    /// Activated mounts that a lease holds; and what keeps the others is noted, before anything is marked.
    fn roots_among(&mut self, mounts: &[HeldMount], read: &dyn Read) -> Result<Vec<(Node, Reach)>> {
        let mut roots = Vec::new();
        for mount in mounts {
            let (namespace, node) = (mount.namespace.as_str(), mount_node(mount));
            self.keep_with(namespace, &node, &mount.labels);
            let lease = mount.lease.as_ref().map(|lease| LeaseRecord::key(namespace, lease.as_str()));
            let lease = lease.map(|key| load::<LeaseRecord>(read, &key)).transpose()?.flatten();
            if lease.is_some_and(|lease| !labels::is_expired(&lease.labels, self.now)) {
                roots.push((node, Reach::Full));
            }
        }
        Ok(roots)
    }

    fn roots(&mut self, read: &dyn Read) -> Result<Vec<(Node, Reach)>> {
        let mut roots = Vec::new();
        let mut conditions: Vec<(Node, labels::Condition)> = Vec::new();
        let mut used: BTreeMap<Node, SystemTime> = BTreeMap::new();
        each::<LeaseRecord, 2>(read, &key(Kind::Lease, &[]), |[namespace, id], record| {
            self.lease(read, &namespace, &id, &record.labels, &mut roots)
        })?;
        each::<ImageRecord, 2>(read, &key(Kind::Image, &[]), |[namespace, name], record| {
            let node = ImageRecord::key(&namespace, &name);
            conditions.extend(conditional(&namespace, &node, &record.labels));
            if labels::is_expired(&record.labels, self.now) {
                self.keep_with(&namespace, &node, &record.labels);
            } else {
                roots.push((node, Reach::Full));
            }
            Ok(())
        })?;
        each::<IngestRecord, 2>(read, &key(Kind::Ingest, &[]), |[namespace, reference], record| {
            if record.expires.is_some_and(|expires| expires >= self.now) {
                roots.push((IngestRecord::key(&namespace, &reference), Reach::Full));
            }
            Ok(())
        })?;
        each::<BlobRecord, 2>(read, &key(Kind::Blob, &[]), |[namespace, digest], record| {
            let node = key(Kind::Blob, &[&namespace, &digest]);
            self.keep_with(&namespace, &node, &record.labels);
            conditions.extend(conditional(&namespace, &node, &record.labels));
            if labels::is_root(&record.labels) {
                roots.push((node, Reach::Full));
            }
            Ok(())
        })?;
        each::<SnapshotRecord, 3>(
            read,
            &key(Kind::Snapshot, &[]),
            |[namespace, snapshotter, name], record| {
                let node = SnapshotRecord::key(&namespace, &snapshotter, &name);
                self.keep_with(&namespace, &node, &record.labels);
                if let Some(time) = labels::used(&record.labels) {
                    used.insert(node.clone(), time);
                }
                if labels::is_root(&record.labels) {
                    roots.push((node, Reach::Full));
                }
                Ok(())
            },
        )?;
        each::<CommitRecord, 3>(read, &key(Kind::Commit, &[]), |[namespace, snapshotter, name], _| {
            roots.push((SnapshotRecord::key(&namespace, &snapshotter, &name), Reach::Full));
            Ok(())
        })?;
        for (node, condition) in conditions {
            if used.get(&condition.snapshot).is_some_and(|time| condition.holds(*time, self.now)) {
                self.back.entry(node).or_default().push(condition.snapshot);
            }
        }
        // Last, when it is known what they keep: their records are large and are read once.
        each::<ContainerRecord, 2>(read, &key(Kind::Container, &[]), |[namespace, id], record| {
            let node = ContainerRecord::key(&namespace, &id);
            roots.extend(self.back.get(&node).into_iter().flatten().map(|kept| (kept.clone(), Reach::Full)));
            roots.extend(of_container(&namespace, record.fields()));
            self.full.insert(node);
            Ok(())
        })?;
        each::<SandboxRecord, 2>(read, &key(Kind::Sandbox, &[]), |[namespace, id], record| {
            let referred = labels::references(&namespace, &record.fields().labels);
            roots.extend(referred.into_iter().map(|node| (node, Reach::Full)));
            self.full.insert(SandboxRecord::key(&namespace, &id));
            Ok(())
        })?;
        Ok(roots)
    }

    /// A lease that holds makes roots of its resources.
    fn lease(
        &mut self,
        read: &dyn Read,
        namespace: &str,
        id: &str,
        labels: &Labels,
        roots: &mut Vec<(Node, Reach)>,
    ) -> Result<()> {
        if labels::is_expired(labels, self.now) {
            return Ok(());
        }
        let reach = if labels.contains_key(labels::FLAT) { Reach::Flat } else { Reach::Full };
        self.full.insert(LeaseRecord::key(namespace, id));
        read.scan(&key(Kind::LeaseResource, &[namespace, id]), &mut |held, _| {
            let [_, _, kind, id] = names(held)?;
            roots.extend(resource(namespace, &kind, &id).map(|node| (node, reach)));
            Ok(ControlFlow::Continue(()))
        })
    }

    fn keep_with(&mut self, namespace: &str, node: &Node, labels: &Labels) {
        for keeper in labels::back_references(namespace, labels) {
            self.back.entry(keeper).or_default().push(node.clone());
        }
    }

    fn spread(&mut self, read: &dyn Read, mut grey: Vec<(Node, Reach)>) -> Result<()> {
        while let Some((node, reach)) = grey.pop() {
            let seen = match reach {
                Reach::Full => !self.full.insert(node.clone()),
                Reach::Flat => self.full.contains(&node) || !self.flat.insert(node.clone()),
            };
            if seen {
                continue;
            }
            if reach == Reach::Full
                && let Some(kept) = self.back.get(&node)
            {
                grey.extend(kept.iter().map(|kept| (kept.clone(), Reach::Full)));
            }
            // A record that is damaged keeps itself and hides what it referred to: better than
            // no collection ever again.
            match references(read, &node, reach) {
                Ok(found) => grey.extend(found),
                Err(error) => tracing::error!(error = error.chain(), "not followed"),
            }
        }
        Ok(())
    }
}

/// What stands for an activated mount among the records.
pub(super) fn mount_node(mount: &HeldMount) -> Node {
    key(Kind::Mount, &[mount.namespace.as_str(), &mount.name])
}

/// The conditional references of a record, with its key.
fn conditional(namespace: &str, node: &Node, labels: &Labels) -> Vec<(Node, labels::Condition)> {
    labels::conditions(namespace, labels).into_iter().map(|test| (node.clone(), test)).collect()
}

/// What a record refers to. One that isn't there refers to nothing.
fn references(read: &dyn Read, node: &Node, reach: Reach) -> Result<Vec<(Node, Reach)>> {
    let mut found = Vec::new();
    let labelled = |namespace: &str, labels: &Labels| -> Vec<(Node, Reach)> {
        if reach == Reach::Flat {
            return Vec::new();
        }
        labels::references(namespace, labels).into_iter().map(|node| (node, Reach::Full)).collect()
    };
    match Kind::of(node) {
        Some(Kind::Blob) => {
            let [namespace, _] = names(node)?;
            if let Some(record) = load::<BlobRecord>(read, node)? {
                found.extend(labelled(&namespace, &record.labels));
            }
        }
        Some(Kind::Snapshot) => {
            let [namespace, snapshotter, _] = names(node)?;
            if let Some(record) = load::<SnapshotRecord>(read, node)? {
                let parent = record.parent.as_ref();
                found.extend(
                    parent.map(|parent| {
                        (SnapshotRecord::key(&namespace, &snapshotter, parent.as_str()), reach)
                    }),
                );
                found.extend(labelled(&namespace, &record.labels));
            }
        }
        Some(Kind::Image) => {
            let [namespace, _] = names(node)?;
            if let Some(record) = load::<ImageRecord>(read, node)? {
                found.push((BlobRecord::key(&namespace, &record.target.digest), reach));
                found.extend(labelled(&namespace, &record.labels));
            }
        }
        Some(Kind::Ingest) => {
            let [namespace, _] = names(node)?;
            if let Some(expected) = load::<IngestRecord>(read, node)?.and_then(|record| record.expected) {
                found.push((BlobRecord::key(&namespace, &expected), Reach::Full));
            }
        }
        Some(Kind::Container) => {
            let [namespace, _] = names(node)?;
            if let Some(record) = load::<ContainerRecord>(read, node)? {
                found.extend(of_container(&namespace, record.fields()));
            }
        }
        Some(Kind::Sandbox) => {
            let [namespace, _] = names(node)?;
            if let Some(record) = load::<SandboxRecord>(read, node)? {
                found.extend(labelled(&namespace, &record.fields().labels));
            }
        }
        _ => {}
    }
    Ok(found)
}

/// What a container refers to.
fn of_container(namespace: &str, container: &Container) -> Vec<(Node, Reach)> {
    let mut found = labels::references(namespace, &container.labels);
    if !container.snapshotter.is_empty() {
        found.push(SnapshotRecord::key(namespace, &container.snapshotter, &container.snapshot_key));
    }
    found.into_iter().map(|node| (node, Reach::Full)).collect()
}

/// The record that a lease's resource means.
fn resource(namespace: &str, kind: &str, id: &str) -> Option<Node> {
    match kind.split_once('/') {
        None => match kind {
            "content" => Some(key(Kind::Blob, &[namespace, id])),
            "images" => Some(key(Kind::Image, &[namespace, id])),
            "ingests" => Some(key(Kind::Ingest, &[namespace, id])),
            _ => None,
        },
        Some(("snapshots", snapshotter)) => Some(key(Kind::Snapshot, &[namespace, snapshotter, id])),
        Some(_) => None,
    }
}
