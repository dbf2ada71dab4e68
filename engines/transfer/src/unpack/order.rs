//! Layers filled at once and committed in their order.
//!
//! ```text
//!   each layer   wait for its blob ─▶ turn ─▶ prepare without parent ─▶ apply ─▶ ┐
//!                                                                                ├▶ in order: commit onto the one below
//!                a layer that needs what is below it ────────────────────────▶ ┘            or unpack it on that one
//! ```

use std::collections::HashMap;

use berth_types::{Error, ErrorKind, Mount, Result, SnapshotKey};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{Semaphore, mpsc};

use super::Layer;
use super::work::{Work, below, reference};
use crate::progress::State;

/// Layers that are applied at once; each takes some threads and some MiB while it is.
const AT_ONCE: usize = 4;

/// The option of a tree whose parents come later: what needs them is refused by our differ.
const REFUSE: &str = "x-berth.apart";

/// What came of a layer by itself.
enum Filled {
    /// An active snapshot has it.
    Snapshot(SnapshotKey),
    /// Somebody else has committed it.
    Exists,
    /// It cannot be told without those below it.
    Dependent,
}

/// What came before its turn.
type Early = HashMap<usize, Result<Filled>>;

impl Work<'_> {
    /// Unpacks the layers from `first` on.
    pub(super) async fn at_once(&self, layers: &[Layer], first: usize) -> Result<()> {
        let turns = Semaphore::new(AT_ONCE);
        let (sender, filled) = mpsc::unbounded_channel();
        let mut fills: FuturesUnordered<_> = layers
            .iter()
            .enumerate()
            .skip(first)
            .map(|(at, layer)| {
                let (sender, turns) = (sender.clone(), &turns);
                async move {
                    let done = self.alone(layer, at, turns).await;
                    // Whoever listens goes on to the end, also past a failure.
                    drop(sender.send((at, done)));
                }
            })
            .collect();
        drop(sender);
        let all = async { while fills.next().await.is_some() {} };
        let ((), committed) = futures::join!(all, self.in_order(layers, first, filled, &turns));
        committed
    }

    /// Fills a snapshot without a parent with a layer.
    async fn alone(&self, layer: &Layer, at: usize, turns: &Semaphore) -> Result<Filled> {
        self.waiting.wait(&layer.descriptor.digest).await?;
        // Closed once a layer has failed: then the rest is of no use.
        let _turn = turns.acquire().await.map_err(|_| Error::cancelled("another layer has failed"))?;
        let Some((key, mounts)) = self.prepare(layer, None).await? else { return Ok(Filled::Exists) };
        self.report(layer).whole(State::Unpacking);
        let mounts = if at == 0 { mounts } else { parentless(mounts) };
        match self.apply(layer, mounts).await {
            Ok(()) => Ok(Filled::Snapshot(key)),
            Err(error) => {
                self.snapshots.remove(&key).await.ok();
                let dependent = at > 0 && error.kind() == ErrorKind::FailedPrecondition;
                if dependent { Ok(Filled::Dependent) } else { Err(error) }
            }
        }
    }

    /// Commits what was filled, each on the one below it. The first failure is the answer; what is filled after it
    /// is removed.
    async fn in_order(
        &self,
        layers: &[Layer],
        first: usize,
        mut filled: mpsc::UnboundedReceiver<(usize, Result<Filled>)>,
        turns: &Semaphore,
    ) -> Result<()> {
        let (mut next, mut early, mut failure) = (first, HashMap::new(), None);
        while let Some((at, done)) = filled.recv().await {
            early.insert(at, done);
            if failure.is_none()
                && let Err(error) = self.advance(layers, &mut next, &mut early).await
            {
                turns.close();
                failure = Some(error);
            }
            if failure.is_some() {
                self.discard(&mut early).await;
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Commits as far as there is something to commit. A failure further up need not wait for its turn.
    async fn advance(&self, layers: &[Layer], next: &mut usize, early: &mut Early) -> Result<()> {
        while let Some(done) = early.remove(next) {
            self.place(layers, *next, done).await?;
            *next += 1;
        }
        match early.iter().find(|(_, done)| done.is_err()).map(|(at, _)| *at) {
            Some(at) => early.remove(&at).map_or(Ok(()), |done| done.map(drop)),
            None => Ok(()),
        }
    }

    async fn discard(&self, early: &mut Early) {
        for (_, done) in early.drain() {
            if let Ok(Filled::Snapshot(key)) = done {
                // The lease's end removes what cannot be removed now.
                self.snapshots.remove(&key).await.ok();
            }
        }
    }

    async fn place(&self, layers: &[Layer], at: usize, done: Result<Filled>) -> Result<()> {
        let (layer, parent) = (&layers[at], below(layers, at));
        match done? {
            Filled::Exists => {}
            Filled::Dependent => self.one(layer, parent).await?,
            Filled::Snapshot(key) => {
                let labels = reference(layer);
                let done = match &parent {
                    Some(parent) => self.snapshots.commit_onto(&layer.chain, &key, parent, labels).await,
                    None => self.snapshots.commit(&layer.chain, &key, labels).await,
                };
                self.committed(layer, &key, done).await?;
            }
        }
        self.report(layer).whole(State::Unpacked);
        Ok(())
    }
}

/// The upper folder of an overlay instead of a tree for itself, so that removals are written as an overlay has them.
fn parentless(mounts: Vec<Mount>) -> Vec<Mount> {
    match mounts.as_slice() {
        [Mount { kind, source, .. }] if kind == "bind" => {
            let options = vec![format!("upperdir={source}"), REFUSE.to_owned()];
            let (kind, source) = ("overlay".to_owned(), "overlay".to_owned());
            vec![Mount { kind, source, target: String::new(), options }]
        }
        _ => mounts,
    }
}
