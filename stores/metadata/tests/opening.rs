//! Databases that are damaged, cut off, of another format, missing, or somebody else's.

#![expect(clippy::unwrap_used, reason = "what fails in a test has failed the test")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use berth_metadata::Opening;
use berth_types::filter::Filters;
use berth_types::{ErrorKind, Labels};
use common::objects::{digest, labels};
use common::{Store, open, scope};
use testkit::Scratch;

fn file(root: &Path) -> PathBuf {
    root.join("meta.redb")
}

/// A store with something in it, closed.
async fn filled(root: &Path) {
    let store = open(root);
    assert_eq!(*store.metadata.opening(), Opening::New);
    let here = scope("here");
    store.blob(&here, "blob", labels(&[("containerd.io/gc.root", "1")])).await.unwrap();
    store.active(&here, "rootfs", "", Labels::new()).await.unwrap();
    for number in 0..50 {
        store.container(&here, &format!("c{number}"), "rootfs", Labels::new()).await;
    }
    store.metadata.close().await.unwrap();
    drop(store);
    fs::rename(root.join("meta.redb.backup"), root.join("backup")).unwrap();
}

async fn containers(store: &Store) -> usize {
    store.metadata.containers(&scope("here")).list(&Filters::default()).await.unwrap().len()
}

/// What has to be true of a store whose database was replaced.
async fn is_rebuilt(root: &Path, what: &str) {
    let store = open(root);
    let Opening::Rebuilt { kept, why, restored } = store.metadata.opening() else {
        panic!("{what}: {:?}", store.metadata.opening());
    };
    assert!(kept.as_ref().is_some_and(|kept| kept.exists()), "{what}: {kept:?}");
    assert_eq!(*restored, 0);
    assert!(!why.is_empty());
    // A collection, and another after a restart, leave alone what may be somebody's.
    store.metadata.collect().await.unwrap();
    assert!(store.metadata.keeps_orphans().unwrap());
    assert_eq!(store.backends().await, (1, 1), "{what}");
    store.metadata.close().await.unwrap();
    drop(store);
    let store = open(root);
    assert_eq!(*store.metadata.opening(), Opening::Existing);
    store.metadata.collect().await.unwrap();
    assert_eq!(store.backends().await, (1, 1), "{what}");
    // Content is found again by whoever wants it.
    let here = scope("here");
    let there = store.blob(&here, "blob", labels(&[("containerd.io/gc.root", "1")])).await.unwrap();
    assert_eq!(there, digest("blob"));
    store.metadata.collect_orphans().await.unwrap();
    assert!(!store.metadata.keeps_orphans().unwrap());
    assert_eq!(store.backends().await, (1, 0), "{what}");
    store.metadata.close().await.unwrap();
}

#[tokio::test]
async fn a_database_that_is_none_is_kept_aside() {
    let scratch = Scratch::new();
    filled(scratch.folder()).await;
    fs::write(file(scratch.folder()), vec![0xa5; 100_000]).unwrap();
    is_rebuilt(scratch.folder(), "noise").await;
}

#[tokio::test]
async fn a_database_that_is_cut_off_is_kept_aside() {
    for share in [1, 30, 70] {
        let scratch = Scratch::new();
        filled(scratch.folder()).await;
        let path = file(scratch.folder());
        let length = fs::metadata(&path).unwrap().len();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length * share / 100).unwrap();
        is_rebuilt(scratch.folder(), &format!("{share} %")).await;
    }
}

#[tokio::test]
async fn no_flipped_bit_stops_the_daemon_or_changes_an_answer() {
    let scratch = Scratch::new();
    filled(scratch.folder()).await;
    let path = file(scratch.folder());
    let whole = fs::read(&path).unwrap();
    for round in 0..60 {
        let mut flipped = whole.clone();
        let bit = round * 7919 * 13 % (whole.len() * 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &flipped).unwrap();
        let store = open(scratch.folder());
        let found = containers(&store).await;
        match store.metadata.opening() {
            // A page that nothing uses.
            Opening::Existing => assert_eq!(found, 50, "bit {bit}"),
            Opening::Rebuilt { kept, .. } => {
                assert_eq!(found, 0, "bit {bit}");
                fs::remove_file(kept.as_ref().unwrap()).unwrap();
            }
            Opening::New => panic!("bit {bit}"),
        }
        store.metadata.close().await.unwrap();
        drop(store);
        let _ = fs::remove_file(scratch.path("meta.redb.backup"));
    }
}

