//! What is special about a store in a folder: its layout, what a crash leaves in it, full disks.

#![expect(clippy::unwrap_used, reason = "what fails in a test has failed the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use berth_content::Store;
use berth_core::{CommitRequest, ContentStore, IngestRequest};
use berth_types::filter::Filters;
use berth_types::{Digest, ErrorKind, IngestRef};
use bytes::Bytes;
use testkit::Scratch;

fn sha256(data: &[u8]) -> Digest {
    berth_archive::Hasher::digest(data)
}

fn reference(text: &str) -> IngestRef {
    text.parse().unwrap()
}

async fn half(store: &Store, text: &str, data: &'static [u8]) {
    let request = IngestRequest { reference: reference(text), total: 100, expected: None };
    let mut ingest = store.writer(request).await.unwrap();
    ingest.write(0, Bytes::from_static(data)).await.unwrap();
    drop(ingest);
    // Whoever comes next waits until what was left is on disk.
    drop(store.writer(IngestRequest::new(reference(text))).await.unwrap());
}

/// Where containerd keeps an ingest.
fn folder(root: &Path, text: &str) -> PathBuf {
    root.join("ingest").join(sha256(text.as_bytes()).hex())
}

#[tokio::test]
async fn files_are_where_containerd_has_them() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.folder()).unwrap();
    half(&store, "layer-1", b"half").await;
    let folder = folder(scratch.folder(), "layer-1");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    assert_eq!(
        (read("data").as_str(), read("ref").as_str(), read("total").as_str()),
        ("half", "layer-1", "100")
    );
    for name in ["startedat", "updatedat"] {
        assert!(read(name).starts_with("20") && read(name).ends_with('Z'), "{}", read(name));
    }

    let mut ingest = store.writer(IngestRequest::new(reference("blob"))).await.unwrap();
    ingest.write(0, Bytes::from_static(b"blob")).await.unwrap();
    let digest = ingest.commit(CommitRequest::default()).await.unwrap();
    let path = scratch.path("blobs").join("sha256").join(digest.hex());
    assert_eq!(fs::read(&path).unwrap(), b"blob");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o444);
    assert!(!self::folder(scratch.folder(), "blob").exists());
    // The file is at hand for whoever can read it faster.
    assert!(store.reader(&digest).await.unwrap().file().is_some());
}

#[tokio::test]
async fn what_a_crash_left_unfinished_is_removed_and_foreign_files_are_left_alone() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.folder()).unwrap();
    half(&store, "whole", b"half").await;
    half(&store, "broken", b"half").await;
    fs::remove_file(folder(scratch.folder(), "broken").join("ref")).unwrap();
    fs::create_dir_all(scratch.path("blobs/sha256")).unwrap();
    fs::write(scratch.path("blobs/sha256/not-an-address"), "x").unwrap();
    fs::create_dir_all(scratch.path("blobs/md5")).unwrap();
    fs::write(scratch.path("blobs/md5/abc"), "x").unwrap();
    drop(store);
    let store = Store::open(scratch.folder()).unwrap();
    assert!(!folder(scratch.folder(), "broken").exists());
    let ingests = store.ingests(&Filters::default()).await.unwrap();
    assert_eq!(ingests.len(), 1);
    assert!(store.list(&Filters::default()).await.unwrap().is_empty());
    assert!(scratch.path("blobs/md5/abc").exists());
}

#[tokio::test]
async fn bytes_from_before_the_machine_started_are_only_trusted_if_they_were_synced() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.folder()).unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for (text, noted, offset) in
        [("synced", "2001-09-09T02:00:00Z", 4), ("unsynced", "2001-09-09T01:00:00Z", 0)]
    {
        half(&store, text, b"half").await;
        let folder = folder(scratch.folder(), text);
        let data = fs::OpenOptions::new().write(true).open(folder.join("data")).unwrap();
        data.set_modified(long_ago).unwrap();
        fs::write(folder.join("updatedat"), noted).unwrap();
        let ingest = store.writer(IngestRequest::new(reference(text))).await.unwrap();
        assert_eq!(ingest.status().await.unwrap().offset, offset, "{text}");
    }
}

#[tokio::test]
async fn a_commit_knows_what_it_hashed_before_the_daemon_ended() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.folder()).unwrap();
    half(&store, "resumed", b"the first half").await;
    drop(store);
    let store = Store::open(scratch.folder()).unwrap();
    let mut ingest = store.writer(IngestRequest::new(reference("resumed"))).await.unwrap();
    assert_eq!(ingest.digest(), Some(sha256(b"the first half")));
    ingest.write(14, Bytes::from_static(b" and the rest")).await.unwrap();
    ingest.truncate(18).await.unwrap();
    assert_eq!(ingest.digest(), Some(sha256(b"the first half and")));
    ingest.write(18, Bytes::from_static(b" more")).await.unwrap();
    let wanted = sha256(b"the first half and more");
    let request =
        CommitRequest { size: Some(23), expected: Some(wanted.clone()), ..CommitRequest::default() };
    assert_eq!(ingest.commit(request).await.unwrap(), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_nobody_waits_for_is_done_or_not_done() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.folder()).unwrap();
    let piece = Bytes::from(vec![7; 1 << 20]);
    let whole = [1, 2].map(|pieces| sha256(&vec![7; pieces << 20]));
    for round in 0..20 {
        let request = IngestRequest::new(reference(&format!("round-{round}")));
        let mut ingest = store.writer(request).await.unwrap();
        ingest.write(0, piece.clone()).await.unwrap();
        let cut =
            tokio::time::timeout(Duration::from_micros(round * 40), ingest.write(1 << 20, piece.clone()));
        let _ = cut.await;
        let offset = ingest.status().await.unwrap().offset;
        assert!(offset == 1 << 20 || offset == 2 << 20, "{offset}");
        // The write may still be under way: the commit waits for it.
        match ingest.commit(CommitRequest::default()).await {
            Ok(digest) => {
                assert!(whole.contains(&digest), "{digest}");
                store.info(&digest).await.unwrap();
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{}", error.chain());
                let (half, all) = (store.info(&whole[0]).await, store.info(&whole[1]).await);
                assert!(half.is_ok() || all.is_ok());
            }
        }
    }
}

