//! Layers as EROFS images: import and unpacking with the erofs snapshotter, and what that leaves on the disk, beside
//! containerd's overlayfs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use testkit::Kind;
use testkit::image::Image;

use super::{import, pull};
use crate::measure::{Samples, time};
use crate::subject::Subject;
use crate::table::{Better, Table};

/// The most that a step may take on a busy machine.
const LONG: Duration = Duration::from_mins(10);

pub(super) fn run(rounds: usize, table: &mut Table) -> Result<()> {
    for (title, image) in [
        ("200 MB", import::image()),
        ("100,000 files of 1 kB", pull::many_files("berth.test/files:1".to_owned())),
    ] {
        let (times, sizes) = measure(rounds, &image)?;
        table.add(("images", &format!("import {title}, erofs / overlayfs"), "ms"), Better::Less, times);
        table.add(("images", &format!("… on the disk, {title}"), "MB"), Better::Less, sizes);
    }
    Ok(())
}

fn measure(rounds: usize, image: &Image) -> Result<([Samples; 2], [Samples; 2])> {
    let archive = image.oci_archive();
    let (mut times, mut sizes) = (<[Samples; 2]>::default(), <[Samples; 2]>::default());
    for _ in 0..rounds.div_ceil(5) {
        for (at, kind) in [Kind::Berth, Kind::Containerd].into_iter().enumerate() {
            // Fresh folders each time: a second import would find everything there.
            let subject = Subject::empty(kind)?;
            let archive = subject.daemon.scratch().file("image.tar", &archive);
            let snapshotter = if kind == Kind::Berth { "erofs" } else { "overlayfs" };
            let command = subject.import_into(snapshotter, &archive)?.within(LONG);
            times[at].push_time(time(|| command.ok()).0);
            let folder = subject.daemon.root().join(format!("io.containerd.snapshotter.v1.{snapshotter}"));
            sizes[at].push(on_disk(&folder) as f64 / 1e6);
        }
    }
    Ok((times, sizes))
}

/// What a folder takes, in bytes of blocks, without what is mounted in it.
pub(super) fn on_disk(folder: &Path) -> u64 {
    let Ok(own) = fs::symlink_metadata(folder) else { return 0 };
    let inside = fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| {
        let metadata = entry.metadata().ok().filter(|metadata| metadata.dev() == own.dev())?;
        Some(if metadata.is_dir() { on_disk(&entry.path()) } else { metadata.blocks() * 512 })
    });
    own.blocks() * 512 + inside.sum::<u64>()
}
