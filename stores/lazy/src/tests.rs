//! Layers of others, from a registry that does what a test says, mounted by the kernel.

mod cache;
mod figures;
mod keeper;
mod plain;
mod published;
mod reads;
mod soci;
mod world;

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::time::{Duration, Instant};

use berth_types::ErrorKind;
use testkit::wait;

use self::world::{Behaviour, World, big};

#[test]
fn a_file_is_read_without_the_rest_of_the_layer() {
    let Some(world) = World::start() else { return };
    let point = world.mounted("one");
    let (blob, table) = (world.blob_len() as u64, world.bytes_given());
    let given = || world.bytes_given() - table;
    assert_eq!(fs::read(point.join("bin/tool")).unwrap(), b"a tool");
    assert!(given() < blob / 10, "{} of {blob}", given());
    assert!(fs::read(point.join("data/big-1")).unwrap() == big(1));
    assert!(given() < blob / 2);
    let tool = fs::metadata(point.join("bin/tool")).unwrap();
    assert_eq!((tool.mode(), tool.nlink()), (0o100_755, 2));
    assert_eq!(fs::read_link(point.join("bin/link")).unwrap().to_str(), Some("tool"));
    assert!(fs::metadata(point.join("data/pipe")).unwrap().file_type().is_fifo());
    let status = world.lazy().layers();
    assert!(status[0].figures.misses > 0 && status[0].figures.failures == 0, "{status:?}");
}

#[test]
fn zstd_chunked_is_trusted_by_the_manifest() {
    let Some(world) = World::with(&["--zstd", "--chunk", "50000"]) else { return };
    let point = world.mounted("one");
    assert!(fs::read(point.join("data/big-2")).unwrap() == big(2));
}

#[test]
fn what_a_layer_removes_and_hides_is_gone_from_the_one_below() {
    let Some(world) = World::start() else { return };
    world.plain("below", &[("data/gone", "old"), ("fresh/old", "old"), ("data/stays", "old")]);
    world.prepared("top", Some("below"), world.labels()).unwrap_err();
    let point = world.container("one", "top");
    assert!(!point.join("data/gone").exists());
    assert!(!point.join("fresh/old").exists() && point.join("fresh/file").exists());
    assert_eq!(fs::read_to_string(point.join("data/stays")).unwrap(), "old");
    fs::write(point.join("bin/tool"), "changed").unwrap();
    assert_eq!(
        fs::read_to_string(point.join("bin/again")).unwrap(),
        "a tool",
        "copied up, as overlayfs does"
    );
}

#[test]
fn a_chunk_is_fetched_once_however_many_want_it() {
    let Some(world) = World::start() else { return };
    let point = world.mounted("one");
    world.behave(Behaviour::Held);
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let path = point.join("data/big-1");
            std::thread::spawn(move || fs::read(path))
        })
        .collect();
    wait::soon("the first request", || world.held() > 0);
    world.behave(Behaviour::Honest);
    for reader in readers {
        assert!(reader.join().unwrap().unwrap() == big(1));
    }
    let mut ranges = world.ranges();
    let all = ranges.len();
    ranges.sort_unstable();
    ranges.dedup();
    assert_eq!(ranges.len(), all, "no range twice");
}

#[test]
fn without_the_registry_what_is_cached_is_served_and_the_rest_fails_in_time() {
    let Some(world) = World::start() else { return };
    let point = world.mounted("one");
    assert!(fs::read(point.join("data/big-1")).unwrap() == big(1));
    for behaviour in [Behaviour::Gone, Behaviour::Silent] {
        world.behave(behaviour);
        world.drop_page_cache();
        assert!(fs::read(point.join("data/big-1")).unwrap() == big(1));
        let begun = Instant::now();
        let error = fs::read(point.join("data/big-2")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(5), "EIO and not {error}");
        // The kernel asks a second time before it gives up.
        assert!(begun.elapsed() < Duration::from_secs(15), "{behaviour:?}: {:?}", begun.elapsed());
        assert!(fs::read_dir(point.join("data")).unwrap().count() >= 4);
    }
    world.behave(Behaviour::Honest);
    assert!(fs::read(point.join("data/big-2")).unwrap() == big(2));
}

#[test]
fn bytes_that_lie_are_never_served() {
    let Some(world) = World::start() else { return };
    let point = world.mounted("one");
    world.behave(Behaviour::Lying);
    let error = fs::read(point.join("data/big-3")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5), "EIO and not {error}");
    world.behave(Behaviour::Honest);
    assert!(fs::read(point.join("data/big-3")).unwrap() == big(3));
}

