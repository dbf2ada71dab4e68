//! Layers whose tables somebody has put beside their image.

use std::collections::BTreeMap;
use std::fs;

use berth_archive::Compression;
use berth_stargz::soci::{self, media};
use serde_json::{Value, json};
use testkit::image::digest;

use super::world::{Behaviour, World, big, huge};
use crate::Config;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// How an index is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The manifest names it (v2).
    Named,
    /// The registry lists it as a referrer (v1).
    Referrer,
    /// The registry knows no referrers, and a tag has the list.
    Tag,
}

/// A SOCI index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Index {
    pub(super) way: Way,
    pub(super) compression: Compression,
    /// Whether the layer is in it.
    pub(super) has_layer: bool,
}

const USUAL: Index = Index { way: Way::Named, compression: Compression::Gzip, has_layer: true };

/// Documents and blobs of an index, by path; the manifest names it if it is to.
pub(super) fn put(index: Index, blob: &[u8], manifest: &mut Vec<u8>) -> BTreeMap<String, Vec<u8>> {
    let ztoc = soci::make(blob, 500_000, "a test").unwrap();
    let of = if index.has_layer { digest(blob) } else { digest(b"another layer") };
    let kind = if index.way == Way::Named { media::INDEX_V2 } else { media::INDEX_V1 };
    let mut document = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": kind, "digest": digest(b"{}"), "size": 2 },
        "layers": [
            // What is to be fetched first has the layer's digest too.
            {
                "mediaType": "application/vnd.amazon.soci.prefetch.v1+json", "digest": digest(b"no zTOC"), "size": 7,
                "annotations": { media::LAYER_DIGEST: of },
            },
            {
                "mediaType": media::ZTOC, "digest": digest(&ztoc), "size": ztoc.len(),
                "annotations": { media::LAYER_DIGEST: of },
            },
        ],
    });
    if index.way != Way::Named {
        document["subject"] =
            json!({ "mediaType": MANIFEST, "digest": digest(manifest), "size": manifest.len() });
    }
    let document = document.to_string().into_bytes();
    let list = json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": MANIFEST, "digest": digest(&document), "size": document.len(), "artifactType": kind,
    }] });
    let mut others = BTreeMap::new();
    match index.way {
        Way::Named => {
            let mut named: Value = serde_json::from_slice(manifest).unwrap();
            named["annotations"] = json!({ media::INDEX_DIGEST: digest(&document) });
            *manifest = named.to_string().into_bytes();
        }
        Way::Referrer => {
            let path = format!("/v2/a/b/referrers/{}", digest(manifest));
            others.insert(path, list.to_string().into_bytes());
        }
        Way::Tag => {
            let path = format!("/v2/a/b/manifests/{}", digest(manifest).replace(':', "-"));
            others.insert(path, list.to_string().into_bytes());
        }
    }
    others.insert(format!("/v2/a/b/manifests/{}", digest(&document)), document);
    others.insert(format!("/v2/a/b/blobs/{}", digest(&ztoc)), ztoc);
    others
}

/// Every large file, and a small one.
fn check(point: &std::path::Path) {
    for number in 1..=3 {
        assert!(fs::read(point.join(format!("data/big-{number}"))).unwrap() == big(number));
        assert!(fs::read(point.join(format!("data/huge-{number}"))).unwrap() == huge(number));
    }
    assert_eq!(fs::read(point.join("bin/again")).unwrap(), b"a tool");
}

#[test]
fn a_layer_with_a_ztoc_is_read_in_parts() {
    for compression in [Compression::Gzip, Compression::Plain] {
        let Some(world) = World::indexed(Index { compression, ..USUAL }, Config::default()) else { return };
        let point = world.mounted("one");
        assert!(world.bytes_given() <= 1, "the zTOC is enough");
        assert_eq!(fs::read(point.join("bin/tool")).unwrap(), b"a tool");
        assert!(world.bytes_given() < world.blob_len() as u64 / 5);
        check(&point);
        let (all, given) = (world.blob_len() as u64, world.bytes_given());
        assert!(given < all + all / 10, "{given} of {all}: each span comes once");
        let status = world.lazy().layers();
        assert!(status[0].figures.misses > 0 && status[0].figures.failures == 0, "{status:?}");
        assert_eq!(status[0].local, status[0].bytes);
    }
}

