//! The archive of a checkpoint, from a folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use berth_archive::{Entry, Kind, Time, Writer};
use berth_core::BlobReader;
use berth_types::{Error, Result};

use super::failed;

/// Bytes that are copied at once.
const PIECE: usize = 1 << 20;

/// Writes a blob to a new file.
pub(super) async fn copy_blob(blob: &dyn BlobReader, path: &Path) -> Result<()> {
    let mut file = File::create_new(path).map_err(|error| failed(path, error))?;
    let mut offset = 0;
    while offset < blob.size() {
        let piece = blob.read_at(offset, PIECE).await?;
        if piece.is_empty() {
            return Err(Error::data_loss(format!("a blob ends before its {} bytes", blob.size())));
        }
        file.write_all(&piece).map_err(|error| failed(path, error))?;
        offset += piece.len() as u64;
    }
    Ok(())
}

/// Writes a folder as an archive for root alone, which is on disk then; what could not be written whole is not there.
/// Blocking.
pub(super) fn write(folder: &Path, location: &Path) -> Result<()> {
    let written = fill(folder, location);
    if written.is_err() {
        // The error is the news, not what it left.
        let _ = fs::remove_file(location);
    }
    written.map_err(|error| failed(location, error))
}

fn fill(folder: &Path, location: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    // The place is the kubelet's; a link there would lead elsewhere.
    let file = options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()).open(location)?;
    let mut writer = Writer::new(BufWriter::new(file));
    add(&mut writer, folder, "")?;
    let file = writer.finish().map_err(io::Error::other)?.into_inner()?;
    file.sync_all()
}

fn add<W: Write>(writer: &mut Writer<W>, folder: &Path, prefix: &str) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, metadata) = (entry.path(), entry.metadata()?);
        let mut name = prefix.as_bytes().to_vec();
        name.extend_from_slice(entry.file_name().as_bytes());
        let mode = metadata.mode() & 0o7777;
        let mtime = Time { seconds: metadata.mtime(), nanos: metadata.mtime_nsec().unsigned_abs() as u32 };
        if metadata.is_dir() {
            name.push(b'/');
            writer
                .append(&Entry { mtime, ..Entry::new(name.clone(), Kind::Directory, mode) })
                .map_err(io::Error::other)?;
            add(writer, &path, &String::from_utf8_lossy(&name))?;
        } else if metadata.is_file() {
            let size = metadata.len();
            writer
                .append(&Entry { mtime, size, ..Entry::new(name, Kind::File, mode) })
                .map_err(io::Error::other)?;
            io::copy(&mut File::open(&path)?, writer)?;
        }
        // CRIU also leaves a link to a parent checkpoint where there is one; here there is none.
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_the_folders_files_and_is_gone_when_it_fails() {
        let scratch = testkit::Scratch::new();
        let folder = scratch.path("folder");
        fs::create_dir_all(folder.join("checkpoint")).unwrap();
        fs::write(folder.join("checkpoint/inventory.img"), "images").unwrap();
        fs::write(folder.join("spec.dump"), "{}").unwrap();
        let location = scratch.path("saved.tar");
        write(&folder, &location).unwrap();
        assert_eq!(fs::metadata(&location).unwrap().mode() & 0o777, 0o600);
        let listed = std::process::Command::new("tar").arg("-tf").arg(&location).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&listed.stdout),
            "checkpoint/\ncheckpoint/inventory.img\nspec.dump\n"
        );
        fs::remove_dir_all(&folder).unwrap();
        assert!(write(&folder, &location).is_err() && !location.exists());
        fs::create_dir(&folder).unwrap();
        let elsewhere = scratch.path("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, &location).unwrap();
        assert!(write(&folder, &location).is_err() && !elsewhere.exists());
    }
}
