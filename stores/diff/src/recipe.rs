//! Recipes of layers, and layers of recipes.
//!
//! ```text
//!   make:    blob, tree ─▶ [thread] ─▶ parts ─▶ ingest ─▶ blob of the recipe ─▶ remade once, digest right? ─▶ answer
//!   remake:  recipe, tree ─▶ [thread] ─▶ parts ─▶ ingest ─▶ digest right? ─▶ blob
//! ```
//! Both are asked for as a comparison, see [`berth_core::recipe`].

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use berth_archive::Hasher;
use berth_core::{BlobReader, CommitRequest, CompareRequest, ContentStore, Ingest, IngestRequest, recipe};
use berth_remake::{RemakeError, Tree, make, remake};
use berth_sys::beneath::Root;
use berth_types::{
    Algorithm, Descriptor, Digest, Error, ErrorKind, FieldMask, IngestRef, Labels, Mount, Result,
};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::compare::{DEPTH, Parts, fresh_reference, send};
use crate::mounted;
use crate::source::{Source, Wanted};
use crate::walking::blocking;

/// The capability of a daemon's differ: it makes recipes, and layers of them.
pub const RECIPES: &str = "berth.recipes";

/// A recipe is of use if it has at most this part of the blob's bytes.
const PART: u64 = 4;

/// And so many more: next to nothing is as good.
const GRACE: u64 = 1024;

/// What a comparison asks for, where it is about recipes.
pub(crate) enum Wish {
    /// The recipe of a layer.
    Recipe(Digest),
    /// A layer, by its recipe.
    Layer { layer: Digest, recipe: Digest },
}

impl Wish {
    /// Reads the labels of a comparison.
    pub(crate) fn of(request: &CompareRequest) -> Result<Option<Self>> {
        let label = |name: &str| request.labels.get(name).map(|text| text.parse::<Digest>()).transpose();
        Ok(match (label(recipe::OF)?, label(recipe::BY)?) {
            (Some(layer), Some(recipe)) => Some(Self::Layer { layer, recipe }),
            (Some(layer), None) if request.media_type == recipe::MEDIA_TYPE => Some(Self::Recipe(layer)),
            _ => None,
        })
    }
}

/// Does what is asked for.
pub(crate) async fn grant(
    content: &dyn ContentStore,
    mut request: CompareRequest,
    wish: Wish,
) -> Result<Descriptor> {
    match wish {
        Wish::Recipe(layer) => {
            let made = make_recipe(content, request, &layer).await;
            made.map_err(|error| error.context(format!("cannot make a recipe of layer {layer}")))
        }
        Wish::Layer { layer, recipe: by } => {
            request.labels.remove(recipe::OF);
            request.labels.remove(recipe::BY);
            let made = make_layer(content, request, &layer, &by).await;
            made.map_err(|error| error.context(format!("cannot make layer {layer} again")))
        }
    }
}

async fn make_recipe(
    content: &dyn ContentStore,
    request: CompareRequest,
    layer: &Digest,
) -> Result<Descriptor> {
    let CompareRequest { upper, reference, labels, .. } = request;
    let blob = content.reader(layer).await?;
    let limit = blob.size() / PART + GRACE;
    let (wants, wanted) = Wanted::channel();
    let source = Source::new(blob, Handle::current(), wanted.clone());
    let tree = upper.clone();
    let work = move |output: &mut Output| {
        mounted::for_reading(&tree, |root| {
            make(source, &mut Folder(&root), output, limit).map(drop).map_err(refused)
        })
    };
    let new = New { reference, algorithm: Algorithm::Sha256, expected: None, labels };
    let (digest, size) = new.store(content, work).await?;
    // Nobody knows yet that it is any good.
    let again = Again::open(content, &digest, upper, wanted).await?;
    let algorithm = layer.algorithm();
    let verified = blocking(move || {
        let mut output = Output { hasher: Hasher::new(algorithm), size: 0, parts: None };
        again.write(&mut output)?;
        Ok(output.hasher.finish())
    });
    let verified = verified.await.and_then(|digest| same(&digest, layer));
    drop(wants);
    if let Err(error) = verified {
        content.delete(&digest).await.ok();
        return Err(error);
    }
    Ok(Descriptor::new(recipe::MEDIA_TYPE, digest, size))
}

async fn make_layer(
    content: &dyn ContentStore,
    request: CompareRequest,
    layer: &Digest,
    by: &Digest,
) -> Result<Descriptor> {
    let CompareRequest { upper, media_type, reference, labels, .. } = request;
    let (wants, wanted) = Wanted::channel();
    let again = Again::open(content, by, upper, wanted).await?;
    let new = New { reference, algorithm: layer.algorithm(), expected: Some(layer.clone()), labels };
    let (digest, size) = new.store(content, move |output| again.write(output)).await?;
    drop(wants);
    Ok(Descriptor::new(media_type, digest, size))
}

