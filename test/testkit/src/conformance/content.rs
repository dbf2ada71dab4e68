//! What every content store has to do, wherever it runs.
//!
//! ```no_run
//! # async fn test(open: impl Fn(&std::path::Path) -> std::sync::Arc<dyn berth_core::ContentStore>) {
//! use testkit::conformance::content::{self, Labelling};
//! content::all(open, Labelling::Kept).await;
//! # }
//! ```
//! Each check gets a store of its own, or a namespace that nothing is in. Blobs are labelled as
//! roots, so that a garbage collection between does not take them.

#![expect(clippy::unwrap_used, reason = "a suite is a test, and its failures panic")]

mod blobs;
mod ingests;
mod labels;

use std::path::Path;
use std::sync::Arc;

use berth_core::{CommitRequest, ContentStore, Ingest, IngestRequest};
use berth_types::{Digest, ErrorKind, IngestRef, Labels, Result};
use bytes::Bytes;
use sha2::{Digest as _, Sha256, Sha512};

use crate::Scratch;

/// Whether a store keeps labels, or leaves them to the records above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labelling {
    /// It does.
    Kept,
    /// It has none, and refuses to change them.
    Absent,
}

/// Runs every check, each on what `open` gives for a new folder.
pub async fn all(open: impl Fn(&Path) -> Arc<dyn ContentStore>, labelling: Labelling) {
    let fixture = || Fixture::new(&open);
    blobs::a_blob_is_what_was_committed(fixture()).await;
    blobs::an_empty_blob_is_a_blob(fixture()).await;
    blobs::a_large_blob_arrives_in_pieces(fixture()).await;
    blobs::other_hashes_are_addresses_too(fixture()).await;
    blobs::commit_refuses_a_blob_whose_bytes_lie(fixture()).await;
    blobs::what_is_there_already_is_said_so(fixture()).await;
    blobs::what_is_not_there_is_not_found(fixture()).await;
    blobs::an_open_blob_outlives_its_removal(fixture()).await;
    blobs::filters_choose_blobs(fixture()).await;
    blobs::one_blob_comes_of_many_writers(fixture()).await;
    ingests::an_ingest_goes_on_where_it_stopped(fixture()).await;
    ingests::one_writes_at_a_time(fixture()).await;
    ingests::bytes_only_go_to_the_end(fixture()).await;
    ingests::an_ingest_can_begin_anew(fixture()).await;
    ingests::an_aborted_ingest_is_gone(fixture()).await;
    ingests::filters_choose_ingests(fixture()).await;
    ingests::a_committed_ingest_is_gone(fixture()).await;
    match labelling {
        Labelling::Kept => {
            labels::labels_come_with_the_commit(fixture()).await;
            labels::only_labels_change(fixture()).await;
            labels::filters_choose_by_label(fixture()).await;
            labels::labels_are_limited(fixture()).await;
        }
        Labelling::Absent => labels::there_are_none(fixture()).await,
    }
}

/// The checks of a store that keeps its state in the folder: `open` is called again on it.
pub async fn reopening(open: impl Fn(&Path) -> Arc<dyn ContentStore>) {
    ingests::everything_is_there_after_reopening(&open).await;
}

struct Fixture {
    content: Arc<dyn ContentStore>,
    _scratch: Scratch,
}

impl Fixture {
    fn new(open: &impl Fn(&Path) -> Arc<dyn ContentStore>) -> Self {
        let scratch = Scratch::new();
        Self { content: open(&scratch.path("root")), _scratch: scratch }
    }

    async fn writer(&self, reference: &str) -> Result<Box<dyn Ingest>> {
        self.content.writer(IngestRequest::new(reference_of(reference))).await
    }

    async fn expecting(&self, reference: &str, data: &[u8]) -> Result<Box<dyn Ingest>> {
        let request = IngestRequest {
            reference: reference_of(reference),
            total: data.len() as u64,
            expected: Some(sha256(data)),
        };
        self.content.writer(request).await
    }

    /// A committed blob.
    async fn blob(&self, data: &[u8]) -> Digest {
        let digest = sha256(data);
        let mut ingest = self.writer(&format!("blob-{}", digest.short())).await.expect("a new ingest");
        ingest.write(0, Bytes::copy_from_slice(data)).await.expect("a write at the end");
        ingest.commit(rooted(Some(digest)).with_size(data)).await.expect("a commit of what was written")
    }
}

fn reference_of(text: &str) -> IngestRef {
    text.parse().expect("a reference of the suite is one")
}

fn sha256(data: &[u8]) -> Digest {
    Digest::sha256(Sha256::digest(data).into())
}

fn sha512(data: &[u8]) -> Digest {
    let hash = Sha512::digest(data);
    let hex = hash.iter().fold(String::from("sha512:"), |text, byte| format!("{text}{byte:02x}"));
    hex.parse().expect("a hash is an address")
}

fn rooted(expected: Option<Digest>) -> CommitRequest {
    let labels = Labels::from([("containerd.io/gc.root".to_owned(), "true".to_owned())]);
    CommitRequest { size: None, expected, labels }
}

trait WithSize {
    fn with_size(self, data: &[u8]) -> Self;
}

impl WithSize for CommitRequest {
    fn with_size(self, data: &[u8]) -> Self {
        Self { size: Some(data.len() as u64), ..self }
    }
}

#[track_caller]
fn refused<T>(result: Result<T>, kind: ErrorKind) {
    match result {
        Ok(_) => panic!("expected {kind:?}, it was done"),
        Err(error) => assert_eq!(error.kind(), kind, "{}", error.chain()),
    }
}
