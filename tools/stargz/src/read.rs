//! The table's bytes as a layer, in one pass.

use std::fmt;
use std::io::{self, BufReader, Read};

use berth_archive::{Decoder, DigestReader, Limits, Reader};
use berth_types::Digest;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::builder::Builder;
use crate::entry::Entry;
use crate::{Format, Layer, Position, StargzError};

/// Bytes of the longest table.
pub(crate) const DOCUMENT_LIMIT: u64 = 256 << 20;

/// The name of an eStargz table in its tar.
const NAME: &[u8] = b"stargz.index.json";

impl Layer {
    /// Reads the bytes at `position.table`. `expected` is the digest that the manifest gives of the table's JSON: it
    /// is what makes every digest in the table trustworthy.
    pub fn read(position: &Position, table: &[u8], expected: &Digest) -> Result<Self, StargzError> {
        let decoder = Decoder::new(table, Limits::default()).map_err(StargzError::Stream)?;
        let plain = BufReader::new(decoder);
        match position.format {
            Format::Zstd => document(position, plain, expected),
            Format::Gzip => {
                let mut archive = Reader::new(plain);
                let entry = archive.next_entry().map_err(StargzError::Archive)?;
                if entry.is_none_or(|entry| entry.path != NAME) {
                    return Err(StargzError::NoFooter);
                }
                document(position, archive.data(), expected)
            }
        }
    }

    /// Reads a table that is known by the digest of its compressed bytes, as those of zstd:chunked are.
    pub fn read_compressed(
        position: &Position,
        table: &[u8],
        expected: &Digest,
    ) -> Result<Self, StargzError> {
        let mut hasher = berth_archive::Hasher::new(expected.algorithm());
        hasher.update(table);
        let actual = hasher.finish();
        if actual != *expected {
            return Err(StargzError::Digest { expected: expected.clone(), actual });
        }
        let decoder = Decoder::new(table, Limits::default()).map_err(StargzError::Stream)?;
        parse(position, BufReader::new(decoder.take(DOCUMENT_LIMIT)))
    }
}

/// Reads the table and compares its digest at the end: until then it is input like any other.
fn document(position: &Position, json: impl Read, expected: &Digest) -> Result<Layer, StargzError> {
    let mut json = DigestReader::new(json.take(DOCUMENT_LIMIT), expected.algorithm());
    let layer = parse(position, BufReader::new(&mut json))?;
    io::copy(&mut json, &mut io::sink()).map_err(StargzError::Stream)?;
    let (actual, _) = json.finish();
    if actual != *expected {
        return Err(StargzError::Digest { expected: expected.clone(), actual });
    }
    Ok(layer)
}

fn parse(position: &Position, json: impl Read) -> Result<Layer, StargzError> {
    entries(json)?.finish(position)
}

/// Reads the entries of a table.
pub(crate) fn entries(json: impl Read) -> Result<Builder, StargzError> {
    let mut into = Into { builder: Builder::new(), refused: None };
    let mut deserializer = serde_json::Deserializer::from_reader(json);
    let done = Document(&mut into).deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match (into.refused, done) {
        (Some(refused), _) => Err(refused),
        (None, Err(error)) => Err(StargzError::Document(error)),
        (None, Ok(())) => Ok(into.builder),
    }
}

/// Where entries go, and why the first one that was refused was: serde's errors carry only text.
struct Into {
    builder: Builder,
    refused: Option<StargzError>,
}

struct Document<'a>(&'a mut Into);

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of contents")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "entries" => map.next_value_seed(Entries(&mut *self.0))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

struct Entries<'a>(&'a mut Into);

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(entry) = entries.next_element::<Entry>()? {
            if let Err(refused) = self.0.builder.add(&entry) {
                self.0.refused = Some(refused);
                return Err(serde::de::Error::custom("an entry was refused"));
            }
        }
        Ok(())
    }
}