/// A layer that is to be made.
struct Again {
    recipe: Arc<dyn BlobReader>,
    runtime: Handle,
    wanted: Wanted,
    tree: Vec<Mount>,
}

impl Again {
    async fn open(
        content: &dyn ContentStore,
        recipe: &Digest,
        tree: Vec<Mount>,
        wanted: Wanted,
    ) -> Result<Self> {
        Ok(Self { recipe: content.reader(recipe).await?, runtime: Handle::current(), wanted, tree })
    }

    /// Blocks.
    fn write(self, output: &mut Output) -> Result<()> {
        let Self { recipe, runtime, wanted, tree } = self;
        mounted::for_reading(&tree, |root| {
            let open = || Ok(Source::new(Arc::clone(&recipe), runtime.clone(), wanted.clone()));
            remake(open, &mut Folder(&root), output).map_err(refused)
        })
    }
}

/// A blob that a thread writes.
struct New {
    reference: Option<IngestRef>,
    algorithm: Algorithm,
    expected: Option<Digest>,
    labels: Labels,
}

impl New {
    /// Stores what the work writes. After a failure nothing is left.
    async fn store(
        self,
        content: &dyn ContentStore,
        work: impl FnOnce(&mut Output) -> Result<()> + Send + 'static,
    ) -> Result<(Digest, u64)> {
        let Self { reference, algorithm, expected, labels } = self;
        let reference = reference.map_or_else(fresh_reference, Ok)?;
        let mut ingest = content.writer(IngestRequest::new(reference.clone())).await?;
        let (parts, mut packed) = mpsc::channel(DEPTH);
        let written = async {
            ingest.truncate(0).await?;
            let written = tokio::task::spawn_blocking(move || {
                let parts = Some(Parts::new(parts));
                let mut output = Output { hasher: Hasher::new(algorithm), size: 0, parts };
                work(&mut output)?;
                output.flush().map_err(|error| Error::io("cannot write it", error))?;
                Ok::<_, Error>((output.hasher.finish(), output.size))
            });
            let sent = send(&mut *ingest, &mut packed).await;
            // A thread whose parts nobody takes ends.
            drop(packed);
            let written = written.await;
            sent?;
            let lost = |error| Error::internal("work on a recipe ended early").caused_by(error);
            let (digest, size): (Digest, u64) = written.map_err(lost)??;
            if let Some(expected) = &expected {
                same(&digest, expected)?;
            }
            commit(content, &mut *ingest, &digest, size, labels).await?;
            Ok((digest, size))
        };
        let written = written.await;
        drop(ingest);
        if written.is_err()
            && let Err(error) = content.abort(&reference).await
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%reference, error = error.chain(), "cannot throw the unfinished blob away");
        }
        written
    }
}

/// Commits an ingest; a blob that is there already only gets the labels.
async fn commit(
    content: &dyn ContentStore,
    ingest: &mut dyn Ingest,
    digest: &Digest,
    size: u64,
    labels: Labels,
) -> Result<()> {
    let request = CommitRequest { size: Some(size), expected: Some(digest.clone()), labels: labels.clone() };
    match ingest.commit(request).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let mask = FieldMask::new(labels.keys().map(|key| format!("labels.{key}")));
            if labels.is_empty() { Ok(()) } else { content.update(digest, labels, &mask).await.map(drop) }
        }
        done => done.map(drop),
    }
}

fn same(made: &Digest, layer: &Digest) -> Result<()> {
    if made == layer {
        return Ok(());
    }
    Err(Error::failed_precondition(format!("what was made is {made} and not {layer}")))
}

fn refused(error: RemakeError) -> Error {
    match error {
        RemakeError::Io(error) => Error::io("cannot read or write it", error),
        RemakeError::Archive(error) => {
            Error::failed_precondition("its archive is malformed").caused_by(error)
        }
        error @ RemakeError::Recipe(_) => Error::data_loss(error.to_string()),
        error => Error::failed_precondition(error.to_string()),
    }
}

/// Hashes, and sends on where anybody takes it.
struct Output {
    hasher: Hasher,
    size: u64,
    parts: Option<Parts>,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = match &mut self.parts {
            Some(parts) => parts.write(bytes)?,
            None => bytes.len(),
        };
        self.hasher.update(&bytes[..length]);
        self.size += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.parts.as_mut().map_or(Ok(()), Write::flush)
    }
}

/// A tree of a snapshot.
struct Folder<'a>(&'a Root);

impl Tree for Folder<'_> {
    fn open(&mut self, path: &[u8]) -> io::Result<Option<Box<dyn Read>>> {
        let found = self.0.entry(Path::new(OsStr::from_bytes(path))).and_then(|entry| {
            let stat = entry.stat_if_present()?;
            let is_file =
                stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
            if is_file { entry.open(OFlags::RDONLY | OFlags::NONBLOCK).map(Some) } else { Ok(None) }
        });
        match found {
            Ok(file) => Ok(file.map(|file| Box::new(File::from(file)) as Box<dyn Read>)),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
                _ => Err(error),
            },
        }
    }
}
