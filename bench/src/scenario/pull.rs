//! Pulling and unpacking from a registry on loopback, into a fresh daemon each time: beside containerd as it comes, as
//! it can be tuned, and by its client alone; and how much memory the daemons take meanwhile.

use std::time::Duration;

use anyhow::{Context, Result};
use testkit::image::{Image, Layer};
use testkit::registry::DockerRegistry;

use super::import::Noise;
use crate::measure::{Samples, time};
use crate::memory;
use crate::subject::{Puller, Subject};
use crate::table::{Better, Table};

/// The most that a step may take on a busy machine.
pub(super) const LONG: Duration = Duration::from_mins(10);

/// An image to be pulled.
struct Case {
    name: &'static str,
    title: &'static str,
    image: fn(String) -> Image,
    compression: Compression,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Compression {
    Gzip,
    Zstd,
}

const CASES: [Case; 5] = [
    Case {
        name: "many-layers",
        title: "pull 60 layers of 20 files",
        image: many_layers,
        compression: Compression::Gzip,
    },
    Case {
        name: "large-layer",
        title: "pull one layer of 256 MB",
        image: |name| large_layer(name, 256),
        compression: Compression::Gzip,
    },
    Case {
        name: "huge-layer",
        title: "pull one layer of 1 GB",
        image: |name| large_layer(name, 1024),
        compression: Compression::Gzip,
    },
    Case {
        name: "zstd-layer",
        title: "pull one zstd layer of 256 MB",
        image: |name| large_layer(name, 256),
        compression: Compression::Zstd,
    },
    Case {
        name: "many-files",
        title: "pull 100,000 files of 1 kB",
        image: many_files,
        compression: Compression::Gzip,
    },
];

pub(super) fn run(rounds: usize, table: &mut Table) -> Result<()> {
    let registry = DockerRegistry::start()?;
    for case in CASES {
        let reference = format!("{}/bench/{}:1", registry.address(), case.name);
        case.publish(&reference)?;
        let mut times: [Samples; 5] = Default::default();
        let mut peaks: [Samples; 5] = Default::default();
        for _ in 0..rounds.div_ceil(5) {
            for (at, puller) in Puller::ALL.into_iter().enumerate() {
                let subject = Subject::puller(puller)?;
                let command = subject.pull(&reference)?.within(LONG);
                times[at].push_time(time(|| command.ok()).0);
                let pid = subject.daemon.pid().context("the daemon does not run")?;
                peaks[at].push(memory::peak(pid)? as f64);
            }
        }
        add(table, &case, times, peaks);
    }
    Ok(())
}

fn add(table: &mut Table, case: &Case, times: [Samples; 5], peaks: [Samples; 5]) {
    let [own, foreign, defaults, tuned, local] = times;
    let [peak, _, other, ..] = peaks;
    let Case { name, title, .. } = *case;
    table.add((name, title, "ms"), Better::Less, [own.clone(), defaults.clone()]);
    table.add((name, "by ctr pull on both", "ms"), Better::Less, [foreign, defaults]);
    table.add((name, "beside containerd tuned", "ms"), Better::Less, [own.clone(), tuned]);
    table.add((name, "beside ctr pull --local", "ms"), Better::Less, [own, local]);
    table.add((name, "the daemon's memory at its peak", "KiB"), Better::Less, [peak, other]);
}

impl Case {
    fn publish(&self, reference: &str) -> Result<()> {
        let image = (self.image)(reference.to_owned());
        match self.compression {
            Compression::Gzip => publish(&image, reference),
            Compression::Zstd => put(&image, reference, |subject| {
                subject.convert("--zstd", reference, reference)?.within(LONG).ok();
                Ok(())
            }),
        }
    }
}

/// Puts an image into the registry.
pub(super) fn publish(image: &Image, reference: &str) -> Result<()> {
    put(image, reference, |_| Ok(()))
}

/// Puts an image into the registry, by way of a daemon that ends afterwards.
pub(super) fn put(image: &Image, reference: &str, change: impl FnOnce(&Subject) -> Result<()>) -> Result<()> {
    let subject = Subject::puller(Puller::Berth)?;
    let archive = subject.daemon.scratch().file("image.tar", image.oci_archive());
    subject.import(&archive)?.within(LONG).ok();
    change(&subject)?;
    subject.push(reference)?.within(LONG).ok();
    Ok(())
}

pub(super) fn many_layers(name: String) -> Image {
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

pub(super) fn large_layer(name: String, mebibytes: usize) -> Image {
    let mut noise = Noise(2);
    let mut layer = Layer::new().dir("large", 0o755);
    for number in 0..mebibytes / 8 {
        layer = layer.file(&format!("large/{number}"), &noise.bytes(8 << 20), 0o644);
    }
    Image::new(&name).layer(layer).cmd(&["/nothing"])
}

pub(super) fn many_files(name: String) -> Image {
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
