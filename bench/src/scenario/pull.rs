//! Pulling and unpacking from a registry on loopback, into a fresh daemon each time: many small layers, one large
//! layer, many small files.

use std::time::Duration;

use anyhow::Result;
use testkit::Kind;
use testkit::image::{Image, Layer};
use testkit::registry::DockerRegistry;

use super::import::Noise;
use crate::measure::{Samples, time};
use crate::subject::Subject;
use crate::table::{Better, Table};

/// The most that a step may take on a busy machine.
const LONG: Duration = Duration::from_mins(10);

pub(super) fn run(rounds: usize, table: &mut Table) -> Result<()> {
    let registry = DockerRegistry::start()?;
    for (name, title, image) in [
        ("many-layers", "pull 60 layers of 20 files", many_layers as fn(String) -> Image),
        ("large-layer", "pull one layer of 256 MB", large_layer),
        ("many-files", "pull 100,000 files of 1 kB", many_files),
    ] {
        let reference = format!("{}/bench/{name}:1", registry.address());
        publish(&image(reference.clone()), &reference)?;
        let mut samples = [Samples::default(), Samples::default()];
        for _ in 0..rounds.div_ceil(5) {
            for (kind, samples) in [Kind::Berth, Kind::Containerd].into_iter().zip(&mut samples) {
                let subject = Subject::empty(kind)?;
                let command = subject.pull(&reference)?.within(LONG);
                samples.push_time(time(|| command.ok()).0);
            }
        }
        table.add((name, title, "ms"), Better::Less, samples);
    }
    Ok(())
}

/// Puts an image into the registry, by way of a daemon that ends afterwards.
fn publish(image: &Image, reference: &str) -> Result<()> {
    let subject = Subject::empty(Kind::Berth)?;
    let archive = subject.daemon.scratch().file("image.tar", image.oci_archive());
    subject.import(&archive)?.within(LONG).ok();
    subject.push(reference)?.within(LONG).ok();
    Ok(())
}

fn many_layers(name: String) -> Image {
    let mut noise = Noise(1);
    let mut image = Image::new(&name).cmd(&["/nothing"]);
    for layer in 0..60 {
        let mut files = Layer::new().dir(&format!("{layer}"), 0o755);
        for file in 0..20 {
            files = files.file(&format!("{layer}/{file}"), &noise.bytes(16 << 10), 0o644);
        }
        image = image.layer(files);
    }
    image
}

fn large_layer(name: String) -> Image {
    let mut noise = Noise(2);
    let mut layer = Layer::new().dir("large", 0o755);
    for number in 0..32 {
        layer = layer.file(&format!("large/{number}"), &noise.bytes(8 << 20), 0o644);
    }
    Image::new(&name).layer(layer).cmd(&["/nothing"])
}

fn many_files(name: String) -> Image {
    let mut noise = Noise(3);
    let mut layer = Layer::new();
    for number in 0..100_000 {
        if number % 500 == 0 {
            layer = layer.dir(&format!("{}", number / 500), 0o755);
        }
        layer = layer.file(&format!("{}/{number}", number / 500), &noise.bytes(1 << 10), 0o644);
    }
    Image::new(&name).layer(layer).cmd(&["/nothing"])
}
