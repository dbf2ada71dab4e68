//! Whether what the backends hold and no record knows is swept.
//!
//! Usually it is what a crash left, and goes with the first collection. But after a database was
//! lost, it is everything, down to the root filesystems of running containers: then it stays, over
//! any number of restarts, until somebody says that it may go. Content among it is found again by
//! whoever pulls it.

use std::time::SystemTime;

use berth_types::Result;
use berth_types::filter::Filters;

use crate::codec::{Damaged, Decoder, Encoder};
use crate::key::{Kind, key};
use crate::ledger::Durability;
use crate::record::{Record, store};
use crate::shared::Shared;
use crate::storage::{Read, Write};

/// What the next collection does with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Orphans {
    /// Nothing: they were swept, and no new ones can have come.
    Swept,
    /// Takes them.
    Sweep,
    /// Leaves them.
    Keep,
}

/// The record that says that they are kept.
struct Kept;

impl Record for Kept {
    fn write(&self, to: Encoder) -> Encoder {
        to.number(1)
    }

    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        from.number().map(|_| Self)
    }
}

fn meta() -> Vec<u8> {
    key(Kind::Meta, &["keep-orphans"])
}

/// Says so in a database that is being made.
pub(crate) fn keep_in(records: &mut dyn Write) -> Result<()> {
    records.store(&meta(), &Kept.write(Encoder::new()).finish()).map(drop)
}

/// Whether they are kept.
pub(crate) fn are_kept(read: &dyn Read) -> Result<bool> {
    Ok(read.load(&meta())?.is_some())
}

/// Decides at the start of a daemon, which found its database `new` or not.
pub(super) async fn decide(shared: &Shared, new: bool, opened: SystemTime) -> Result<Orphans> {
    if shared.ledger.view(are_kept)? {
        return Ok(Orphans::Keep);
    }
    if new && holds_anything_from_before(shared, opened).await? {
        tracing::warn!(
            "there is a new metadata database over content and snapshots from before: they are kept"
        );
        shared.ledger.update(Durability::Synced, |txn| store(txn, &meta(), &Kept)).await?;
        return Ok(Orphans::Keep);
    }
    Ok(Orphans::Sweep)
}

async fn holds_anything_from_before(shared: &Shared, opened: SystemTime) -> Result<bool> {
    let blobs = shared.content.list(&Filters::default()).await?;
    if blobs.iter().any(|info| info.created_at < opened) {
        return Ok(true);
    }
    for snapshotter in shared.snapshotters.values() {
        let snapshots = snapshotter.list(&Filters::default()).await?;
        if snapshots.iter().any(|info| info.created_at < opened) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// They may go.
pub(super) async fn let_go(shared: &Shared) -> Result<()> {
    shared.ledger.update(Durability::Synced, |txn| txn.delete(&meta()).map(drop)).await
}
