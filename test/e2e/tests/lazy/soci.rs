//! Images with SOCI indexes, made here, pushed to a registry that knows no referrers, and run before they have arrived.

use std::fs;

use serde_json::{Value, json};

use super::*;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const LIST: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "com.amazon.soci.image-layer-digest";

/// A document or blob of berthd's store.
fn content(world: &World, digest: &str) -> Vec<u8> {
    let outcome = world.ctr("content get").arg(digest).outcome();
    assert!(outcome.status.success(), "{digest}: {}", outcome.stderr_text());
    outcome.stdout
}

fn document(world: &World, digest: &str) -> Value {
    serde_json::from_slice(&content(world, digest)).expect("it is JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn list_of(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

/// Makes an indexed image of one that is here, pushes it, and answers the digest of its list.
fn indexed(world: &World, from: &str, to: &str) -> String {
    let made = world.berth("image convert --soci").arg(from).arg(to).ok();
    world.berth("push -q").arg(to).ok();
    made.trim().to_owned()
}

/// An image of gzip layers, one of which is worth an index, in berthd's store and in the registry.
fn compressed(world: &World) -> Option<(image::Image, String, DockerRegistry)> {
    let (image, registry) = plain_image(world)?;
    let name = format!("{}/team/gzip:1", registry.address());
    world.berth("image convert --gzip --oci").arg(image.name()).arg(&name).ok();
    Some((image, name, registry))
}

/// Sees that the image runs and that no more than what was read of its large layer is here.
fn runs_lazily(world: &World, name: &str) {
    let run = |words: &[&str]| {
        if world.daemon.kind() == Kind::Berth {
            return world.berth("run --snapshotter lazy --rm").arg(name).args(words).ok();
        }
        world.ctr("run --rm --snapshotter lazy").arg(name).arg("soci").args(words).ok()
    };
    assert_eq!(run(&["cat", "/small"]), "small text\n");
    let here = local(world);
    assert!(here.len() > 1 && here.iter().any(|percent| *percent < 50), "{here:?} percent are here");
    let sum = run(&["sha256sum", "/big"]);
    assert!(sum.starts_with(&image::digest(&noise())[7..]), "{sum}");
}

/// What soci-snapshotter's own packages make of an index that was made here.
fn is_read_by_others(world: &World, index: &str) {
    let Ok(tool) = need::program("soci-tool") else { return };
    let scratch = world.daemon.scratch();
    let file = scratch.file("index.json", content(world, index));
    let read = Invocation::new(&tool).arg("index").arg(file).ok();
    let read: Value = serde_json::from_str(&read).expect("it is JSON");
    assert_eq!(read["artifactType"], "application/vnd.amazon.soci.index.v2+json");
    let [ztoc] = list_of(&read["blobs"]) else { panic!("one layer is indexed: {read}") };
    let layer = scratch.file("layer", content(world, text(&ztoc["annotations"][LAYER])));
    let ztoc = scratch.file("ztoc", content(world, text(&ztoc["digest"])));
    let cat = |name: &str| {
        let outcome = Invocation::new(&tool).arg("cat").arg(&layer).arg(&ztoc).arg(name).outcome();
        assert!(outcome.status.success(), "{}", outcome.stderr_text());
        outcome.stdout
    };
    assert_eq!(cat("small"), b"small text\n");
    assert!(cat("big") == noise());
}

/// An image of gzip layers or of plain tars is indexed, pushed, and run here and from the registry.
fn an_image_indexed_here_runs(compression: &str) {
    let Some(world) = World::start(Kind::Berth) else { return };
    let Some((image, gzip, registry)) = compressed(&world) else { return };
    let name = format!("{}/team/indexed:1", registry.address());
    let from = if compression == "gzip" { gzip.as_str() } else { image.name() };
    let list = document(&world, &indexed(&world, from, &name));
    let [listed, index] = list_of(&list["manifests"]) else { panic!("{list}") };
    assert_eq!(index["artifactType"], "application/vnd.amazon.soci.index.v2+json");
    assert_eq!(index["annotations"]["com.amazon.soci.image-manifest-digest"], listed["digest"]);
    assert_eq!(index["platform"], listed["platform"]);
    let manifest = document(&world, text(&listed["digest"]));
    assert_eq!(manifest["annotations"]["com.amazon.soci.index-digest"], index["digest"]);
    is_read_by_others(&world, text(&index["digest"]));
    // Another one of it is in place of the first.
    let again = document(&world, &indexed(&world, &name, &name));
    assert_eq!(list_of(&again["manifests"]).len(), 2, "{again}");
    // An eStargz of it has no index of its old layers.
    let other = format!("{}/team/other:1", registry.address());
    world.berth("image convert --estargz --oci").arg(&name).arg(&other).ok();
    let manifests = world.berth("manifest inspect").arg(&other).ok();
    assert!(!manifests.contains("com.amazon.soci"), "{manifests}");
    let refused = world.berth("image convert --soci --soci-min-layer-size 100000000").arg(from).arg(&other);
    let refused = refused.fails();
    assert!(refused.contains("no layer has a zTOC"), "{refused}");

    let run = world.berth("run --rm").arg(&name).args(["cat", "/small"]);
    assert_eq!(run.ok(), "small text\n");
    world.berth("rmi -f").arg(&name).ok();
    world.berth("pull -q --all-platforms").arg(&name).ok();
    world.berth("push -q").arg(&name).ok();
    world.berth("rmi -f").arg(&name).ok();
    world.berth("pull -q --snapshotter lazy").arg(&name).ok();
    runs_lazily(&world, &name);
    for name in [name.as_str(), &other, &gzip, image.name()] {
        world.ctr("images rm --sync").arg(name).ok();
    }
    world.pull();
    world.finish();
}

#[test]
fn an_image_of_gzip_layers_that_is_indexed_here_runs_before_it_has_arrived_and_unpacked_too() {
    an_image_indexed_here_runs("gzip");
}

#[test]
fn an_image_of_plain_tars_that_is_indexed_here_runs_before_it_has_arrived_and_unpacked_too() {
    an_image_indexed_here_runs("none");
}

#[test]
fn an_image_indexed_here_runs_beneath_containerd_before_it_has_arrived() {
    let Some(maker) = World::start(Kind::Berth) else { return };
    let Some((_, gzip, registry)) = compressed(&maker) else { return };
    let name = format!("{}/team/indexed:1", registry.address());
    indexed(&maker, &gzip, &name);
    maker.pull();
    let Some(world) = World::start(Kind::Containerd) else { return };
    world.ctr("images pull --snapshotter lazy --plain-http").arg(&name).ok();
    runs_lazily(&world, &name);
    world.ctr("images rm --sync").arg(&name).ok();
    world.pull();
    world.finish();
    maker.finish();
}

#[test]
fn an_index_beside_an_image_is_found_by_a_tag_and_spans_that_lie_are_not_served() {
    let Some(world) = World::start(Kind::Berth) else { return };
    let Some((image, gzip, registry)) = compressed(&world) else { return };
    let name = format!("{}/team/indexed:1", registry.address());
    let list = document(&world, &indexed(&world, &gzip, &name));
    world.berth("push -q").arg(&gzip).ok();
    // The same index, of the first version: it names the image, and not the other way round.
    let target = world.ctr("images ls").ok();
    let target = target.lines().find(|line| line.starts_with(&gzip)).expect("the image is here");
    let subject = target.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap();
    let mut index = document(&world, text(&list["manifests"][1]["digest"]));
    index["config"]["mediaType"] = json!("application/vnd.amazon.soci.index.v1+json");
    let size = content(&world, subject).len();
    index["subject"] = json!({ "mediaType": MANIFEST, "digest": subject, "size": size });
    let ztoc = &index["layers"][0];
    let layer = text(&ztoc["annotations"][LAYER]).to_owned();
    registry.put_blob("team/gzip", &content(&world, text(&ztoc["digest"])));
    registry.put_blob("team/gzip", b"{}");
    let index = index.to_string().into_bytes();
    let digest = image::digest(&index);
    registry.put_document("team/gzip", &digest, MANIFEST, &index);
    let referrers = json!({ "schemaVersion": 2, "mediaType": LIST, "manifests": [{
        "mediaType": MANIFEST, "digest": digest, "size": index.len(),
        "artifactType": "application/vnd.amazon.soci.index.v1+json",
    }] });
    let tag = subject.replace(':', "-");
    registry.put_document("team/gzip", &tag, LIST, referrers.to_string().as_bytes());

    for name in [&name, &gzip] {
        world.ctr("images rm --sync").arg(name).ok();
    }
    world.berth("pull -q --snapshotter lazy").arg(&gzip).ok();
    let run = |words: &[&str]| world.berth("run --snapshotter lazy --rm").arg(&gzip).args(words);
    assert_eq!(run(&["cat", "/small"]).ok(), "small text\n");
    assert!(local(&world).iter().any(|percent| *percent < 50), "{:?}", local(&world));
    let file = registry.blob_file(&layer);
    let whole = fs::read(&file).expect("the registry has the layer");
    let mut spoilt = whole.clone();
    let middle = spoilt.len() / 2;
    spoilt[middle] ^= 1;
    fs::write(&file, spoilt).unwrap();
    let failed = run(&["sha256sum", "/big"]).fails();
    assert!(failed.contains("I/O error") || failed.contains("Input/output error"), "{failed}");
    assert_eq!(run(&["cat", "/small"]).ok(), "small text\n");
    fs::write(&file, whole).unwrap();
    runs_lazily_again(&run);
    for name in [gzip.as_str(), image.name()] {
        world.ctr("images rm --sync").arg(name).ok();
    }
    world.pull();
    world.finish();
}

/// What could not be read can be once the registry tells the truth.
fn runs_lazily_again(run: &impl Fn(&[&str]) -> Invocation) {
    let sum = run(&["sha256sum", "/big"]).ok();
    assert!(sum.starts_with(&image::digest(&noise())[7..]), "{sum}");
}
