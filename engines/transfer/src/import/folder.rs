//! A folder with an OCI layout, read as if it were an archive: its two documents, then the blobs that its images
//! need and no others.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use berth_oci::image::{Document, media};
use berth_types::{Descriptor, Error, ErrorKind, Result};

use super::LAYOUT_LIMIT;
use crate::graph::{self, Limits};
use crate::platforms::Platforms;
use crate::tar::{Member, Members, Sender, Stop};

/// Reads the folder in a thread.
pub(super) fn members(folder: PathBuf, platforms: Platforms, limits: Limits) -> Result<Members> {
    Members::read(move |sender| read(&folder, &platforms, limits, sender))
}

fn read(folder: &Path, platforms: &Platforms, limits: Limits, sender: &mut Sender) -> Result<(), Stop> {
    let layout = document(folder, "oci-layout", LAYOUT_LIMIT).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            let text = format!("{} holds no OCI image layout (no file oci-layout)", folder.display());
            Error::invalid_argument(text).caused_by(error)
        }
        _ => error,
    })?;
    let index = document(folder, "index.json", limits.document)?;
    for (path, data) in [("oci-layout", &layout), ("index.json", &index)] {
        sender.member(Member { path: path.to_owned(), link: None, size: data.len() as u64 })?;
        sender.data(&data[..], path)?;
    }
    let Document::Index(index) = Document::parse(media::OCI_INDEX, &index)? else { return Ok(()) };
    let mut seen = HashSet::new();
    let mut level = platforms.select_listed(index.manifests);
    for _ in 0..=limits.depth {
        let mut next = Vec::new();
        for descriptor in std::mem::take(&mut level) {
            if !seen.insert(descriptor.digest.clone()) || seen.len() > limits.nodes {
                continue;
            }
            blob(folder, &descriptor, sender)?;
            next.extend(children(folder, &descriptor, platforms, limits)?);
        }
        level = next;
    }
    Ok(())
}

fn path(descriptor: &Descriptor) -> String {
    format!("blobs/{}/{}", descriptor.digest.algorithm().name(), descriptor.digest.hex())
}

/// Sends a blob; one that is not there is missed later, if it is.
fn blob(folder: &Path, descriptor: &Descriptor, sender: &mut Sender) -> Result<(), Stop> {
    let path = path(descriptor);
    let Some((file, size)) = open(folder, &path)? else { return Ok(()) };
    sender.member(Member { path: path.clone(), link: None, size })?;
    sender.data(file, &path)
}

fn children(
    folder: &Path,
    descriptor: &Descriptor,
    platforms: &Platforms,
    limits: Limits,
) -> Result<Vec<Descriptor>> {
    if !graph::is_document(&descriptor.media_type) {
        return Ok(Vec::new());
    }
    let data = match document(folder, &path(descriptor), limits.document) {
        Ok(data) => data,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let document = Document::parse(&descriptor.media_type, &data)?;
    let is_index = matches!(document, Document::Index(_));
    let children = graph::children(document);
    Ok(if is_index { platforms.select(children) } else { children })
}

fn open(folder: &Path, path: &str) -> Result<Option<(File, u64)>> {
    let whole = folder.join(path);
    let failed = |source| Error::io(format!("cannot open {}", whole.display()), source);
    let file = match File::open(&whole) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Error::invalid_argument(format!("{} is not a file", whole.display())));
    }
    Ok(Some((file, metadata.len())))
}

fn document(folder: &Path, path: &str, limit: u64) -> Result<Vec<u8>> {
    let whole = folder.join(path);
    let Some((file, size)) = open(folder, path)? else {
        return Err(Error::not_found(format!("{} does not exist", whole.display())));
    };
    if size > limit {
        return Err(Error::resource_exhausted(format!(
            "{} has {size} bytes, more than the {limit} allowed here",
            whole.display()
        )));
    }
    let mut data = Vec::new();
    file.take(limit)
        .read_to_end(&mut data)
        .map_err(|source| Error::io(format!("cannot read {}", whole.display()), source))?;
    Ok(data)
}
