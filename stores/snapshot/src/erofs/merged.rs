//! All layers of a snapshot as one image: one mount, and one folder beneath the overlay, for however many.
//!
//! The image holds what is known of the files, and names each layer's image as a device. It is made when the first
//! container or view on top of a layer asks for it, beside that layer's own image, and goes with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use berth_erofs::{ErofsError, Image, MergeError, merge};
use berth_types::{Error, Result};

use super::layers;

/// containerd's name for it, which reads one that is there.
const FILE: &str = "fsmeta.erofs";

/// The image of all layers up to one.
pub(super) struct Merged {
    image: PathBuf,
    point: PathBuf,
}

impl Merged {
    /// Up to the layer of the snapshot with that folder.
    pub(super) fn of(snapshot: &Path) -> Self {
        Self { image: snapshot.join(FILE), point: snapshot.join("merged") }
    }

    /// Whether there is one that can be mounted.
    pub(super) fn is_there(&self) -> bool {
        fs::metadata(&self.image).is_ok_and(|found| found.len() > 0)
    }

    /// Where it is mounted.
    pub(super) fn point(&self) -> PathBuf {
        self.point.clone()
    }

    /// Makes it of the layers' images, the lowest first, if it is not there, and mounts it. Answers whether they can be
    /// seen as one: those that only the kernel reads cannot, which is tried once. Not for two at a time.
    pub(super) fn bring_up(&self, images: &[PathBuf]) -> Result<bool> {
        let failed = |error| Error::io(format!("cannot make {}", self.image.display()), error);
        if !fs::exists(&self.image).map_err(failed)? {
            self.make(images)?;
        }
        if !self.is_there() {
            return Ok(false);
        }
        layers::mount(&self.image, images, &self.point)?;
        Ok(true)
    }

    fn make(&self, images: &[PathBuf]) -> Result<()> {
        let failed = |error| Error::io(format!("cannot make {}", self.image.display()), error);
        let part = self.image.with_extension("part");
        let output = File::create(&part).map_err(failed)?;
        match write(&output, images) {
            Ok(()) => {}
            Err(MergeError::Write(ErofsError::Write(error))) => {
                drop(fs::remove_file(&part));
                return Err(failed(error));
            }
            Err(error) => {
                tracing::info!(image = %self.image.display(), %error, "layers are mounted one by one");
                output.set_len(0).map_err(failed)?;
            }
        }
        output.sync_all().map_err(failed)?;
        fs::rename(&part, &self.image).map_err(failed)
    }
}

fn write(output: &File, images: &[PathBuf]) -> Result<(), MergeError> {
    let open = |(number, path): (usize, &PathBuf)| {
        let opened = File::open(path).map_err(|source| berth_erofs::ImageError::Read { offset: 0, source });
        opened.and_then(Image::open).map_err(|source| MergeError::Layer { number, source })
    };
    let layers: Vec<Image<File>> = images.iter().enumerate().map(open).collect::<Result<_, _>>()?;
    merge(output, &layers, [0; 16]).map(drop)
}