#[test]
fn credentials_that_expire_are_renewed_between_reads() {
    let Some(world) = World::start() else { return };
    world.behave(Behaviour::Tokens);
    let point = world.mounted("one");
    assert!(fs::read(point.join("data/big-1")).unwrap() == big(1));
    world.expire();
    assert!(fs::read(point.join("data/big-2")).unwrap() == big(2));
    assert!(world.tokens() >= 2);
}

#[test]
fn layers_are_mounted_again_by_the_next_process_without_the_registry() {
    let Some(mut world) = World::start() else { return };
    let point = world.mounted("one");
    assert!(fs::read(point.join("data/big-1")).unwrap() == big(1));
    world.behave(Behaviour::Gone);
    world.restart();
    let point = world.container("two", "top");
    assert!(fs::read(point.join("data/big-1")).unwrap() == big(1), "verified anew, from the cache");
    assert!(fs::read(point.join("data/big-2")).is_err());
    assert_eq!(fs::metadata(point.join("data/big-2")).unwrap().len(), big(2).len() as u64);
}

#[test]
fn a_chunk_that_was_damaged_on_disk_is_fetched_again() {
    let Some(mut world) = World::start() else { return };
    let point = world.mounted("one");
    assert!(fs::read(point.join("data/big-1")).unwrap() == big(1));
    world.restart();
    for path in world.cached() {
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    let point = world.container("two", "top");
    assert!(fs::read(point.join("data/big-1")).unwrap() == big(1));
    assert!(world.lazy().cache().damaged > 0);
}

#[test]
fn a_layer_without_a_table_and_one_that_nothing_vouches_for_are_unpacked() {
    let Some(world) = World::start() else { return };
    let mut labels = world.labels();
    labels.retain(|key, _| !key.ends_with("manifest-digest") && !key.ends_with("toc.digest"));
    assert!(world.prepared("no-trust", None, labels).is_ok());
    let mut labels = world.labels();
    labels.insert(berth_stargz::annotation::TOC_DIGEST.to_owned(), format!("sha256:{}", "0".repeat(64)));
    assert!(world.prepared("wrong-table", None, labels).is_ok());
    world.behave(Behaviour::NoRanges);
    assert!(world.prepared("no-ranges", None, world.labels()).is_ok());
    world.behave(Behaviour::Gone);
    assert!(world.prepared("no-registry", None, world.labels()).is_ok());
    assert!(world.lazy().layers().is_empty());
}

#[test]
fn the_label_of_a_mount_cannot_be_had_from_an_image() {
    let Some(mut world) = World::start() else { return };
    let mut labels = world.labels();
    labels.insert("containerd.io/snapshot/remote".to_owned(), "remote snapshot".to_owned());
    world.unnamed("active", labels.clone());
    world.committed("plain", "active", labels);
    world.restart();
    assert!(world.lazy().layers().is_empty(), "nothing is mounted over a layer that was unpacked");
}

#[test]
fn a_layer_is_unmounted_with_its_snapshot_and_prepared_once() {
    let Some(world) = World::start() else { return };
    let error = world.prepared("top", None, world.labels()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let again = world.prepared("top", None, world.labels()).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    assert_eq!(world.lazy().layers().len(), 1);
    let point = world.lazy().layers()[0].point.clone();
    assert!(point.join("bin/tool").exists());
    world.removed("top");
    assert!(world.lazy().layers().is_empty() && !point.join("bin/tool").exists());
}

#[test]
fn what_was_made_to_come_first_comes_before_it_is_asked_for() {
    let Some(world) = World::with(&["--prioritized", "data/big-2", "--chunk", "50000"]) else { return };
    let point = world.mounted("one");
    let landed = || world.lazy().cache().bytes >= big(2).len() as u64;
    wait::soon("the prefetched file", landed);
    world.behave(Behaviour::Gone);
    assert!(fs::read(point.join("data/big-2")).unwrap() == big(2));
    assert!(fs::read(point.join("data/big-1")).is_err(), "what comes later was not fetched");
}

#[test]
fn a_layer_comes_to_its_end_by_itself() {
    let Some(world) = World::fetching_all() else { return };
    let point = world.mounted("one");
    wait::soon("the whole layer", || world.lazy().cache().bytes >= 3 * big(1).len() as u64);
    world.behave(Behaviour::Gone);
    wait::soon("every file", || {
        let read = |number| -> io::Result<Vec<u8>> { fs::read(point.join(format!("data/big-{number}"))) };
        (1..=3).all(|number| read(number).is_ok_and(|bytes| bytes == big(number)))
    });
}
