//! Freeing what the backends hold for nobody.
//!
//! Only after the removal of the records is on disk. Each thing is taken for oneself, looked up
//! in the records once more, and removed; what somebody is using right now is left for the next
//! time. See [`crate::locks`] for what the others lock.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use berth_core::Snapshotter;
use berth_types::filter::Filters;
use berth_types::{Digest, ErrorKind, IngestRef, Result, SnapshotKey};

use super::Collected;
use crate::key::{Kind, key};
use crate::ledger::Stale;
use crate::locks::Name;
use crate::record::{BlobRecord, IngestRecord, SnapshotRecord, each};
use crate::shared::Shared;

/// How many blobs are locked at a time.
const BATCH: usize = 64;

/// Everything that the backends hold; what is recorded is found out later.
pub(super) async fn everything(shared: &Shared) -> Result<BTreeSet<Stale>> {
    let mut all = BTreeSet::new();
    all.extend(
        shared.content.list(&Filters::default()).await?.into_iter().map(|info| Stale::Blob(info.digest)),
    );
    let ingests = shared.content.ingests(&Filters::default()).await?;
    all.extend(ingests.into_iter().map(|status| Stale::Ingest(status.reference.to_string())));
    for (name, snapshotter) in &shared.snapshotters {
        match snapshotter.list(&Filters::default()).await {
            Ok(found) => {
                all.extend(
                    found.into_iter().map(|info| Stale::Snapshot(name.to_string(), info.key.to_string())),
                );
            }
            // One that is a process of its own may not be up yet.
            Err(error) => tracing::warn!(snapshotter = %name, error = error.chain(), "not looked through"),
        }
    }
    Ok(all)
}

/// Removes from the backends what no record knows; answers what has to be tried again.
pub(super) async fn free(shared: &Shared, stale: BTreeSet<Stale>, collected: &mut Collected) -> Vec<Stale> {
    let mut blobs = Vec::new();
    let mut ingests = Vec::new();
    let mut snapshots: BTreeMap<String, Vec<SnapshotKey>> = BTreeMap::new();
    for stale in stale {
        match stale {
            Stale::Blob(digest) => blobs.push(digest),
            Stale::Ingest(reference) => ingests.extend(reference.parse::<IngestRef>()),
            Stale::Snapshot(snapshotter, key) => {
                snapshots.entry(snapshotter).or_default().extend(key.parse::<SnapshotKey>());
            }
        }
    }
    let mut again = Vec::new();
    for (name, keys) in snapshots {
        // One that isn't loaded keeps what it has.
        if let Some(backend) = shared.snapshotters.get(name.as_str()) {
            let left = free_snapshots(shared, &name, backend, keys, collected).await;
            again.extend(left.into_iter().map(|key| Stale::Snapshot(name.clone(), key.to_string())));
        }
    }
    for batch in blobs.chunks(BATCH) {
        let left = free_blobs(shared, batch, collected).await;
        again.extend(left.into_iter().map(Stale::Blob));
    }
    again.extend(free_ingests(shared, ingests).await);
    again
}

async fn free_blobs(shared: &Shared, digests: &[Digest], collected: &mut Collected) -> Vec<Digest> {
    let Some(_unknown) = shared.locks.try_own(Name::UnknownBlob) else { return digests.to_vec() };
    let mut again = Vec::new();
    let mut owned = Vec::new();
    for digest in digests {
        match shared.locks.try_own(Name::Blob(digest.clone())) {
            Some(lock) => owned.push((digest.clone(), lock)),
            None => again.push(digest.clone()),
        }
    }
    let unused = shared.ledger.view(|read| {
        let mut expected = HashSet::new();
        each::<IngestRecord, 2>(read, &key(Kind::Ingest, &[]), |_, record| {
            expected.extend(record.expected);
            Ok(())
        })?;
        let mut unused = Vec::new();
        for (digest, lock) in owned {
            if !expected.contains(&digest) && !BlobRecord::anywhere(read, &digest)? {
                unused.push((digest, lock));
            }
        }
        Ok(unused)
    });
    let unused = match unused {
        Ok(unused) => unused,
        Err(error) => {
            tracing::warn!(error = error.chain(), "blobs not freed");
            return digests.to_vec();
        }
    };
    for (digest, _lock) in unused {
        let size = shared.content.info(&digest).await.map_or(0, |info| info.size);
        match shared.content.delete(&digest).await {
            Ok(()) => {
                collected.blobs_freed += 1;
                collected.bytes_freed += size;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(%digest, error = error.chain(), "blob not freed");
                again.push(digest);
            }
        }
    }
    again
}

/// A reference of the backend is recorded before it is used and never used again.
async fn free_ingests(shared: &Shared, references: Vec<IngestRef>) -> Vec<Stale> {
    if references.is_empty() {
        return Vec::new();
    }
    let mut recorded = HashSet::new();
    let known = shared.ledger.view(|read| {
        each::<IngestRecord, 2>(read, &key(Kind::Ingest, &[]), |_, record| {
            recorded.insert(record.backend);
            Ok(())
        })
    });
    if let Err(error) = known {
        tracing::warn!(error = error.chain(), "ingests not freed");
        return references.into_iter().map(|reference| Stale::Ingest(reference.to_string())).collect();
    }
    let mut again = Vec::new();
    for reference in references.into_iter().filter(|reference| !recorded.contains(reference)) {
        match shared.content.abort(&reference).await {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%reference, error = error.chain(), "ingest not freed");
                again.push(Stale::Ingest(reference.to_string()));
            }
            _ => {}
        }
    }
    again
}

async fn free_snapshots(
    shared: &Shared,
    name: &str,
    backend: &Arc<dyn Snapshotter>,
    keys: Vec<SnapshotKey>,
    collected: &mut Collected,
) -> Vec<SnapshotKey> {
    let mut again = Vec::new();
    let mut owned = Vec::new();
    for key in keys {
        match shared.locks.try_own(Name::Backend(name.to_owned(), key.to_string())) {
            Some(lock) => owned.push((key, lock)),
            None => again.push(key),
        }
    }
    // A remote snapshot can be recorded under several names.
    let mut recorded = HashSet::new();
    let known = shared.ledger.view(|read| {
        each::<SnapshotRecord, 3>(read, &key(Kind::Snapshot, &[]), |[_, snapshotter, _], record| {
            if snapshotter == name {
                recorded.insert(record.backend);
            }
            Ok(())
        })
    });
    if let Err(error) = known {
        tracing::warn!(error = error.chain(), "snapshots not freed");
        again.extend(owned.into_iter().map(|(key, _)| key));
        return again;
    }
    owned.retain(|(key, _)| !recorded.contains(key));
    let (mut left, mut removed) = (owned, 0);
    loop {
        // Parents can go once their children are gone, in whatever order they are named.
        let before = left.len();
        let mut kept = Vec::new();
        for (key, lock) in left {
            match backend.remove(&key).await {
                Ok(()) => removed += 1,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => kept.push((key, lock, error)),
            }
        }
        let stuck = kept.len() == before;
        if stuck || kept.is_empty() {
            for (key, _, error) in kept {
                tracing::warn!(snapshotter = name, %key, error = error.chain(), "snapshot not freed");
                again.push(key);
            }
            break;
        }
        left = kept.into_iter().map(|(key, lock, _)| (key, lock)).collect();
    }
    collected.snapshots_freed += removed;
    match backend.cleanup().await {
        Err(error) if error.kind() != ErrorKind::NotImplemented => {
            tracing::warn!(snapshotter = name, error = error.chain(), "snapshotter not cleaned up");
        }
        _ => {}
    }
    again
}
