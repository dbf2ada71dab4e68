//! A short run of every target: its seeds, and some thousand inputs made of them.

#![expect(clippy::unwrap_used, reason = "a test fails with what it did not expect")]

use std::path::Path;

use fuzz::{Mutants, TARGETS};

/// Inputs of each target.
const SHORT: usize = 4000;

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    // In an order of their own, so that the same number means the same inputs everywhere.
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn holds(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let seeds = seeds(name);
    assert!(!seeds.is_empty(), "{name} has no seeds");
    for input in seeds.iter().cloned().chain(Mutants::new(&seeds, target.words, 1).take(SHORT)) {
        let done = std::panic::catch_unwind(|| (target.run)(&input));
        assert!(done.is_ok(), "{name} does not hold for {:?}", String::from_utf8_lossy(&input));
    }
}

#[test]
fn every_target_has_a_test_here() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(
        names,
        [
            "reference",
            "manifest",
            "index",
            "challenge",
            "hosts",
            "tar",
            "erofs-layer",
            "erofs-image",
            "erofs-check",
            "whiteout",
            "spdy",
            "websocket",
            "stargz",
            "stargz-footer",
            "layer-record",
            "layer-index",
            "ztoc",
            "ztoc-made",
            "fuse",
            "deflate",
            "recipe",
            "nri",
            "cdi"
        ]
    );
}

#[test]
fn references() {
    holds("reference");
}

#[test]
fn manifests_and_configurations() {
    holds("manifest");
}

#[test]
fn indexes() {
    holds("index");
}

#[test]
fn challenges() {
    holds("challenge");
}

#[test]
fn settings_of_hosts() {
    holds("hosts");
}

#[test]
fn tars() {
    holds("tar");
}

#[test]
fn layers_as_images() {
    holds("erofs-layer");
}

#[test]
fn images_of_others() {
    holds("erofs-image");
}

#[test]
fn images_of_others_let_through() {
    holds("erofs-check");
}

#[test]
fn whiteouts() {
    holds("whiteout");
}

#[test]
fn frames_of_spdy() {
    holds("spdy");
}

#[test]
fn frames_of_websockets() {
    holds("websocket");
}

#[test]
fn tables_of_layers() {
    holds("stargz");
}

#[test]
fn footers_of_layers() {
    holds("stargz-footer");
}

#[test]
fn layers_without_tables() {
    holds("layer-record");
}

#[test]
fn indexes_of_layers() {
    holds("layer-index");
}

#[test]
fn ztocs() {
    holds("ztoc");
}

#[test]
fn ztocs_that_are_made() {
    holds("ztoc-made");
}

#[test]
fn requests_of_fuse() {
    holds("fuse");
}

#[test]
fn streams_of_gzip() {
    holds("deflate");
}

#[test]
fn recipes_of_layers() {
    holds("recipe");
}

#[test]
fn adjustments_of_plugins() {
    holds("nri");
}

#[test]
fn descriptions_of_devices() {
    holds("cdi");
}
