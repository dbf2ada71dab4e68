//! Layers of erofs snapshots: not unpacked, but written as one image.
//!
//! Such a snapshot is known by the file `.erofslayer` beside its upper folder, as in containerd. The image appears
//! beside it, whole, as `layer.erofs`. A layer that is an EROFS image already becomes that file as it is, once all that
//! the kernel would follow in it has been followed here ([`berth_erofs::check`]).

use std::fs::{self, File};
use std::io::{self, BufRead, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use berth_archive::{Chunks, Data, Entry, Finished, Limits, Pipeline, Time};
use berth_erofs::{Attributes, Below, ErofsError, IndexedLayer, uuid_of};
use berth_types::{Error, Mount, Result};

use super::archive::Kept;
use super::parents::Lowers;
use super::unpack::path_of;
use super::{Layer, Target, UnpackError, refusal, unpack, walk};
use crate::mounted::{Access, Overlay, Whiteouts, bound};
use crate::xattr;

/// The beginning of the types of layers that are images.
const MEDIA_TYPE: &str = "application/vnd.erofs.layer";

/// The name of a snapshot's image.
const IMAGE: &str = "layer.erofs";

/// The type that a layer has which is an image by itself, without how it is compressed.
pub(crate) fn native(media_type: &str) -> Option<&str> {
    let (base, suffix) = media_type.split_once('+').unwrap_or((media_type, ""));
    (base.starts_with(MEDIA_TYPE) && matches!(suffix, "" | "zstd")).then_some(base)
}

/// A snapshot that takes an image.
pub(crate) struct Place {
    image: PathBuf,
    tree: PathBuf,
    whiteouts: Whiteouts,
}

impl Place {
    /// Finds the snapshot that a list of mounts is of; none if it is of another kind, or has files of its own already,
    /// which an image would not have.
    pub(crate) fn of(mounts: &[Mount]) -> Result<Option<Self>> {
        let (tree, whiteouts) = match (bound(mounts), Overlay::of(mounts)) {
            (Some((tree, Access::Write)), _) => (tree.to_owned(), Whiteouts::Remove),
            (None, Some(Overlay { upper: Some(upper), lowers, apart, user_xattrs: false, .. })) => {
                (upper, Whiteouts::Overlay { prefix: "trusted.overlay.", lowers, apart })
            }
            _ => return Ok(None),
        };
        let Some(folder) = tree.parent().filter(|folder| folder.join(".erofslayer").is_file()) else {
            return Ok(None);
        };
        let failed = |error| Error::io(format!("cannot look at {}", folder.display()), error);
        if fs::read_dir(&tree).map_err(failed)?.next().is_some() {
            return Ok(None);
        }
        let image = folder.join(IMAGE);
        if fs::exists(&image).map_err(failed)? {
            return Err(Error::failed_precondition(format!(
                "{} has a layer already: commit it, and apply the next one to a snapshot on top",
                folder.display()
            )));
        }
        Ok(Some(Self { image, tree, whiteouts }))
    }

    /// Writes the image, and takes it away again if that fails.
    fn write<T>(
        &self,
        sync: bool,
        work: impl FnOnce(File) -> Result<T, UnpackError>,
    ) -> Result<T, UnpackError> {
        let part = self.image.with_extension("part");
        let failed = |source| UnpackError::Image(ErofsError::Write(source));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&part);
        let file = file.map_err(failed)?;
        let written = file.try_clone().map_err(failed).and_then(work).and_then(|done| {
            if sync {
                file.sync_all().map_err(failed)?;
            }
            fs::rename(&part, &self.image).map_err(failed)?;
            Ok(done)
        });
        written.inspect_err(|_| drop(fs::remove_file(&part)))
    }
}

/// What becomes of layers that are archives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageForm {
    /// Images with the files' data in blocks, and small tails behind the inodes.
    #[default]
    Whole,
    /// The archive as it is with an index behind it: its bytes can be verified at any time.
    Indexed,
}

/// Writes a layer as the image of a snapshot and tells what it was.
pub(crate) fn apply(layer: Layer<'_>, place: &Place, images: ImageForm) -> Result<Finished> {
    let (name, sync) = (layer.name, layer.sync);
    let written = place.write(sync, |file| {
        let whose =
            fs::metadata(&place.tree).map_err(|error| UnpackError::write("cannot look at", b"/", error))?;
        let under = Under(Lowers::of(&place.whiteouts), place.whiteouts != Whiteouts::Remove);
        let owner = (whose.uid(), whose.gid());
        match images {
            ImageForm::Whole => unpack(layer, berth_erofs::Layer::new(file, under, owner)?),
            ImageForm::Indexed => index(layer, &file, under, owner),
        }
    });
    written.map_err(|error| refusal(name, error))
}

