//! Putting a layer onto a tree.

mod archive;
mod attributes;
mod files;
pub(crate) mod image;
mod ours;
mod parents;
mod times;
mod unpack;
mod whiteout;

use std::io::{self, BufRead};

use berth_archive::{Chunks, Data, Entry, Finished, Limits, Pipeline, PipelineError, Reader, TarError};
use berth_erofs::ErofsError;
use berth_sys::beneath::Root;
use berth_types::{Error, Result};

use crate::mounted::Whiteouts;
use crate::source::{BROKEN_OFF, Wanted};
use unpack::Unpack;

/// A layer on its way into a tree.
pub(crate) struct Layer<'a> {
    /// What it is called in errors.
    pub(crate) name: &'a str,
    pub(crate) source: Box<dyn BufRead + Send>,
    /// Whether somebody waits for the end.
    pub(crate) wanted: &'a Wanted,
    /// Whether everything has to be on disk at the end.
    pub(crate) sync: bool,
}

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
enum UnpackError {
    #[error("the archive is malformed")]
    Archive(#[source] TarError),
    #[error("the layer cannot be decoded")]
    Decode(#[from] PipelineError),
    #[error("{what} {path:?}")]
    Write { what: &'static str, path: String, source: io::Error },
    #[error("cannot read the data of {path:?}")]
    Data { path: String, source: io::Error },
    #[error("{path:?} is not a name that a whiteout can have")]
    Whiteout { path: String },
    #[error("{path:?} needs the layers below, which are not here yet")]
    Apart { path: String },
    #[error("the layer has too many {0}")]
    TooMany(&'static str),
    #[error("the layer cannot be an EROFS image")]
    Image(#[from] ErofsError),
    #[error("the layer is no EROFS image that can be mounted")]
    NoImage(#[source] berth_erofs::ImageError),
    #[error("nobody waits for the layer any more")]
    Cancelled,
    #[error("cannot start a thread that writes files")]
    Spawn(#[source] io::Error),
    #[error("a thread that writes files is gone")]
    Lost,
}

impl UnpackError {
    fn data(path: &[u8], source: io::Error) -> Self {
        Self::Data { path: String::from_utf8_lossy(path).into_owned(), source }
    }

    fn write(what: &'static str, path: &[u8], source: io::Error) -> Self {
        Self::Write { what, path: String::from_utf8_lossy(path).into_owned(), source }
    }
}

/// What takes the members of a layer.
trait Target {
    /// Takes one.
    fn entry(&mut self, entry: &Entry, data: &mut Data<'_, Chunks>) -> Result<(), UnpackError>;

    /// Takes the end of the layer.
    fn finish(self, layer: &Finished, sync: bool) -> Result<(), UnpackError>;
}

/// Unpacks a layer into `root` and tells what it was.
pub(crate) fn apply(layer: Layer<'_>, root: Root, whiteouts: Whiteouts) -> Result<Finished> {
    let name = layer.name;
    let unpacked = Unpack::new(root, whiteouts).and_then(|target| unpack(layer, target));
    unpacked.map_err(|error| refusal(name, error))
}

/// The error that a client gets.
fn refusal(name: &str, error: UnpackError) -> Error {
    let text = format!("cannot apply layer {name}");
    match error {
        UnpackError::Write { ref source, .. } => {
            let kind = Error::io(String::new(), kind(source)).kind();
            Error::new(kind, text).caused_by(error)
        }
        // Whoever gives the data may have broken off, in whatever it was to be written into.
        UnpackError::Image(ErofsError::Data { ref source, .. }) if source.kind() == BROKEN_OFF => {
            Error::unavailable(text).caused_by(error)
        }
        UnpackError::Image(ErofsError::Write(ref source) | ErofsError::Below { ref source, .. }) => {
            let kind = Error::io(String::new(), kind(source)).kind();
            Error::new(kind, text).caused_by(error)
        }
        UnpackError::Archive(TarError::Limit { .. })
        | UnpackError::TooMany(_)
        | UnpackError::Image(ErofsError::TooMany(_) | ErofsError::TooLarge) => {
            Error::resource_exhausted(text).caused_by(error)
        }
        UnpackError::Apart { .. } => Error::failed_precondition(text).caused_by(error),
        UnpackError::Cancelled => Error::cancelled(text).caused_by(error),
        UnpackError::Decode(PipelineError::Spawn(_)) | UnpackError::Spawn(_) => {
            Error::resource_exhausted(text).caused_by(error)
        }
        UnpackError::Decode(PipelineError::Decode(ref source)) | UnpackError::Data { ref source, .. }
            if source.kind() == BROKEN_OFF =>
        {
            Error::unavailable(text).caused_by(error)
        }
        UnpackError::Decode(PipelineError::Lost) | UnpackError::Lost => {
            Error::internal(text).caused_by(error)
        }
        UnpackError::Decode(_)
        | UnpackError::Archive(_)
        | UnpackError::Data { .. }
        | UnpackError::Image(_)
        | UnpackError::NoImage(_)
        | UnpackError::Whiteout { .. } => Error::invalid_argument(text).caused_by(error),
    }
}

/// The same kind of error, to be told apart from its text.
fn kind(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => error.kind().into(),
    }
}

fn unpack(layer: Layer<'_>, mut target: impl Target) -> Result<Finished, UnpackError> {
    let sync = layer.sync;
    let each = |entry: &Entry, reader: &mut Reader<Chunks>| target.entry(entry, &mut reader.data());
    let (finished, _) = walk(layer, |chunks| chunks, each)?;
    target.finish(&finished, sync)?;
    Ok(finished)
}

/// Reads a layer to its end, by way of what `through` makes of its bytes, and gives that back.
fn walk<R: BufRead>(
    layer: Layer<'_>,
    through: impl FnOnce(Chunks) -> R,
    mut each: impl FnMut(&Entry, &mut Reader<R>) -> Result<(), UnpackError>,
) -> Result<(Finished, R), UnpackError> {
    let limits = Limits::default();
    let (pipeline, chunks) = Pipeline::start(layer.source, limits)?;
    let mut reader = Reader::with_limits(through(chunks), limits);
    let unpacked = loop {
        match reader.next_entry() {
            Ok(Some(entry)) => {
                if !layer.wanted.is_so() {
                    return Err(UnpackError::Cancelled);
                }
                each(&entry, &mut reader)?;
            }
            Ok(None) => break reader.finish(),
            Err(error) => break Err(error),
        }
    };
    match unpacked {
        Ok(rest) => Ok((pipeline.finish()?, rest)),
        // The decoder's own error says more than that its stream broke off.
        Err(error @ TarError::Read { .. }) => {
            pipeline.finish()?;
            Err(UnpackError::Archive(error))
        }
        Err(error) => Err(UnpackError::Archive(error)),
    }
}
