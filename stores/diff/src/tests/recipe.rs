//! Layers that are made again from the tree that they were unpacked to.

use std::fs;
use std::path::Path;

use berth_archive::Compression;
use berth_core::{CompareRequest, ContentStore, Differ, recipe};
use berth_oci::image::media;
use berth_types::{Descriptor, ErrorKind, Labels, Result};
use testkit::image::Layer;

use super::{Fixture, bind, compress};

/// Text that a compressor has some work with.
fn text() -> Vec<u8> {
    (0..40_000_u32)
        .flat_map(|n| format!("{n} of {:x}\n", n.wrapping_mul(2_654_435_761) >> 8).into_bytes())
        .collect()
}

fn layer() -> Vec<u8> {
    Layer::new()
        .dir("etc", 0o755)
        .file("etc/text", &text(), 0o644)
        .symlink("etc/link", "text")
        .file("untold/folder/file", &text()[..5000], 0o600)
        .file("etc/twice", &text()[..3000], 0o600)
        .file("etc/twice", &text()[100..4000], 0o600)
        .tar()
}

async fn ask(f: &Fixture, tree: &Path, media_type: &str, labels: &[(&str, &str)]) -> Result<Descriptor> {
    let labels: Labels = labels.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    let media_type = media_type.to_owned();
    let request = CompareRequest { upper: bind(tree), media_type, labels, ..CompareRequest::default() };
    f.differ.compare(request).await
}

#[tokio::test]
async fn a_layers_blob_is_made_again_from_its_tree_and_a_recipe() {
    for compression in [Compression::Plain, Compression::Gzip, Compression::Zstd] {
        let f = Fixture::new();
        let tree = f.folder("tree");
        let kind = media::OCI_LAYER_GZIP;
        let layer = f.blobs.add(kind, compress(&layer(), compression));
        f.apply_layer(layer.clone(), &bind(&tree)).await.unwrap();
        let digest = layer.digest.to_string();
        let made = ask(&f, &tree, recipe::MEDIA_TYPE, &[(recipe::OF, &digest)]).await.unwrap();
        assert!(made.size < layer.size / 4, "{compression:?}: {} of {}", made.size, layer.size);
        let labels = f.blobs.info(&made.digest).await.unwrap().labels;
        assert_eq!(labels.get(recipe::OF), Some(&digest));

        f.blobs.delete(&layer.digest).await.unwrap();
        let by = made.digest.to_string();
        let wish = [(recipe::OF, &*digest), (recipe::BY, &*by), ("some", "label")];
        let again = ask(&f, &tree, kind, &wish).await.unwrap();
        assert_eq!((&again.digest, again.size, &*again.media_type), (&layer.digest, layer.size, kind));
        let labels = f.blobs.info(&layer.digest).await.unwrap().labels;
        assert_eq!(labels, Labels::from([("some".into(), "label".into())]));

        f.blobs.delete(&layer.digest).await.unwrap();
        fs::write(tree.join("etc/text"), "another").unwrap();
        let error = ask(&f, &tree, kind, &wish).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        assert!(error.chain().contains("etc/text") && error.chain().contains(&digest), "{}", error.chain());
        fs::remove_file(tree.join("etc/text")).unwrap();
        let error = ask(&f, &tree, kind, &wish).await.unwrap_err();
        assert!(error.chain().contains("not there any more"), "{}", error.chain());
        assert_eq!(f.blobs.info(&layer.digest).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn a_recipe_that_would_be_as_large_as_its_layer_is_none() {
    let f = Fixture::new();
    let tree = f.folder("tree");
    let layer = f.blobs.add(media::OCI_LAYER_GZIP, compress(&layer(), Compression::Gzip));
    // Nothing of it is in the tree.
    let wish = [(recipe::OF, layer.digest.as_str())];
    let error = ask(&f, &tree, recipe::MEDIA_TYPE, &wish).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.chain().contains("the recipe would have more than"), "{}", error.chain());
    assert_eq!(f.blobs.list(&berth_types::filter::Filters::default()).await.unwrap().len(), 1);
    assert!(f.blobs.ingests(&berth_types::filter::Filters::default()).await.unwrap().is_empty());
}