#[tokio::test]
async fn a_damaged_database_is_restored_from_its_backup() {
    for missing in [false, true] {
        let scratch = Scratch::new();
        filled(scratch.folder()).await;
        fs::rename(scratch.path("backup"), scratch.path("meta.redb.backup")).unwrap();
        // What happened after the backup.
        let store = open(scratch.folder());
        let here = scope("here");
        store.blob(&here, "later", labels(&[("containerd.io/gc.root", "1")])).await.unwrap();
        store.active(&here, "gone", "", Labels::new()).await.unwrap();
        store.metadata.close().await.unwrap();
        let gone = store.native.list(&Filters::default()).await.unwrap();
        let gone = gone.into_iter().find(|info| info.key.as_str().ends_with("/gone")).unwrap();
        store.native.remove(&gone.key).await.unwrap();
        drop(store);
        if missing {
            fs::remove_file(file(scratch.folder())).unwrap();
        } else {
            fs::write(file(scratch.folder()), vec![0xa5; 100_000]).unwrap();
        }
        let store = open(scratch.folder());
        let Opening::Rebuilt { kept, restored, .. } = store.metadata.opening() else {
            panic!("{:?}", store.metadata.opening());
        };
        assert_eq!(kept.is_none(), missing);
        assert!(*restored > 50, "{restored}");
        assert_eq!(containers(&store).await, 50);
        assert_eq!(store.snapshot_names(&here).await, ["rootfs"]);
        store.metadata.collect().await.unwrap();
        assert_eq!(store.backends().await, (2, 1));
        store.active(&here, "gone", "", Labels::new()).await.unwrap();
        store.metadata.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_missing_database_costs_no_content() {
    let scratch = Scratch::new();
    filled(scratch.folder()).await;
    fs::remove_file(file(scratch.folder())).unwrap();
    let store = open(scratch.folder());
    assert_eq!(*store.metadata.opening(), Opening::New);
    store.metadata.collect().await.unwrap();
    assert_eq!(store.backends().await, (1, 1));
    assert!(store.metadata.keeps_orphans().unwrap());
}

#[tokio::test]
async fn a_database_in_use_is_left_alone() {
    let scratch = Scratch::new();
    filled(scratch.folder()).await;
    let path = file(scratch.folder());
    let held = redb::Database::create(&path).unwrap();
    let parts = |root: &Path| common::parts(root);
    let error = berth_metadata::Metadata::open(&path, parts(&scratch.path("other"))).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.message().contains("in use by another process"), "{error}");
    drop(held);
    let store = open(scratch.folder());
    assert_eq!(containers(&store).await, 50);
}

#[tokio::test]
async fn a_later_format_is_kept_for_the_daemon_that_knows_it() {
    let scratch = Scratch::new();
    filled(scratch.folder()).await;
    let path = file(scratch.folder());
    {
        let table = redb::TableDefinition::<&[u8], &[u8]>::new("records");
        let database = redb::Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(table).unwrap().insert(&b"\0schema\0"[..], &[1, 99][..]).unwrap();
        transaction.commit().unwrap();
    }
    let store = open(scratch.folder());
    let Opening::Rebuilt { why, .. } = store.metadata.opening() else { panic!("it is used") };
    assert!(why.contains("format 99"), "{why}");
    assert_eq!(store.backends().await, (1, 1));
}

#[tokio::test]
async fn a_closed_store_opens_with_everything() {
    let scratch = Scratch::new();
    filled(scratch.folder()).await;
    let store = open(scratch.folder());
    assert_eq!(*store.metadata.opening(), Opening::Existing);
    assert_eq!(containers(&store).await, 50);
    store.metadata.collect().await.unwrap();
    assert_eq!(store.backends().await, (1, 1));
}
