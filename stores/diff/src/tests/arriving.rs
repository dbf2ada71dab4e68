//! Layers that are applied as they come.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use berth_archive::{Compression, Hasher};
use berth_content::Store;
use berth_core::{ApplyRequest, CommitRequest, ContentStore, Differ, Ingest, IngestRequest};
use berth_oci::image::media;
use berth_types::{Descriptor, ErrorKind, IngestRef, Result};
use bytes::Bytes;
use proptest::prelude::*;
use testkit::Scratch;
use testkit::image::Layer;
use testkit::tree::Tree;

use super::{bind, compress};
use crate::Walking;

const REFERENCE: &str = "layer-that-comes";

/// A store on disk with a differ over it.
struct Coming {
    scratch: Scratch,
    store: Store,
    differ: Walking,
    runtime: tokio::runtime::Runtime,
}

impl Coming {
    fn new() -> Self {
        let scratch = Scratch::new();
        let store = Store::open(&scratch.path("content")).unwrap();
        let differ = Walking::new(Arc::new(store.clone()));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Self { scratch, store, differ, runtime: runtime.unwrap() }
    }

    fn reference() -> IngestRef {
        REFERENCE.parse().unwrap()
    }

    async fn writer(&self, total: usize) -> Box<dyn Ingest> {
        let total = total as u64;
        self.store.writer(IngestRequest { total, ..IngestRequest::new(Self::reference()) }).await.unwrap()
    }

    async fn apply(&self, blob: &[u8], folder: &Path, arriving: bool) -> Result<Descriptor> {
        std::fs::create_dir_all(folder).unwrap();
        let layer = Descriptor::new(media::OCI_LAYER, Hasher::digest(blob), blob.len() as u64);
        let arriving = arriving.then(Self::reference);
        let (mounts, payloads) = (bind(folder), BTreeMap::new());
        self.differ.apply(ApplyRequest { layer, arriving, mounts, payloads, sync: false }).await
    }
}

/// A layer with some of everything that needs no root's rights.
fn layer() -> Vec<u8> {
    let mut layer = Layer::new().dir("dir", 0o755).dir("dir/deep", 0o700);
    for number in 0..200_u32 {
        let noise: Vec<u8> =
            (0..number * 7).flat_map(|n| (n ^ number).wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        layer =
            layer.file(&format!("dir/deep/{number}"), &noise, if number % 2 == 0 { 0o644 } else { 0o4755 });
    }
    layer.symlink("dir/link", "deep/1").file("untold/folder/file", b"text", 0o600).tar()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_layer_gives_the_same_tree_however_it_comes(
        parts in prop::collection::vec(1_usize..300_000, 1..40),
        kind in 0..3,
        announced in any::<bool>(),
    ) {
        let coming = Coming::new();
        let compression = [Compression::Plain, Compression::Gzip, Compression::Zstd][kind as usize];
        let blob = compress(&layer(), compression);
        let (whole, streamed) = (coming.scratch.path("whole"), coming.scratch.path("streamed"));
        let (first, second) = coming.runtime.block_on(async {
            let mut ingest = coming.writer(if announced { blob.len() } else { 0 }).await;
            let writing = async {
                let (mut offset, mut parts) = (0, parts.iter().cycle());
                while offset < blob.len() {
                    let end = blob.len().min(offset + parts.next().unwrap());
                    let part = Bytes::copy_from_slice(&blob[offset..end]);
                    ingest.write(offset as u64, part).await.unwrap();
                    offset = end;
                    tokio::task::yield_now().await;
                }
                ingest.commit(CommitRequest::default()).await.unwrap();
            };
            let (applied, ()) = futures::join!(coming.apply(&blob, &streamed, true), writing);
            (applied.unwrap(), coming.apply(&blob, &whole, false).await.unwrap())
        });
        prop_assert_eq!(first, second);
        let without_root = |path: &Path| {
            let mut tree = Tree::read(path);
            // A folder that the layer does not tell has the time at which it was made.
            for untold in ["untold", "untold/folder"] {
                tree.0.get_mut(Path::new(untold)).unwrap().mtime = (0, 0);
            }
            tree.without_root()
        };
        prop_assert_eq!(without_root(&streamed), without_root(&whole));
    }
}

#[test]
fn a_layer_that_breaks_off_anywhere_is_unavailable_and_can_be_gone_on_with() {
    let coming = Coming::new();
    let blob = compress(&layer(), Compression::Gzip);
    coming.runtime.block_on(async {
        for number in 0..20 {
            let at = blob.len() * number / 20;
            let mut ingest = coming.writer(blob.len()).await;
            let present = ingest.status().await.unwrap().offset as usize;
            let breaking = async {
                ingest.write(present as u64, Bytes::copy_from_slice(&blob[present..at])).await.unwrap();
                drop(ingest);
            };
            let folder = coming.scratch.path(format!("broken-{number}"));
            let (applied, ()) = futures::join!(coming.apply(&blob, &folder, true), breaking);
            let kind = applied.unwrap_err().kind();
            // Whoever looks only after the writer has gone finds nothing to follow.
            assert!(matches!(kind, ErrorKind::Unavailable | ErrorKind::NotFound), "{kind:?}");
        }
        let mut ingest = coming.writer(blob.len()).await;
        let present = ingest.status().await.unwrap().offset as usize;
        assert!(present > 0, "what came is kept");
        let rest = Bytes::copy_from_slice(&blob[present..]);
        let folder = coming.scratch.path("whole");
        let (applied, ()) = futures::join!(coming.apply(&blob, &folder, true), async {
            ingest.write(present as u64, rest).await.unwrap();
        });
        assert_eq!(applied.unwrap().digest, Hasher::digest(&layer()));
    });
}

#[test]
fn nobody_is_kept_by_a_layer_that_does_not_come() {
    let coming = Coming::new();
    let blob = layer();
    let folder = coming.scratch.path("stalled");
    let ingest = coming.runtime.block_on(async {
        let mut ingest = coming.writer(blob.len()).await;
        ingest.write(0, Bytes::copy_from_slice(&blob[..400_000])).await.unwrap();
        tokio::select! {
            applied = coming.apply(&blob, &folder, true) => panic!("it has not come: {applied:?}"),
            () = async { while !folder.join("dir").exists() { tokio::task::yield_now().await } } => ingest,
        }
    });
    // Waits for its threads: the one that waits for more of the layer has to see that nobody waits for it.
    drop(coming.runtime);
    drop(ingest);
}
