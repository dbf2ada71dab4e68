//! Indexes that others have made.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use berth_archive::{Compression, Hasher};
use berth_stargz::{Index, record};
use testkit::wait;

use super::world::{Behaviour, World, big, huge};
use crate::Config;

/// An index of the layer, made by another node.
fn index() -> Option<Vec<u8>> {
    let world = World::without_table(Compression::Gzip)?;
    world.mounted("one");
    Some(fs::read(world.index()).unwrap())
}

fn trusting(background: bool) -> Config {
    let plain_indexes = vec!["*".to_owned()];
    let span_bytes = 1;
    Config { background, span_bytes, read_seconds: 3, plain: true, plain_indexes, ..Config::default() }
}

#[test]
fn a_published_index_is_used_where_its_repository_is_trusted() {
    let Some(index) = index() else { return };
    let Some(mut world) = World::without_table_set_up(Compression::Gzip, trusting(false)) else { return };
    world.publish(&index, None);
    let point = world.mounted("one");
    assert!(world.bytes_given() <= 1, "{} bytes: whether ranges are given", world.bytes_given());
    assert_eq!(fs::read(point.join("bin/tool")).unwrap(), b"a tool");
    assert!(world.bytes_given() < world.blob_len() as u64 / 3);
    assert!(fs::read(point.join("data/huge-2")).unwrap() == huge(2));
    assert!(world.published_index().exists() && !world.index().exists(), "it is not taken for an own one");
    world.behave(Behaviour::Gone);
    world.restart();
    let point = world.container("two", world.target());
    assert_eq!(fs::read(point.join("bin/tool")).unwrap(), b"a tool", "the next process has it too");
}

#[test]
fn a_published_index_is_not_looked_at_unless_somebody_says_so() {
    let Some(index) = index() else { return };
    let Some(world) = World::without_table(Compression::Gzip) else { return };
    world.publish(&index, None);
    world.mounted("one");
    assert!(world.bytes_given() >= world.blob_len() as u64);
    assert!(world.index().exists() && !world.published_index().exists());
}

#[test]
fn a_published_index_that_is_damaged_or_of_another_layer_is_passed_over() {
    let Some(index) = index() else { return };
    let mut damaged = index.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let other = String::from_utf8_lossy(&index[..200]).find("sha256:").unwrap() + 10;
    let mut others = index.clone();
    others[other] = if others[other] == b'0' { b'1' } else { b'0' };
    for bad in [damaged, others, b"nothing".to_vec()] {
        let Some(world) = World::without_table_set_up(Compression::Gzip, trusting(false)) else { return };
        world.publish(&bad, None);
        let point = world.mounted("one");
        assert!(world.bytes_given() >= world.blob_len() as u64, "it came whole");
        assert!(world.index().exists() && !world.published_index().exists());
        assert!(fs::read(point.join("data/big-1")).unwrap() == big(1));
    }
}

#[test]
fn a_published_index_is_confirmed_once_all_of_the_layer_has_come() {
    let Some(index) = index() else { return };
    let Some(world) = World::without_table_set_up(Compression::Gzip, trusting(true)) else { return };
    world.publish(&index, None);
    let point = world.mounted("one");
    wait::soon("an own index", || world.index().exists() && !world.published_index().exists());
    let own = fs::read(world.index()).unwrap();
    let read = |file: &[u8]| Index::read(file, &Hasher::digest(world.blob())).unwrap();
    assert!(read(&own).layer.is_same(&read(&index).layer));
    world.behave(Behaviour::Gone);
    assert!(fs::read(point.join("data/huge-1")).unwrap() == huge(1), "all of it is here");
    assert_eq!(world.lazy().figures().wrong, 0);
}

#[test]
fn of_a_layer_whose_published_index_lies_nothing_is_served_any_more() {
    let Some(index) = index() else { return };
    let Some(world) = World::without_table_set_up(Compression::Gzip, trusting(true)) else { return };
    // Everything fits but the mode of a folder, and what it says of the tar is what the image says.
    let (blob, tar) = (world.blob(), World::other_tar());
    let mut encoder = berth_archive::Encoder::new(Vec::new(), Compression::Gzip).unwrap();
    std::io::Write::write_all(&mut encoder, &tar).unwrap();
    let other = encoder.finish().unwrap();
    let lie = record(&other[..], &Hasher::digest(blob), blob.len() as u64, |_, _| Ok(())).unwrap();
    let diff_id = |index: &[u8]| {
        let line = index.iter().position(|byte| *byte == b'\n').unwrap();
        let header: serde_json::Value = serde_json::from_slice(&index[..line]).unwrap();
        (line, header["diffId"].as_str().unwrap().to_owned())
    };
    let (line, wrong) = diff_id(&lie.file);
    let header = String::from_utf8(lie.file[..line].to_vec()).unwrap().replace(&wrong, &diff_id(&index).1);
    world.publish(&[header.as_bytes(), &lie.file[line..]].concat(), None);
    let point = world.mounted("one");
    assert_eq!(fs::metadata(point.join("bin")).unwrap().mode(), 0o040_777, "the lie is used at first");
    wait::soon("the lie to be found out", || world.lazy().figures().wrong > 0);
    let error = fs::read(point.join("data/huge-3")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5), "EIO and not {error}");
    wait::soon("the lie to be gone", || !world.published_index().exists());
    assert!(!world.index().exists());
}

#[test]
fn what_is_read_first_comes_along_with_an_index() {
    let Some(index) = index() else { return };
    let Some(world) = World::without_table_set_up(Compression::Gzip, trusting(false)) else { return };
    let reads = br#"{"version":1,"parts":[{"path":"data/huge-3","from":0,"to":2800000}]}"#;
    world.publish(&index, Some(reads));
    let point = world.mounted("one");
    wait::soon("what is read first", || {
        world.lazy().figures().ahead > 0 && world.lazy().cache().bytes >= 2_800_000
    });
    world.behave(Behaviour::Gone);
    assert!(fs::read(point.join("data/huge-3")).unwrap() == huge(3));
    assert!(fs::read(point.join("data/huge-1")).is_err());
}
