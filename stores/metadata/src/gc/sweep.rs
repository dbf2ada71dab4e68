//! Removing the records that nothing reaches.
//!
//! The candidates come from the state that was marked. Each batch is one transaction, which first
//! marks what was stored since: it sees the records as they are, and nobody changes them under
//! it. Between batches everybody else writes.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::SystemTime;

use berth_core::HeldMount;
use berth_types::{Event, Namespace, Result};

use super::mark::{Marks, Node, mount_node};
use super::{Collected, Schedule};
use crate::key::{Kind, key, names};
use crate::ledger::{Durability, Ledger, Stale, Txn};
use crate::record::{IngestRecord, SnapshotRecord, load};
use crate::snapshots::Place;
use crate::storage::Read;

/// How many records one transaction removes.
const BATCH: usize = 512;

/// The kinds that can be garbage, in the order in which they go.
const SWEPT: [Kind; 5] = [Kind::Lease, Kind::Image, Kind::Ingest, Kind::Blob, Kind::Snapshot];

/// A mark and what it left over.
pub(super) struct Sweep {
    marks: Marks,
    candidates: Vec<Node>,
    /// Activated mounts that nothing held.
    mounts: Vec<HeldMount>,
}

impl Sweep {
    /// Marks the records as they are.
    pub(super) fn prepare(read: &dyn Read, mut mounts: Vec<HeldMount>) -> Result<Self> {
        let marks = Marks::of(read, &mounts, SystemTime::now())?;
        mounts.retain(|mount| !marks.contains(&mount_node(mount)));
        let mut candidates = Vec::new();
        for kind in SWEPT {
            let from = candidates.len();
            read.scan(&key(kind, &[]), &mut |node, _| {
                let node = node.to_vec();
                if !marks.contains(&node) {
                    candidates.push(node);
                }
                Ok(ControlFlow::Continue(()))
            })?;
            if kind == Kind::Snapshot {
                children_first(read, &mut candidates[from..])?;
            }
        }
        Ok(Self { marks, candidates, mounts })
    }

    /// Removes them, and answers what the backends hold for nobody now; the numbers of mounts are put into `unheld`.
    pub(super) async fn run(
        mut self,
        ledger: &Ledger,
        schedule: &Arc<Schedule>,
        collected: &mut Collected,
        unheld: &mut Vec<u64>,
    ) -> Result<Vec<Stale>> {
        let mut stale = Vec::new();
        let mut rest = std::mem::take(&mut self.candidates).into_iter();
        loop {
            let batch: Vec<Node> = rest.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            let schedule = Arc::clone(schedule);
            let mut marks = self.marks;
            let change = move |txn: &mut Txn<'_>| {
                marks.add(txn, schedule.stored_since_mark())?;
                let mut removed = Vec::new();
                for node in batch {
                    if !marks.contains(&node) {
                        removed.extend(remove(txn, &node)?);
                    }
                }
                Ok((marks, removed))
            };
            let (marks, removed) = ledger.update(Durability::Synced, change).await?;
            self.marks = marks;
            for removed in removed {
                collected.count(&removed);
                stale.extend(removed.stale);
            }
        }
        self.unheld(ledger, schedule, unheld).await?;
        Ok(stale)
    }

    /// The mounts that nothing that was stored since holds either.
    async fn unheld(self, ledger: &Ledger, schedule: &Arc<Schedule>, into: &mut Vec<u64>) -> Result<()> {
        let Self { mut marks, mounts, .. } = self;
        if mounts.is_empty() {
            return Ok(());
        }
        let schedule = Arc::clone(schedule);
        let look = move |txn: &mut Txn<'_>| {
            marks.add(txn, schedule.stored_since_mark())?;
            Ok(mounts.into_iter().filter(|mount| !marks.contains(&mount_node(mount))).collect::<Vec<_>>())
        };
        let found = ledger.update(Durability::Relaxed, look).await?;
        into.extend(found.into_iter().map(|mount| mount.number));
        Ok(())
    }
}

/// A record that went.
pub(super) struct Removed {
    pub(super) kind: Kind,
    stale: Option<Stale>,
}

fn remove(txn: &mut Txn<'_>, node: &Node) -> Result<Option<Removed>> {
    let Some(kind) = Kind::of(node) else { return Ok(None) };
    let stale = match kind {
        Kind::Lease => {
            let [namespace, id] = names(node)?;
            txn.delete_all(&key(Kind::LeaseResource, &[&namespace, &id]))?;
            None
        }
        Kind::Image => {
            let [namespace, name] = names(node)?;
            txn.tell(&namespace.parse::<Namespace>()?, Event::ImageDelete { name });
            None
        }
        Kind::Ingest => {
            load::<IngestRecord>(txn, node)?.map(|record| Stale::Ingest(record.backend.to_string()))
        }
        Kind::Blob => {
            let [_, digest] = names(node)?;
            Some(Stale::Blob(digest.parse()?))
        }
        Kind::Snapshot => {
            let [namespace, snapshotter, name] = names(node)?;
            let Some(record) = load::<SnapshotRecord>(txn, node)? else { return Ok(None) };
            if SnapshotRecord::has_children(txn, &namespace, &snapshotter, &name)? {
                return Ok(None);
            }
            let place = Place { namespace, snapshotter, name };
            place.erase(txn, &record)?;
            let Place { namespace, snapshotter, name } = place;
            let event = Event::SnapshotRemove { key: name, snapshotter: snapshotter.clone() };
            txn.tell(&namespace.parse::<Namespace>()?, event);
            let stale = Some(Stale::Snapshot(snapshotter, record.backend.to_string()));
            return Ok(Some(Removed { kind, stale }));
        }
        _ => return Ok(None),
    };
    Ok(txn.delete(node)?.then_some(Removed { kind, stale }))
}

/// Orders snapshots so that none comes before its children.
fn children_first(read: &dyn Read, nodes: &mut [Node]) -> Result<()> {
    let mut parents: HashMap<Node, Option<Node>> = HashMap::new();
    for node in nodes.iter() {
        let [namespace, snapshotter, _] = names(node)?;
        let parent = match load::<SnapshotRecord>(read, node) {
            Ok(record) => record.and_then(|record| record.parent),
            Err(_) => None,
        };
        let parent = parent.map(|parent| SnapshotRecord::key(&namespace, &snapshotter, parent.as_str()));
        parents.insert(node.clone(), parent);
    }
    let depth = |node: &Node| {
        // A cycle cannot be stored, but a damaged file must not make this endless.
        let chain = std::iter::successors(parents.get(node), |next| {
            next.as_ref().and_then(|parent| parents.get(parent))
        });
        chain.take(parents.len() + 1).count()
    };
    nodes.sort_by_cached_key(|node| std::cmp::Reverse(depth(node)));
    Ok(())
}
