//! What is counted.

use std::fs;

use berth_archive::Compression;

use super::world::{Behaviour, World, big};

#[test]
fn what_becomes_of_reads_and_requests_is_counted() {
    let Some(world) = World::start() else { return };
    let point = world.mounted("one");
    let before = world.lazy().figures();
    assert_eq!((before.mounted, before.taken, before.left), (1, 1, 0));
    assert_eq!((before.demanded, before.ahead, before.whole), (0, 0, 0));
    assert!(fs::read(point.join("data/big-1")).unwrap() == big(1));
    let read = world.lazy().figures();
    assert!(read.misses > 0 && read.demanded >= big(1).len() as u64, "{read:?}");
    assert_eq!(read.waits.iter().sum::<u64>(), read.misses, "{read:?}");
    assert!(read.waited > 0);
    world.drop_page_cache();
    assert!(fs::read(point.join("data/big-1")).unwrap() == big(1));
    let again = world.lazy().figures();
    assert!(again.hits > read.hits && again.demanded == read.demanded, "{again:?}");
    world.behave(Behaviour::Lying);
    fs::read(point.join("data/big-3")).unwrap_err();
    let lied = world.lazy().figures();
    assert!(lied.wrong > again.wrong && lied.failures > 0 && lied.refused == 0, "{lied:?}");
    world.behave(Behaviour::Gone);
    fs::read(point.join("data/big-3")).unwrap_err();
    assert!(world.lazy().figures().refused > 0);
    assert!(world.prepared("other", None, world.labels_of_nothing()).is_ok());
    assert_eq!(world.lazy().figures().left, 1);
}

#[test]
fn a_layer_that_comes_whole_is_counted_as_that() {
    let Some(world) = World::without_table(Compression::Gzip) else { return };
    world.mounted("one");
    let figures = world.lazy().figures();
    assert_eq!((figures.whole, figures.demanded), (world.blob_len() as u64, 0));
}
