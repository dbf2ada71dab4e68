//! All devices that the folders describe.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use berth_types::{Error, Result};

use crate::document::{Document, DocumentError, Edits};
use crate::name::DeviceName;

/// The longest file, in bytes.
const MAX_SIZE: u64 = 4 << 20;

/// What the folders have.
pub(crate) struct Catalog {
    folders: Vec<PathBuf>,
    files: Vec<(PathBuf, Document)>,
    devices: BTreeMap<DeviceName, Found>,
    /// What could not be read, for whoever misses something.
    faults: Vec<String>,
}

/// Where a device is described.
struct Found {
    folder: usize,
    file: usize,
    device: usize,
    /// Another file of the same folder that describes it too.
    rival: Option<usize>,
}

/// Why a file does not count.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is no regular file")]
    Special,
    #[error("it has more than {MAX_SIZE} bytes")]
    TooLong,
    #[error(transparent)]
    Document(#[from] DocumentError),
}

impl Catalog {
    /// Reads the folders' files, those that can be read.
    pub(crate) fn read(folders: &[PathBuf]) -> Self {
        let mut catalog = Self {
            folders: folders.to_vec(),
            files: Vec::new(),
            devices: BTreeMap::new(),
            faults: Vec::new(),
        };
        for (number, folder) in folders.iter().enumerate() {
            match files_of(folder) {
                Ok(files) => files.into_iter().for_each(|path| catalog.take(number, path)),
                Err(error) => catalog.faults.push(format!("{}: {error}", folder.display())),
            }
        }
        catalog
    }

    fn take(&mut self, folder: usize, path: PathBuf) {
        let document = match read(&path) {
            Ok(document) => document,
            Err(error) => {
                tracing::warn!("the CDI specification {} does not count: {error}", path.display());
                return self.faults.push(format!("{}: {error}", path.display()));
            }
        };
        let file = self.files.len();
        for (device, described) in document.devices.iter().enumerate() {
            let found = Found { folder, file, device, rival: None };
            let name = DeviceName::of(&document.kind, &described.name);
            match self.devices.get_mut(&name) {
                Some(known) if known.folder == folder => known.rival = Some(file),
                _ => drop(self.devices.insert(name, found)),
            }
        }
        self.files.push((path, document));
    }

    /// What a container with these devices gets: once for each file, then for each device.
    pub(crate) fn edits_of(&self, wanted: &[DeviceName]) -> Result<Vec<&Edits>> {
        let (mut edits, mut files, mut given) = (Vec::new(), Vec::new(), Vec::new());
        for name in wanted {
            if given.contains(&name) {
                continue;
            }
            given.push(name);
            let found = self.find(name)?;
            let document = &self.files[found.file].1;
            if !files.contains(&found.file) {
                files.push(found.file);
                edits.push(&document.container_edits);
            }
            edits.push(&document.devices[found.device].container_edits);
        }
        Ok(edits)
    }

    fn find(&self, name: &DeviceName) -> Result<&Found> {
        let found = self.devices.get(name).ok_or_else(|| self.missing(name))?;
        if let Some(rival) = found.rival {
            let path = |file: usize| self.files[file].0.display();
            return Err(Error::failed_precondition(format!(
                "the CDI device {name} is described by both {} and {}: one of them has to go",
                path(found.file),
                path(rival)
            )));
        }
        Ok(found)
    }

    fn missing(&self, name: &DeviceName) -> Error {
        let folders: Vec<String> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        let mut text =
            format!("the CDI device {name} is not there: no file in {} describes it", folders.join(", "));
        let others: Vec<&str> =
            self.devices.keys().filter(|one| one.kind() == name.kind()).map(DeviceName::name).collect();
        if !others.is_empty() {
            text.push_str(&format!("; of {} there are {}", name.kind(), others.join(", ")));
        }
        if !self.faults.is_empty() {
            text.push_str(&format!("; not read were {}", self.faults.join("; ")));
        }
        Error::not_found(text)
    }
}

/// The specifications in a folder, by name; none where there is no folder.
fn files_of(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let is_one = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "json" || extension == "yaml") && !path.is_dir()
    };
    let mut paths: Vec<PathBuf> = paths?.into_iter().filter(is_one).collect();
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<Document, FileError> {
    // A fifo would keep whoever opens it waiting.
    if !fs::metadata(path)?.is_file() {
        return Err(FileError::Special);
    }
    let mut text = String::new();
    File::open(path)?.take(MAX_SIZE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_SIZE {
        return Err(FileError::TooLong);
    }
    Ok(parse(path, &text)?)
}

/// Reads the contents of a file, in the form that its name says.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Document, DocumentError> {
    Document::parse(text, path.extension().is_some_and(|extension| extension == "json"))
}