#[test]
fn what_was_read_is_there_for_the_next_process_without_the_registry() {
    let Some(mut world) = World::indexed(USUAL, Config::default()) else { return };
    let point = world.mounted("one");
    assert!(fs::read(point.join("data/big-1")).unwrap() == big(1));
    world.behave(Behaviour::Gone);
    world.restart();
    let point = world.container("two", world.target());
    assert!(fs::read(point.join("data/big-1")).unwrap() == big(1), "verified anew, from the cache");
    assert!(fs::read(point.join("data/huge-3")).is_err());
    world.behave(Behaviour::Honest);
    check(&point);
    assert_eq!(world.lazy().cache().damaged, 0);
}

#[test]
fn spans_that_lie_are_never_served() {
    let Some(world) = World::indexed(USUAL, Config::default()) else { return };
    let point = world.mounted("one");
    world.behave(Behaviour::Lying);
    for name in ["bin/tool", "data/huge-2"] {
        let error = fs::read(point.join(name)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(5), "EIO and not {error}");
    }
    world.behave(Behaviour::Honest);
    check(&point);
}

#[test]
fn an_index_that_only_refers_to_the_image_is_used_by_who_says_so() {
    for way in [Way::Referrer, Way::Tag] {
        let index = Index { way, ..USUAL };
        let Some(world) = World::indexed(index, Config::default()) else { return };
        assert!(world.prepared(world.target(), None, world.labels()).is_ok(), "it is unpacked");
        assert!(world.lazy().layers().is_empty());
        let Some(world) = World::indexed(index, Config { soci_v1: true, ..Config::default() }) else {
            return;
        };
        let point = world.mounted("one");
        assert!(world.bytes_given() <= 1, "{way:?}");
        check(&point);
    }
}

#[test]
fn one_that_the_manifest_names_is_not_used_by_who_says_no() {
    let Some(world) = World::indexed(USUAL, Config { soci: false, ..Config::default() }) else { return };
    assert!(world.prepared(world.target(), None, world.labels()).is_ok());
    assert!(world.lazy().layers().is_empty());
}

#[test]
fn a_layer_that_the_index_leaves_out_comes_whole() {
    let Some(mut world) = World::indexed(Index { has_layer: false, ..USUAL }, Config::default()) else {
        return;
    };
    world.mounted("one");
    assert!(world.bytes_given() >= world.blob_len() as u64);
    world.behave(Behaviour::Gone);
    world.restart();
    check(&world.container("two", world.target()));
}

#[test]
fn a_ztoc_that_is_not_there_or_another_one_leaves_the_layer_to_whoever_unpacks() {
    let Some(world) = World::indexed(USUAL, Config::default()) else { return };
    let ztoc = world.others(|others| {
        let (path, ztoc) = others.iter().find(|(path, _)| path.contains("/blobs/")).unwrap();
        (path.clone(), ztoc.clone())
    });
    let put = |bytes: Option<&[u8]>| {
        world.others(|others| match bytes {
            Some(bytes) => others.insert(ztoc.0.clone(), bytes.to_vec()),
            None => others.remove(&ztoc.0),
        });
    };
    let mut changed = ztoc.1.clone();
    changed[100] ^= 1;
    for (name, bytes) in [("changed", Some(&changed[..])), ("gone", None), ("cut", Some(&ztoc.1[..1000]))] {
        put(bytes);
        assert!(world.prepared(name, None, world.labels()).is_ok(), "{name}");
        assert!(world.lazy().layers().is_empty());
    }
    put(Some(&ztoc.1));
    check(&world.mounted("one"));
}
