//! Applies a layer from a file to a folder and tells how long that took, for measuring:
//! `cargo run --release -p berth-diff --example apply -- LAYER FOLDER [sync]`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use berth_core::{ApplyRequest, Differ};
use berth_diff::Walking;
use berth_types::Mount;
use testkit::blobs::Blobs;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [layer, folder, rest @ ..] = &arguments[..] else {
        eprintln!("apply LAYER FOLDER [sync]");
        std::process::exit(2);
    };
    let blobs = Blobs::default();
    let bytes = std::fs::read(layer).expect("the layer can be read");
    let layer = blobs.add("application/vnd.oci.image.layer.v1.tar+gzip", bytes);
    let mounts = vec![Mount {
        kind: "bind".into(),
        source: folder.clone(),
        target: String::new(),
        options: vec!["rw".into(), "rbind".into()],
    }];
    let request =
        ApplyRequest { layer, arriving: None, mounts, payloads: BTreeMap::new(), sync: !rest.is_empty() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be made");
    let start = Instant::now();
    let done = runtime.block_on(Walking::new(Arc::new(blobs)).apply(request)).expect("the layer applies");
    println!("{:.3} s, {} bytes, {}", start.elapsed().as_secs_f64(), done.size, done.digest);
}
