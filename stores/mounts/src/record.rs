//! The record of an activation, a file in its folder.

use std::fs;
use std::io;
use std::path::Path;

use berth_types::{Activation, Error, LeaseId, Namespace, Result};
use serde::{Deserialize, Serialize};

use crate::roots::failed;

const NAME: &str = "record";

/// How far an activation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Progress {
    /// Begun, or being ended: a daemon that finds it so ends it.
    Unfinished,
    /// Everything is mounted.
    Made,
}

/// An activation as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) namespace: Namespace,
    pub(crate) lease: Option<LeaseId>,
    /// Which start of the machine it is of: no mount survives the next.
    pub(crate) boot: String,
    pub(crate) progress: Progress,
    pub(crate) activation: Activation,
}

impl Record {
    /// Writes it whole or not at all.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let (path, beside) = (folder.join(NAME), folder.join(format!("{NAME}.new")));
        let bytes = serde_json::to_vec(self)
            .map_err(|error| Error::internal(format!("cannot write {}", path.display())).caused_by(error))?;
        fs::write(&beside, bytes)
            .and_then(|()| fs::rename(&beside, &path))
            .map_err(|error| failed("write", &path, error))
    }

    /// Reads it; none where there is none, or none that can be read.
    pub(crate) fn read(folder: &Path) -> io::Result<Option<Self>> {
        match fs::read(folder.join(NAME)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Which start of the machine this is (random(4)).
pub(crate) fn boot() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(|error| failed("read", path, error))
}