#[tokio::test]
async fn a_full_disk_is_said_so_and_loses_nothing() {
    if testkit::need::root().is_err() {
        return;
    }
    let scratch = Scratch::new();
    let small = scratch.path("small");
    fs::create_dir(&small).unwrap();
    let options = c"size=1m";
    rustix::mount::mount("tmpfs", &small, "tmpfs", rustix::mount::MountFlags::empty(), options).unwrap();
    let store = Store::open(&small).unwrap();
    let piece = Bytes::from(vec![1; 700_000]);
    let mut ingest = store.writer(IngestRequest::new(reference("large"))).await.unwrap();
    ingest.write(0, piece.clone()).await.unwrap();
    let error = ingest.write(700_000, piece.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{}", error.chain());
    assert_eq!(ingest.status().await.unwrap().offset, 700_000);
    // What fits still fits, and its address is right.
    ingest.write(700_000, Bytes::from_static(b"a little")).await.unwrap();
    let digest = ingest.commit(CommitRequest::default()).await.unwrap();
    assert_eq!(digest, sha256(&[&piece[..], b"a little"].concat()));
    // Room is made on a full disk.
    let mut ingest = store.writer(IngestRequest::new(reference("another"))).await.unwrap();
    ingest.write(0, piece.clone()).await.unwrap_err();
    drop(ingest);
    store.delete(&digest).await.unwrap();
    let mut ingest = store.writer(IngestRequest::new(reference("another"))).await.unwrap();
    ingest.write(0, piece).await.unwrap();
    drop(ingest);
    drop(store.writer(IngestRequest::new(reference("another"))).await.unwrap());
    store.abort(&reference("another")).await.unwrap();
    assert!(store.ingests(&Filters::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_ingest_is_read_while_it_grows_and_through_its_commit() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.folder()).unwrap();
    let missing = store.follow(&reference("a")).await.err().unwrap();
    assert_eq!(missing.kind(), ErrorKind::NotFound, "nobody writes it");
    let mut ingest = store.writer(IngestRequest::new(reference("a"))).await.unwrap();
    ingest.write(0, Bytes::from_static(b"half")).await.unwrap();
    let follower = store.follow(&reference("a")).await.unwrap();
    assert_eq!(follower.reach(0).await.unwrap(), 4);
    assert_eq!(&follower.read_at(1, 100).await.unwrap()[..], b"alf");
    let (more, ()) = futures::join!(follower.reach(4), async {
        ingest.write(4, Bytes::from_static(b" and half")).await.unwrap();
    });
    assert_eq!(more.unwrap(), 13);
    let (end, digest) = futures::join!(follower.reach(13), ingest.commit(CommitRequest::default()));
    assert_eq!((end.unwrap(), digest.unwrap()), (13, sha256(b"half and half")));
    assert_eq!(&follower.read_at(0, 100).await.unwrap()[..], b"half and half");
    assert_eq!(follower.read_at(13, 1).await.unwrap(), Bytes::new());
}

#[tokio::test]
async fn an_ingest_of_known_length_ends_there_before_its_commit() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.folder()).unwrap();
    let request = IngestRequest { total: 4, ..IngestRequest::new(reference("a")) };
    let mut ingest = store.writer(request).await.unwrap();
    ingest.write(0, Bytes::from_static(b"half")).await.unwrap();
    let follower = store.follow(&reference("a")).await.unwrap();
    assert_eq!((follower.size(), follower.reach(4).await.unwrap()), (4, 4));
}

#[tokio::test]
async fn whoever_reads_an_ingest_learns_that_it_breaks_off_or_is_cut() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.folder()).unwrap();
    for cut in [true, false] {
        let mut ingest = store.writer(IngestRequest::new(reference("a"))).await.unwrap();
        ingest.write(ingest.status().await.unwrap().offset, Bytes::from_static(b"half")).await.unwrap();
        let follower = store.follow(&reference("a")).await.unwrap();
        let ended = async {
            if cut {
                ingest.truncate(1).await.unwrap();
            } else {
                drop(ingest);
            }
        };
        let (error, ()) = futures::join!(follower.reach(100), ended);
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Unavailable, "cut: {cut}");
        assert_eq!(follower.reach(0).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn blobs_that_are_committed_at_the_same_time_are_all_there() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.folder()).unwrap();
    let commits = (0..40).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            let text = format!("blob {number}");
            let mut ingest = store.writer(IngestRequest::new(reference(&text))).await.unwrap();
            ingest.write(0, Bytes::from(text.clone())).await.unwrap();
            (ingest.commit(CommitRequest::default()).await.unwrap(), text)
        })
    });
    for commit in commits.collect::<Vec<_>>() {
        let (digest, text) = commit.await.unwrap();
        assert_eq!(store.document(&digest, 100).await.unwrap(), text.as_bytes());
    }
    assert_eq!(fs::read_dir(scratch.path("ingest")).unwrap().count(), 0);
}
