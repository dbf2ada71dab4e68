//! Layers without tables: whole the first time, in parts the second.

use std::fs;

use berth_archive::Compression;
use berth_types::ErrorKind;

use super::world::{Behaviour, World, big, huge};

const KINDS: [Compression; 3] = [Compression::Gzip, Compression::Zstd, Compression::Plain];

#[test]
fn a_layer_without_a_table_comes_once_and_is_there() {
    for kind in KINDS {
        let Some(world) = World::without_table(kind) else { return };
        let point = world.mounted("one");
        let given = world.bytes_given();
        assert!(given <= world.blob_len() as u64 + 100, "{given} of {}", world.blob_len());
        world.behave(Behaviour::Gone);
        for number in 1..=3 {
            assert!(fs::read(point.join(format!("data/big-{number}"))).unwrap() == big(number));
            assert!(fs::read(point.join(format!("data/huge-{number}"))).unwrap() == huge(number));
        }
        assert_eq!(fs::read(point.join("bin/again")).unwrap(), b"a tool");
        assert_eq!(fs::read_link(point.join("bin/link")).unwrap().to_str(), Some("tool"));
        let status = world.lazy().status();
        assert_eq!(status.layers[0].local, status.layers[0].bytes);
        assert_eq!(status.layers[0].figures.fetched, world.blob_len() as u64);
    }
}

#[test]
fn the_second_time_only_what_is_read_is_fetched() {
    for kind in [Compression::Gzip, Compression::Plain] {
        let Some(mut world) = World::without_table(kind) else { return };
        world.mounted("one");
        world.forget();
        let before = world.bytes_given();
        let given = || world.bytes_given() - before;
        let point = world.container("two", world.target());
        assert_eq!(given(), 0, "the index is here");
        assert_eq!(fs::read(point.join("bin/tool")).unwrap(), b"a tool");
        assert!(given() < world.blob_len() as u64 / 3, "{} of {}", given(), world.blob_len());
        assert!(fs::read(point.join("data/huge-2")).unwrap() == huge(2));
        assert!(fs::read(point.join("data/big-3")).unwrap() == big(3));
    }
}

#[test]
fn an_index_that_was_brought_from_another_node_is_as_good() {
    let Some(world) = World::without_table(Compression::Gzip) else { return };
    world.mounted("one");
    let index = fs::read(world.index()).unwrap();
    let Some(second) = World::without_table(Compression::Gzip) else { return };
    fs::write(second.index(), index).unwrap();
    let point = second.mounted("one");
    assert_eq!(second.bytes_given(), 0, "nothing of the layer was needed");
    assert_eq!(fs::read(point.join("bin/tool")).unwrap(), b"a tool");
    assert!(fs::read(point.join("data/huge-3")).unwrap() == huge(3));
    assert!(second.bytes_given() < second.blob_len() as u64);
}

#[test]
fn an_index_that_was_damaged_is_made_anew() {
    let Some(mut world) = World::without_table(Compression::Gzip) else { return };
    world.mounted("one");
    let path = world.index();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    world.restart();
    let point = world.container("two", world.target());
    assert!(fs::read(point.join("data/huge-1")).unwrap() == huge(1));
    assert!(fs::read(path).unwrap() != bytes);
}

#[test]
fn a_layer_that_is_not_what_it_should_be_is_left_to_whoever_unpacks() {
    let Some(world) = World::without_table(Compression::Gzip) else { return };
    // Not what the configuration calls so.
    let other = format!("sha256:{}", "0".repeat(64));
    assert!(world.prepared(&other, None, world.labels()).is_ok());
    let mut labels = world.labels();
    labels.retain(|key, _| !key.ends_with("manifest-digest"));
    assert!(world.prepared("unsaid", None, labels).is_ok());
    assert!(world.lazy().layers().is_empty());
    let Some(world) = World::without_table(Compression::Gzip) else { return };
    for behaviour in [Behaviour::Lying, Behaviour::NoRanges, Behaviour::Gone] {
        world.behave(behaviour);
        assert!(world.prepared(&format!("x-{behaviour:?}"), None, world.labels()).is_ok());
        assert!(world.lazy().layers().is_empty() && !world.index().exists());
    }
    world.behave(Behaviour::Honest);
    let error = world.prepared(world.target(), None, world.labels()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
}
