//! Layers that need not be kept compressed: a recipe of a few percent of a blob, with which its exact bytes are made
//! again from the files that it was unpacked to.
//!
//! ```text
//!   make:    blob ─▶ [deflate] ─▶ tar ─▶ [archive] ◀─ tree        remake:  tree ─▶ [archive] ─▶ tar ─▶ [deflate] ─▶ blob
//!                        └────── recipe ─────┘                                └───── recipe ─────────────┘
//! ```
//! A compressor chooses among many ways to say the same. The recipe says which it chose, by the difference from what
//! zlib's and Go's searches would choose; so any stream can be made again, and one of theirs costs next to nothing.
//! Headers, paddings and whatever is not in the tree are in the recipe as they are.
//!
//! Plain functions over readers and writers: it opens no file by itself (a [`Tree`] does), and holds a window, two
//! segments of a block and zstd's own windows in memory, whatever the layer's size. Nothing is proven by a recipe: who
//! makes one remakes the layer once and compares the digest before the blob is let go.
//!
//! The differ calls it.

mod archive;
mod deflate;
mod error;
mod lanes;
mod number;
mod zstandard;

use std::io::{self, BufRead, BufReader, Read, Write};

use berth_archive::Compression;

pub use self::archive::Tree;
use self::deflate::{Dissect, rebuild};
pub use self::error::RemakeError;
use self::lanes::{Form, Lane, LaneWriter, Lanes, open};

/// Bytes that are read at a time.
const PART: usize = 64 << 10;

/// Writes the recipe of a layer's blob, of at most `limit` bytes, with a tree that has its files. Answers the length of
/// the recipe. Blocks.
pub fn make(
    mut blob: impl BufRead,
    tree: &mut dyn Tree,
    output: impl Write,
    limit: u64,
) -> Result<u64, RemakeError> {
    let form = match Compression::detect(blob.fill_buf()?) {
        Compression::Plain => Form::Plain,
        Compression::Gzip => Form::Gzip,
        Compression::Zstd => Form::Zstd,
    };
    let lanes = Lanes::new(output, form, limit)?;
    let archive = LaneWriter::new(&lanes, Lane::Archive)?;
    let archive = match form {
        Form::Plain => archive::split(blob, tree, archive)?.1,
        Form::Gzip => {
            let dissect = Dissect::new(blob, LaneWriter::new(&lanes, Lane::Compression)?);
            let (dissect, archive) = archive::split(dissect, tree, archive)?;
            dissect.into_lane().finish()?;
            archive
        }
        Form::Zstd => {
            let guess = zstandard::Guess::new(blob, LaneWriter::new(&lanes, Lane::Compression)?)?;
            let (guess, archive) = archive::split(guess, tree, archive)?;
            guess.into_lane().finish()?;
            archive
        }
    };
    archive.finish()?;
    let length = lanes.borrow_mut().finish()?;
    Ok(length)
}

/// Writes what two lanes that are not compressed tell of: what [`remake`] does with those of a gzip layer's recipe. It is
/// public for those who try the parsers with lanes that nobody wrote.
pub fn remake_lanes(
    archive: &[u8],
    compression: &[u8],
    tree: &mut dyn Tree,
    output: impl Write,
) -> Result<(), RemakeError> {
    let plain = BufReader::new(archive::Joined::new(archive, tree));
    Ok(rebuild(compression, plain, output).map(drop)?)
}

/// Writes the blob of a recipe, which is opened twice, from the tree. Whether it is the right one only its digest says.
/// Blocks.
pub fn remake<R: Read>(
    mut recipe: impl FnMut() -> io::Result<R>,
    tree: &mut dyn Tree,
    mut output: impl Write,
) -> Result<(), RemakeError> {
    let (form, lane) = open(recipe()?, Lane::Archive)?;
    let mut plain = BufReader::with_capacity(PART, archive::Joined::new(lane, tree));
    match form {
        Form::Plain => {
            io::copy(&mut plain, &mut output)?;
        }
        Form::Gzip => {
            let (_, lane) = open(recipe()?, Lane::Compression)?;
            rebuild(BufReader::with_capacity(PART, lane), plain, &mut output)?;
        }
        Form::Zstd => {
            let (_, lane) = open(recipe()?, Lane::Compression)?;
            zstandard::rebuild(lane, plain, &mut output)?;
        }
    }
    Ok(output.flush()?)
}
