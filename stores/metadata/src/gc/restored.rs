//! Making the records of a backup true: what went from the backends since goes from them too.
//! What came since is an orphan, and kept.

use std::collections::BTreeSet;

use berth_types::Result;

use super::backends;
use crate::key::{Kind, key};
use crate::ledger::{Durability, Stale, Txn};
use crate::record::{BlobRecord, IngestRecord, SnapshotRecord, each};
use crate::shared::Shared;
use crate::snapshots::Place;

pub(super) async fn reconcile(shared: &Shared) -> Result<()> {
    let held = backends::everything(shared).await?;
    let loaded: BTreeSet<String> = shared.snapshotters.keys().map(ToString::to_string).collect();
    let change = move |txn: &mut Txn<'_>| remove_missing(txn, &held, &loaded);
    let removed = shared.ledger.update(Durability::Synced, change).await?;
    tracing::warn!(removed, "records of a backup whose objects are gone");
    Ok(())
}

fn remove_missing(txn: &mut Txn<'_>, held: &BTreeSet<Stale>, loaded: &BTreeSet<String>) -> Result<usize> {
    let mut gone = Vec::new();
    each::<BlobRecord, 2>(txn, &key(Kind::Blob, &[]), |[namespace, digest], _| {
        let digest = digest.parse()?;
        let node = BlobRecord::key(&namespace, &digest);
        gone.extend((!held.contains(&Stale::Blob(digest))).then_some(node));
        Ok(())
    })?;
    each::<IngestRecord, 2>(txn, &key(Kind::Ingest, &[]), |[namespace, reference], record| {
        let is_gone = record.expected.is_none() && !held.contains(&Stale::Ingest(record.backend.to_string()));
        gone.extend(is_gone.then(|| IngestRecord::key(&namespace, &reference)));
        Ok(())
    })?;
    let mut snapshots = Vec::new();
    each::<SnapshotRecord, 3>(txn, &key(Kind::Snapshot, &[]), |[namespace, snapshotter, name], record| {
        let stale = Stale::Snapshot(snapshotter.clone(), record.backend.to_string());
        if loaded.contains(&snapshotter) && !held.contains(&stale) {
            snapshots.push((Place { namespace, snapshotter, name }, record));
        }
        Ok(())
    })?;
    let removed = gone.len() + snapshots.len();
    for node in gone {
        txn.delete(&node)?;
    }
    for (place, record) in snapshots {
        place.erase(txn, &record)?;
    }
    Ok(removed)
}
