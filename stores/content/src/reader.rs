//! An open blob.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use berth_core::BlobReader;
use berth_types::Result;
use bytes::Bytes;

use crate::blocking::blocking;
use crate::error::ContentError;

/// Reads by position, so any number of readers can share it. The file stays readable after its
/// blob is removed.
pub(crate) struct Reader {
    pub(crate) file: Arc<File>,
    pub(crate) size: u64,
    pub(crate) path: PathBuf,
}

#[async_trait]
impl BlobReader for Reader {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        read(&self.file, &self.path, offset, length.min(left)).await
    }

    fn file(&self) -> Option<&File> {
        Some(&self.file)
    }
}

/// Reads `length` bytes, or as many as there are.
pub(crate) async fn read(file: &Arc<File>, path: &Path, offset: u64, length: usize) -> Result<Bytes> {
    if length == 0 {
        return Ok(Bytes::new());
    }
    let (file, path) = (Arc::clone(file), path.to_owned());
    blocking(move || {
        let mut data = vec![0; length];
        let mut read = 0;
        while read < length {
            match file.read_at(&mut data[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ContentError::io("read", &path)(error)),
            }
        }
        data.truncate(read);
        Ok(data.into())
    })
    .await
}
