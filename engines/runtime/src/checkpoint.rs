//! Checkpoints as content: a tar of the files that a runtime wrote, and the specification beside it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use berth_archive::{Entry, Kind, Reader, Writer, clean};
use berth_core::{CommitRequest, ContentStore, IngestRequest};
use berth_types::{Descriptor, Error, ErrorKind, IngestRef, Result};
use bytes::Bytes;

use crate::blocking::blocking;

/// A tar of what CRIU wrote.
pub(crate) const IMAGE: &str = "application/vnd.containerd.container.criu.checkpoint.criu.tar";
/// The container's specification, as `google.protobuf.Any`.
pub(crate) const CONFIG: &str = "application/vnd.containerd.container.checkpoint.config.v1+proto";

const CHUNK: usize = 1 << 20;

/// Makes `folder` and writes the files of a checkpoint into it.
pub(crate) async fn unpack(content: &dyn ContentStore, from: &Descriptor, folder: &Path) -> Result<()> {
    if from.media_type != IMAGE {
        return Err(Error::invalid_argument(format!("unsupported checkpoint type {:?}", from.media_type)));
    }
    let blob = content.reader(&from.digest).await?;
    let archive = folder.with_extension("tar");
    let mut offset = 0;
    let file = create(&archive)?;
    loop {
        let chunk = blob.read_at(offset, CHUNK).await?;
        if chunk.is_empty() {
            break;
        }
        file.write_all_at(&chunk, offset).map_err(|source| failed(&archive, source))?;
        offset += chunk.len() as u64;
    }
    let folder = folder.to_owned();
    blocking(move || {
        let unpacked = File::open(&archive).and_then(|file| extract(io::BufReader::new(file), &folder));
        let _ = fs::remove_file(&archive);
        unpacked
            .map_err(|source| Error::invalid_argument("the checkpoint cannot be unpacked").caused_by(source))
    })
    .await
}

/// Only folders and files, below a folder in which nobody else writes: there are no links to follow.
fn extract(archive: impl io::BufRead, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut reader = Reader::new(archive);
    while let Some(entry) = reader.next_entry().map_err(io::Error::other)? {
        let path = folder.join(PathBuf::from(std::ffi::OsString::from_vec(clean(&entry.path))));
        match entry.kind {
            Kind::Directory => fs::create_dir_all(&path)?,
            Kind::File => {
                let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
                io::copy(&mut reader.data(), &mut file)?;
            }
            _ => return Err(io::Error::other("a checkpoint has only folders and files")),
        }
    }
    Ok(())
}

/// Stores the files of a checkpoint and describes them.
pub(crate) async fn store(content: &dyn ContentStore, folder: &Path) -> Result<Descriptor> {
    let archive = folder.with_extension("tar");
    let (from, to) = (folder.to_owned(), archive.clone());
    let size = blocking(move || {
        let failed = |source: io::Error| Error::unknown("cannot pack the checkpoint").caused_by(source);
        let mut writer = Writer::new(io::BufWriter::new(create(&to)?));
        pack(&mut writer, &from, &mut Vec::new()).map_err(failed)?;
        let mut file = writer.finish().map_err(io::Error::other).map_err(failed)?;
        file.flush().map_err(|source| Error::io("cannot pack the checkpoint", source))?;
        Ok(file.get_ref().metadata().map(|found| found.len()).unwrap_or_default())
    })
    .await?;
    let stored = ingest_file(content, IMAGE, &archive, size).await;
    let _ = fs::remove_file(&archive);
    stored
}

fn pack<W: Write>(writer: &mut Writer<W>, folder: &Path, name: &mut Vec<u8>) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder).and_then(Iterator::collect)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for found in entries {
        let length = name.len();
        name.extend_from_slice(found.file_name().as_bytes());
        let metadata = found.metadata()?;
        if metadata.is_dir() {
            writer
                .append(&Entry::new(name.clone(), Kind::Directory, metadata.mode() & 0o7777))
                .map_err(io::Error::other)?;
            name.push(b'/');
            pack(writer, &found.path(), name)?;
        } else if metadata.is_file() {
            let mut entry = Entry::new(name.clone(), Kind::File, metadata.mode() & 0o7777);
            entry.size = metadata.len();
            writer.append(&entry).map_err(io::Error::other)?;
            let mut file = File::open(found.path())?;
            io::copy(&mut file, writer)?;
        }
        name.truncate(length);
    }
    Ok(())
}

async fn ingest_file(
    content: &dyn ContentStore,
    media_type: &str,
    path: &Path,
    size: u64,
) -> Result<Descriptor> {
    let file = File::open(path).map_err(|source| failed(path, source))?;
    let reference: IngestRef = path.display().to_string().parse()?;
    let mut ingest = content.writer(IngestRequest { reference, total: size, expected: None }).await?;
    ingest.truncate(0).await?;
    let mut digest = berth_archive::Hasher::default();
    let mut offset = 0;
    while offset < size {
        let mut chunk = vec![0; CHUNK.min((size - offset) as usize)];
        file.read_exact_at(&mut chunk, offset).map_err(|source| failed(path, source))?;
        digest.update(&chunk);
        let length = chunk.len() as u64;
        ingest.write(offset, Bytes::from(chunk)).await?;
        offset += length;
    }
    let digest = digest.finish();
    let commit =
        CommitRequest { size: Some(size), expected: Some(digest.clone()), ..CommitRequest::default() };
    match ingest.commit(commit).await {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    Ok(Descriptor::new(media_type, digest, size))
}

/// Stores a document.
pub(crate) async fn store_config(
    content: &dyn ContentStore,
    bytes: Vec<u8>,
    folder: &Path,
) -> Result<Descriptor> {
    let path = folder.with_extension("spec");
    let size = bytes.len() as u64;
    create(&path)?.write_all_at(&bytes, 0).map_err(|source| failed(&path, source))?;
    let stored = ingest_file(content, CONFIG, &path, size).await;
    let _ = fs::remove_file(&path);
    stored
}

fn create(path: &Path) -> Result<File> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path);
    opened.map_err(|source| failed(path, source))
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::io(format!("cannot read or write {}", path.display()), source)
}
