//! Layers filled at once and committed in their order.
//!
//! ```text
//!   each layer   comes ─▶ turn ─▶ prepare without parent ─▶ apply ─▶ is there ─▶ ┐
//!                                                                                ├▶ in order: commit onto the one below,
//!                a layer that needs what is below it ──────────────────────────▶ ┘  as many as there are; or unpack it
//!                                                                                   on that one
//! ```

use std::collections::HashMap;

use berth_core::SnapshotCommit;
use berth_types::{ErrorKind, Mount, Result, SnapshotKey};
use futures::future::try_join_all;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
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

/// A layer that is to be committed, its active snapshot, and what it stands on.
type Run<'a> = (&'a Layer, SnapshotKey, Option<SnapshotKey>);

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
        let place = |mounts| if at == 0 { mounts } else { parentless(mounts) };
        match self.fill(layer, None, Some(turns), place).await {
            Ok(Some(key)) => Ok(Filled::Snapshot(key)),
            Ok(None) => Ok(Filled::Exists),
            Err(error) if at > 0 && error.kind() == ErrorKind::FailedPrecondition => Ok(Filled::Dependent),
            Err(error) => Err(error),
        }
    }

    /// Commits what was filled, each on the one below it. Those that are filled while others are being committed are
    /// committed together. The first failure is the answer; what is filled after it is removed.
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
            while let Ok((at, done)) = filled.try_recv() {
                early.insert(at, done);
            }
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
        let mut run = Vec::new();
        while let Some(done) = early.remove(next) {
            let (layer, parent) = (&layers[*next], below(layers, *next));
            *next += 1;
            match done {
                Ok(Filled::Snapshot(key)) => run.push((layer, key, parent)),
                Ok(Filled::Exists) => self.report(layer).whole(State::Unpacked),
                Ok(Filled::Dependent) => {
                    self.commit_run(std::mem::take(&mut run)).await?;
                    self.one(layer, parent).await?;
                    self.report(layer).whole(State::Unpacked);
                }
                Err(error) => {
                    // What is below it stays for the next one who unpacks the image.
                    self.commit_run(run).await?;
                    return Err(error);
                }
            }
        }
        self.commit_run(run).await?;
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

    /// Commits layers that follow one another.
    async fn commit_run(&self, run: Vec<Run<'_>>) -> Result<()> {
        if run.is_empty() {
            return Ok(());
        }
        let commits = run.iter().map(|(layer, key, parent)| SnapshotCommit {
            name: layer.chain.clone(),
            key: key.clone(),
            parent: parent.clone(),
            labels: reference(layer),
        });
        if let Err(error) = self.snapshots.commit_all(commits.collect()).await {
            for (_, key, _) in &run {
                self.drop_snapshot(Some(key)).await;
            }
            return Err(error);
        }
        let notes: Vec<_> = run.iter().map(|(layer, ..)| self.note(layer).boxed()).collect();
        try_join_all(notes).await?;
        for (layer, ..) in run {
            self.report(layer).whole(State::Unpacked);
        }
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
