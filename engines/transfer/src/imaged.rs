//! A layer made an EROFS image, which a kernel mounts as it is.

use std::fs::File;
use std::io::{self, BufReader, Seek, Write};
use std::sync::Arc;

use berth_archive::{Compression, Decoder, DigestReader, Encoder, Limits, Reader};
use berth_core::{BlobReader, ContentStore};
use berth_erofs::{Image, Layer, Remembered, uuid_of};
use berth_types::{Algorithm, Digest, IngestRef, Result};

use crate::recompress::{Remade, Sink, Source, Through, remake, unnamed};
use crate::tar::CHUNK;

/// The feature that an image's platform asks for (`os.features`) if its layers are such images.
pub(crate) const FEATURE: &str = "erofs";

/// Stores a layer as an image, compressed as a whole or not, and tells what a layer on top of it will find. One that does
/// not hold `diff_id` is refused.
pub(crate) async fn as_image(
    store: &dyn ContentStore,
    layer: &dyn BlobReader,
    diff_id: Option<&Digest>,
    (below, compression): (Remembered, Compression),
    reference: &IngestRef,
) -> Result<Remade<Remembered>> {
    let below = Arc::new(below);
    remake(store, layer, diff_id, reference, move |source, sink| imaged(source, sink, below, compression))
        .await
}

/// Writes the image into a file that has no name, for its first block is written last, and passes that on. Blocks.
fn imaged(
    source: Source,
    sink: Sink,
    below: Arc<Remembered>,
    compression: Compression,
) -> io::Result<Through<Remembered>> {
    let decoder = Decoder::new(BufReader::with_capacity(CHUNK, source), Limits::default())?;
    let plain = DigestReader::new(decoder, Algorithm::Sha256);
    let mut reader = Reader::new(BufReader::with_capacity(CHUNK, plain));
    // The snapshot says whose the root of an unpacked layer is; here it is root's.
    let mut layer = Layer::new(unnamed()?, Arc::clone(&below), (0, 0)).map_err(io::Error::other)?;
    while let Some(entry) = reader.next_entry().map_err(io::Error::other)? {
        layer.entry(&entry, &mut reader.data()).map_err(io::Error::other)?;
    }
    let (before, _) = reader.finish().map_err(io::Error::other)?.into_inner().finish();
    let (file, _) = layer.finish(uuid_of(before.hex())).map_err(io::Error::other)?;
    let mut below = Arc::unwrap_or_clone(below);
    below.add(&Image::open(file.try_clone()?).map_err(io::Error::other)?).map_err(io::Error::other)?;
    let after = pass_on(file, sink, compression)?;
    Ok(Through { before, after, more: below })
}

/// Passes a file on from its beginning and tells its digest.
fn pass_on(mut file: File, sink: Sink, compression: Compression) -> io::Result<Digest> {
    file.rewind()?;
    let mut image = DigestReader::new(BufReader::with_capacity(CHUNK, file), Algorithm::Sha256);
    let mut encoder = Encoder::new(sink, compression)?;
    io::copy(&mut image, &mut encoder)?;
    encoder.finish()?.flush()?;
    Ok(image.finish().0)
}
