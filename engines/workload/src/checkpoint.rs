//! Checkpoints of a container, by name in a folder.
//!
//! The daemon's runtime writes and reads them (through CRIU); here is where they lie, and what is asked of it.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use berth_types::{Any, Container, ContainerId, Descriptor, Digest, Error, Result};
use sha2::{Digest as _, Sha256};

use crate::{Definition, TaskIo, Workload};

/// The file that every checkpoint of CRIU has.
const MARK: &str = "inventory.img";
/// What a runtime's checkpoint is of, as content.
const KIND: &str = "application/vnd.containerd.container.criu.checkpoint.criu.tar";
/// Where containerd's API takes the folder of a checkpoint that is no content.
const FOLDER: &str = "RestoreFromPath";

/// What becomes of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// It ends.
    Ends,
    /// It goes on.
    Runs,
}

/// The checkpoints of one container.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    container: String,
}

impl Checkpoints {
    /// All names, sorted.
    pub fn list(&self) -> Result<Vec<String>> {
        let failed = |error| Error::io(format!("cannot read {}", self.folder.display()), error);
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            done => done.map_err(failed)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            if entry.path().join(MARK).exists() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// The folder of one that is there.
    pub fn find(&self, name: &str) -> Result<PathBuf> {
        let folder = self.place(name)?;
        if folder.join(MARK).exists() {
            return Ok(folder);
        }
        Err(Error::not_found(format!("checkpoint {name} does not exist for container {}", self.container)))
    }

    /// Removes one.
    pub fn remove(&self, name: &str) -> Result<()> {
        let folder = self.find(name)?;
        fs::remove_dir_all(&folder)
            .map_err(|error| Error::io(format!("cannot remove checkpoint {}", folder.display()), error))
    }

    /// Makes the folder of a new one.
    fn make(&self, name: &str) -> Result<PathBuf> {
        let folder = self.place(name)?;
        let failed = |error| Error::io(format!("cannot make {}", folder.display()), error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(failed)?;
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Error::already_exists(
                format!("checkpoint with name {name} already exists for container {}", self.container),
            )),
            done => done.map(|()| folder.clone()).map_err(failed),
        }
    }

    fn place(&self, name: &str) -> Result<PathBuf> {
        let fine = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if name.len() > 128
            || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !name.chars().all(fine)
        {
            return Err(Error::invalid_argument(format!(
                "invalid checkpoint name {name:?}: use letters, digits and any of _.-, and a letter or digit first"
            )));
        }
        Ok(self.folder.join(name))
    }
}

impl Workload {
    /// The checkpoints of a container: in its own folder, or in one that somebody named.
    pub fn checkpoints(&self, id: &ContainerId, folder: Option<&Path>) -> Checkpoints {
        let own = || self.home.container(id).join("checkpoints");
        Checkpoints { folder: folder.map_or_else(own, Path::to_owned), container: id.to_string() }
    }

    /// Saves the processes of a container that runs. A checkpoint that could not be made leaves no folder.
    pub async fn checkpoint(
        &self,
        id: &ContainerId,
        checkpoints: &Checkpoints,
        name: &str,
        afterwards: Afterwards,
    ) -> Result<()> {
        let folder = checkpoints.make(name)?;
        let options = options(&folder, afterwards);
        let saved = self.catalog.tasks(&self.scope).checkpoint(id, None, Some(options)).await;
        if saved.is_err() {
            // The error is the news, not what it left.
            let _ = fs::remove_dir_all(&folder);
        }
        saved.map(drop)
    }

    /// Starts a container where a checkpoint left off, with its output in its log.
    pub async fn start_from(
        &self,
        container: &Container,
        definition: &Definition,
        folder: &Path,
    ) -> Result<u32> {
        self.make_task(container, definition, None, TaskIo::Log, Some(descriptor(folder))).await?;
        match self.start_task(&container.id, definition).await {
            Ok(pid) => Ok(pid),
            Err(error) => {
                self.drop_task(&container.id).await;
                Err(error)
            }
        }
    }
}

/// A checkpoint in a folder, as containerd's API has it.
fn descriptor(folder: &Path) -> Descriptor {
    // It names no content; the digest is that of nothing.
    let mut descriptor = Descriptor::new(KIND, Digest::sha256(Sha256::digest([]).into()), 0);
    descriptor.annotations.insert(FOLDER.to_owned(), folder.display().to_string());
    descriptor
}

/// `containerd.runc.v1.CheckpointOptions` with its fields 1, `exit`, and 8, `image_path`.
fn options(folder: &Path, afterwards: Afterwards) -> Any {
    let mut value = Vec::new();
    if afterwards == Afterwards::Ends {
        value.extend([1 << 3, 1]);
    }
    crate::task::put_text(&mut value, 8, &folder.display().to_string());
    Any::new("containerd.runc.v1.CheckpointOptions", value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_have_names_and_are_found_by_them() {
        let scratch = testkit::Scratch::new();
        let all = Checkpoints { folder: scratch.path("checkpoints"), container: "c".into() };
        assert_eq!(all.list().unwrap(), Vec::<String>::new());
        for name in ["", ".", "..", "a/b", "-a", "a b"] {
            assert!(all.make(name).is_err(), "{name:?}");
        }
        let folder = all.make("one").unwrap();
        assert!(all.find("one").unwrap_err().message().contains("does not exist"));
        fs::write(folder.join(MARK), "").unwrap();
        assert_eq!((all.find("one").unwrap(), all.list().unwrap()), (folder, vec!["one".to_owned()]));
        assert!(all.make("one").unwrap_err().message().contains("already exists"));
        all.remove("one").unwrap();
        assert!(all.remove("one").is_err());
    }

    #[test]
    fn options_are_the_message_that_shims_read() {
        let value = |afterwards| options(Path::new("/c"), afterwards).value;
        assert_eq!(value(Afterwards::Runs)[..], *b"\x42\x02/c");
        assert_eq!(value(Afterwards::Ends)[..], *b"\x08\x01\x42\x02/c");
    }
}
