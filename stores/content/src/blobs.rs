//! Blobs that are there: finding, listing, removing, and putting into place.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use berth_types::{Algorithm, BlobInfo, Digest, Labels};

use crate::error::ContentError;
use crate::rounds::Rounds;

/// The folder of blobs.
#[derive(Debug)]
pub(crate) struct Blobs {
    folder: PathBuf,
    /// Flushes of blobs.
    bytes: Rounds,
    /// Flushes of the folder of those by SHA-256, which is nearly all.
    names: Rounds,
}

impl Blobs {
    pub(crate) fn new(root: &Path) -> Self {
        Self { folder: root.join("blobs"), bytes: Rounds::default(), names: Rounds::default() }
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.algorithm().name()).join(digest.hex())
    }

    pub(crate) fn info(&self, digest: &Digest) -> Result<BlobInfo, ContentError> {
        let path = self.path(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(describe(digest.clone(), &metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ContentError::NoBlob(digest.clone()))
            }
            Err(error) => Err(ContentError::io("look at", &path)(error)),
        }
    }

    pub(crate) fn open(&self, digest: &Digest) -> Result<(File, u64), ContentError> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ContentError::NoBlob(digest.clone()));
            }
            Err(error) => return Err(ContentError::io("open", &path)(error)),
        };
        let size = file.metadata().map_err(ContentError::io("look at", &path))?.len();
        Ok((file, size))
    }

    /// Every blob. Names that are no addresses are none of ours and left alone.
    pub(crate) fn list(&self) -> Result<Vec<BlobInfo>, ContentError> {
        let mut all = Vec::new();
        for algorithm in entries(&self.folder)? {
            let Some(name) = algorithm.file_name().to_str().map(ToOwned::to_owned) else { continue };
            for blob in entries(&algorithm.path())? {
                let Some(hex) = blob.file_name().to_str().map(ToOwned::to_owned) else { continue };
                let Ok(digest) = format!("{name}:{hex}").parse::<Digest>() else { continue };
                match blob.metadata() {
                    Ok(metadata) => all.push(describe(digest, &metadata)),
                    // Removed between the two calls.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(ContentError::io("look at", &blob.path())(error)),
                }
            }
        }
        Ok(all)
    }

    pub(crate) fn delete(&self, digest: &Digest) -> Result<(), ContentError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ContentError::NoBlob(digest.clone()))
            }
            Err(error) => Err(ContentError::io("remove", &path)(error)),
        }
    }

    /// Puts an ingest's file into its place, in this order: its bytes on disk → its place → its place on disk. Commits
    /// that come at the same time share both flushes. Blocks.
    pub(crate) fn publish(&self, file: &File, data: &Path, digest: &Digest) -> Result<(), ContentError> {
        let everything = || Ok(rustix::fs::syncfs(file)?);
        self.bytes.join(|| file.sync_all(), everything).map_err(ContentError::io("sync", data))?;
        let folder = self.place(data, digest)?;
        let sync = || File::open(&folder).and_then(|folder| folder.sync_all());
        let synced = match digest.algorithm() {
            Algorithm::Sha256 => self.names.join(sync, sync),
            _ => sync(),
        };
        synced.map_err(ContentError::io("sync the folder", &folder))
    }

    /// Renames a file to its place and answers the folder that it is in.
    fn place(&self, data: &Path, digest: &Digest) -> Result<PathBuf, ContentError> {
        let target = self.path(digest);
        let folder = self.folder.join(digest.algorithm().name());
        if let Err(error) = fs::rename(data, &target) {
            if error.kind() != io::ErrorKind::NotFound {
                return Err(ContentError::io("publish", &target)(error));
            }
            // The first blob of its kind, or one beside the first.
            fs::create_dir_all(&folder).map_err(ContentError::io("make", &folder))?;
            sync_folder(&self.folder)?;
            if let Some(root) = self.folder.parent() {
                sync_folder(root)?;
            }
            fs::rename(data, &target).map_err(ContentError::io("publish", &target))?;
        }
        Ok(folder)
    }
}

/// What is in a folder; nothing if it isn't there yet.
pub(crate) fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>, ContentError> {
    match fs::read_dir(folder) {
        Ok(entries) => {
            entries.collect::<io::Result<Vec<_>>>().map_err(ContentError::io("read the folder", folder))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(error) => Err(ContentError::io("read the folder", folder)(error)),
    }
}

fn sync_folder(folder: &Path) -> Result<(), ContentError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(ContentError::io("sync the folder", folder))
}

fn describe(digest: Digest, metadata: &Metadata) -> BlobInfo {
    let created_at = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    BlobInfo {
        digest,
        size: metadata.len(),
        created_at,
        updated_at: metadata.accessed().unwrap_or(created_at),
        labels: Labels::new(),
    }
}