/// Keeps the archive and writes an index of it.
fn index(layer: Layer<'_>, file: &File, under: Under, owner: (u32, u32)) -> Result<Finished, UnpackError> {
    type Indexed = IndexedLayer<File, Under>;
    let failed = |source| UnpackError::Image(ErofsError::Write(source));
    let (output, archive) = (file.try_clone().map_err(failed)?, file.try_clone().map_err(failed)?);
    let mut indexed = IndexedLayer::new(output, under, owner)?;
    let through = |chunks| Kept::new(chunks, archive, Indexed::ARCHIVE);
    let (finished, kept) = walk(layer, through, |entry, reader| {
        let at = reader.offset();
        indexed.entry(entry, at).map_err(|error| missed(&indexed.below().0, error))
    })?;
    let length = kept.finish().map_err(failed)?;
    indexed.finish(uuid_of(finished.digest.hex()), (file, length))?;
    Ok(finished)
}

/// The error of a layer that needs those below it, where these are not known.
fn missed(lowers: &Lowers, error: ErofsError) -> UnpackError {
    match &lowers.missed {
        Some(path) => UnpackError::Apart { path: path.display().to_string() },
        None => error.into(),
    }
}

/// Takes a layer that is an image by itself.
pub(crate) fn apply_native(layer: Layer<'_>, place: &Place) -> Result<Finished> {
    let (name, sync) = (layer.name, layer.sync);
    place.write(sync, |file| copy(layer, file)).map_err(|error| refusal(name, error))
}

fn copy(layer: Layer<'_>, mut file: File) -> Result<Finished, UnpackError> {
    let (pipeline, mut chunks) = Pipeline::start(layer.source, Limits::default())?;
    let failed = |source| UnpackError::Image(ErofsError::Write(source));
    loop {
        if !layer.wanted.is_so() {
            return Err(UnpackError::Cancelled);
        }
        let length = match chunks.fill_buf() {
            Ok([]) => break,
            Ok(part) => file.write_all(part).map(|()| part.len()).map_err(failed)?,
            // The decoder says why its stream broke off.
            Err(source) => {
                drop(chunks);
                pipeline.finish()?;
                return Err(UnpackError::data(b"/", source));
            }
        };
        chunks.consume(length);
    }
    drop(chunks);
    // A blob that is not the one that was asked for is told first: nothing of it matters.
    let finished = pipeline.finish()?;
    let length = file.metadata().map_err(failed)?.len();
    let checked = berth_erofs::check(file, length).map_err(UnpackError::NoImage)?;
    if checked.compressed {
        tracing::info!(
            layer = layer.name,
            "the image has compressed files, whose data only the kernel reads"
        );
    }
    Ok(finished)
}

/// The layers below, as the one above sees them.
struct Under(Lowers, bool);

impl Below for Under {
    fn is_anything(&self) -> bool {
        self.1
    }

    fn directory(&mut self, path: &[u8]) -> io::Result<Option<Attributes>> {
        let path = path_of(path);
        self.0.need(path)?;
        let Some(found) = self.0.directory(path)? else { return Ok(None) };
        let stat = rustix::fs::fstat(&found)?;
        let xattrs = xattr::all(found.as_fd())?;
        Ok(Some(Attributes {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Time { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 },
            xattrs: xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect(),
        }))
    }

    fn root_names(&mut self) -> io::Result<Vec<Vec<u8>>> {
        self.0.need(Path::new("/"))?;
        let names = self.0.root_names()?;
        Ok(names.into_iter().map(|name| name.as_bytes().to_vec()).collect())
    }
}

impl Target for berth_erofs::Layer<File, Under> {
    fn entry(&mut self, entry: &Entry, data: &mut Data<'_, Chunks>) -> Result<(), UnpackError> {
        self.entry(entry, data).map_err(|error| missed(&self.below().0, error))
    }

    fn finish(self, layer: &Finished, _sync: bool) -> Result<(), UnpackError> {
        self.finish(uuid_of(layer.digest.hex()))?;
        Ok(())
    }
}
