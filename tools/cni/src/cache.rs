//! What was added, on disk: libcni's files, `FOLDER/results/NETWORK-CONTAINER-INTERFACE`. A file without a result is
//! an intent: an ADD was begun, and whatever it has done a DEL takes back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_types::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What libcni calls this form.
const KIND: &str = "cniCacheV1";

/// One addition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Record {
    kind: String,
    #[serde(rename = "containerId")]
    pub(crate) container: String,
    /// The network's configuration, in base64.
    config: String,
    #[serde(rename = "ifName")]
    pub(crate) interface: String,
    #[serde(rename = "networkName")]
    pub(crate) network: String,
    #[serde(rename = "netns", skip_serializing_if = "String::is_empty")]
    pub(crate) namespace: String,
    #[serde(rename = "cniArgs", skip_serializing_if = "Option::is_none")]
    arguments: Option<Vec<(String, String)>>,
    #[serde(rename = "capabilityArgs", skip_serializing_if = "Option::is_none")]
    capabilities: Option<Map<String, Value>>,
    /// Whether it was made in process: then it is removed so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) in_process: bool,
    /// The result; none for an intent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<Value>,
}

impl Record {
    pub(crate) fn new(network: &str, config: &str, attachment: &crate::Attachment, interface: &str) -> Self {
        Self {
            kind: KIND.into(),
            container: attachment.container.clone(),
            config: STANDARD.encode(config),
            interface: interface.into(),
            network: network.into(),
            namespace: attachment.namespace.display().to_string(),
            arguments: Some(attachment.arguments.clone()),
            capabilities: Some(attachment.capabilities.clone()),
            in_process: false,
            result: None,
        }
    }

    /// The configuration with which it was added.
    pub(crate) fn config(&self) -> Option<String> {
        String::from_utf8(STANDARD.decode(&self.config).ok()?).ok()
    }

    /// For whom it was added.
    pub(crate) fn attachment(&self) -> crate::Attachment {
        crate::Attachment {
            container: self.container.clone(),
            namespace: self.namespace.clone().into(),
            arguments: self.arguments.clone().unwrap_or_default(),
            capabilities: self.capabilities.clone().unwrap_or_default(),
        }
    }
}

/// The folder of these files.
#[derive(Clone, Debug)]
pub(crate) struct Cache(PathBuf);

impl Cache {
    pub(crate) fn new(folder: &Path) -> Self {
        Self(folder.join("results"))
    }

    /// Puts a record in place in one step.
    pub(crate) fn write(&self, record: &Record) -> Result<()> {
        use std::io::Write;
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        let path = self.path(&record.network, &record.container, &record.interface);
        let partial = self.0.join(partial(&record.container, &record.interface));
        let put = || -> io::Result<()> {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
            let mut file =
                fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            fs::rename(&partial, &path)
        };
        put().map_err(|error| Error::io(format!("cannot write {}", path.display()), error))
    }

    /// The record of one addition.
    pub(crate) fn read(&self, network: &str, container: &str, interface: &str) -> Option<Record> {
        open(&self.path(network, container, interface))
    }

    /// Removes it; one that is gone is fine.
    pub(crate) fn remove(&self, network: &str, container: &str, interface: &str) -> Result<()> {
        let path = self.path(network, container, interface);
        // What a writer that was killed has left.
        let _ = fs::remove_file(self.0.join(partial(container, interface)));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("cannot remove {}", path.display()), error))
            }
            _ => Ok(()),
        }
    }

    /// Removes what writers that were killed have left for a container's devices, or for all but valid ones.
    pub(crate) fn sweep(&self, is_stale: &dyn Fn(&str) -> bool) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let of = name.strip_prefix('.').and_then(|name| name.strip_suffix(".partial"));
            if of.is_some_and(is_stale) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// The records of a container, or all, by name. What is no record is passed over: others may write here.
    pub(crate) fn of(&self, container: Option<&str>) -> Vec<Record> {
        let part = container.map(|container| format!("-{container}-")).unwrap_or_default();
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(&part)));
        paths.sort();
        let mut records: Vec<Record> = paths.iter().filter_map(|path| open(path)).collect();
        records.retain(|record| container.is_none_or(|container| record.container == container));
        records
    }

    fn path(&self, network: &str, container: &str, interface: &str) -> PathBuf {
        self.0.join(format!("{network}-{container}-{interface}"))
    }
}

/// The name of a record that is being written.
fn partial(container: &str, interface: &str) -> String {
    format!(".{container}-{interface}.partial")
}

fn open(path: &Path) -> Option<Record> {
    let record: Record = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let whole = record.kind == KIND
        && ![&record.container, &record.network, &record.interface].iter().any(|text| text.is_empty());
    whole.then_some(record)
}
