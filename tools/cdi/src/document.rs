//! The files of vendors, as they stand (CDI, "CDI JSON Specification").

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de};

use crate::name::{check_kind, check_name};
use crate::version;

/// What is wrong with a file's contents.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error("it is no YAML of a CDI specification: {0}")]
    Yaml(#[from] yaml_serde::Error),
    #[error("it is no JSON of a CDI specification: {0}")]
    Json(#[from] serde_json::Error),
    #[error("its cdiVersion {0:?} is none of 0.1.0 to 1.1.0")]
    Version(String),
    #[error("it says cdiVersion {said} and uses what came with {needed}")]
    TooOld { said: String, needed: &'static str },
    #[error("its kind {kind:?} is none: {why}")]
    Kind { kind: String, why: &'static str },
    #[error("its device {name:?} cannot be called that: {why}")]
    Name { name: String, why: &'static str },
    #[error("it has no devices")]
    Empty,
    #[error("it describes the device {0:?} twice")]
    Twice(String),
    #[error("its device {0:?} changes nothing")]
    Idle(String),
    #[error("{what} is not valid: {why}")]
    Edit { what: String, why: &'static str },
}

/// A file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Document {
    pub(crate) cdi_version: String,
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) devices: Vec<Device>,
    /// What every container with any of the devices gets.
    #[serde(default)]
    pub(crate) container_edits: Edits,
}

/// A device.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Device {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) container_edits: Edits,
}

/// What a container gets.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Edits {
    pub(crate) env: Vec<String>,
    pub(crate) device_nodes: Vec<DeviceNode>,
    pub(crate) net_devices: Vec<NetDevice>,
    pub(crate) hooks: Vec<Hook>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) intel_rdt: Option<IntelRdt>,
    #[serde(alias = "additionalGIDs")]
    pub(crate) additional_gids: Vec<u32>,
}

/// A device node. What is left out is the host's.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct DeviceNode {
    pub(crate) path: String,
    pub(crate) host_path: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) major: i64,
    pub(crate) minor: i64,
    #[serde(deserialize_with = "mode")]
    pub(crate) file_mode: Option<u32>,
    pub(crate) permissions: String,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

/// A network device of the host.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct NetDevice {
    pub(crate) host_interface_name: String,
    pub(crate) name: String,
}

/// A mount.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Mount {
    pub(crate) host_path: String,
    pub(crate) container_path: String,
    pub(crate) options: Vec<String>,
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

/// A hook.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Hook {
    pub(crate) hook_name: String,
    pub(crate) path: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) timeout: Option<i64>,
}

/// Settings of resctrl.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct IntelRdt {
    #[serde(rename = "closID")]
    pub(crate) clos_id: String,
    pub(crate) l3_cache_schema: String,
    pub(crate) mem_bw_schema: String,
    pub(crate) schemata: Vec<String>,
    pub(crate) enable_monitoring: bool,
}

/// YAML of before 1.2 writes octal numbers with a zero, which this reader takes for text.
fn mode<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Mode {
        Number(u32),
        Text(String),
    }
    match Option::<Mode>::deserialize(from)? {
        None => Ok(None),
        Some(Mode::Number(mode)) => Ok(Some(mode)),
        Some(Mode::Text(text)) => u32::from_str_radix(&text, 8).map(Some).map_err(de::Error::custom),
    }
}

impl Document {
    /// Reads a file's contents, and refuses what is not valid in them.
    pub(crate) fn parse(text: &str, is_json: bool) -> Result<Self, DocumentError> {
        let document: Self = if is_json { serde_json::from_str(text)? } else { yaml_serde::from_str(text)? };
        document.check()?;
        Ok(document)
    }

    fn check(&self) -> Result<(), DocumentError> {
        version::check(self)?;
        check_kind(&self.kind).map_err(|why| DocumentError::Kind { kind: self.kind.clone(), why })?;
        self.container_edits.check()?;
        if self.devices.is_empty() {
            return Err(DocumentError::Empty);
        }
        let mut names: Vec<&str> = Vec::new();
        for Device { name, container_edits, .. } in &self.devices {
            check_name(name).map_err(|why| DocumentError::Name { name: name.clone(), why })?;
            if names.contains(&name.as_str()) {
                return Err(DocumentError::Twice(name.clone()));
            }
            names.push(name);
            if *container_edits == Edits::default() {
                return Err(DocumentError::Idle(name.clone()));
            }
            container_edits.check()?;
        }
        Ok(())
    }
}

impl Edits {
    fn check(&self) -> Result<(), DocumentError> {
        let wrong = |what: String, why| Err(DocumentError::Edit { what, why });
        check_env(&self.env)?;
        for node in &self.device_nodes {
            let what = || format!("device node {:?}", node.path);
            if node.path.is_empty() {
                return wrong(what(), "it has no path");
            }
            if !matches!(node.kind.as_str(), "" | "b" | "c" | "u" | "p") {
                return wrong(what(), "its type is none of b, c, u and p");
            }
            if !node.permissions.chars().all(|letter| "rwm".contains(letter)) {
                return wrong(what(), "its permissions are not letters of rwm");
            }
        }
        for Hook { hook_name, path, env, .. } in &self.hooks {
            let known =
                ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
            if !known.contains(&hook_name.as_str()) {
                return wrong(format!("hook {hook_name:?}"), "there is no such hook");
            }
            if path.is_empty() {
                return wrong(format!("hook {hook_name:?}"), "it has no path");
            }
            check_env(env)?;
        }
        if self.mounts.iter().any(|mount| mount.host_path.is_empty() || mount.container_path.is_empty()) {
            return wrong("a mount".to_owned(), "it needs hostPath and containerPath");
        }
        if let Some(rdt) = &self.intel_rdt {
            let id = rdt.clos_id.as_str();
            if id != "/" && (id.len() >= 4096 || id == "." || id == ".." || id.contains(['/', '\n'])) {
                return wrong(format!("closID {id:?}"), "it is no name of a folder");
            }
        }
        self.check_net_devices()
    }

    fn check_net_devices(&self) -> Result<(), DocumentError> {
        for (at, device) in self.net_devices.iter().enumerate() {
            let NetDevice { host_interface_name: host, name } = device;
            let wrong = |why| Err(DocumentError::Edit { what: format!("network device {host:?}"), why });
            if host.is_empty() || name.is_empty() {
                return wrong("it needs hostInterfaceName and name");
            }
            let before = &self.net_devices[..at];
            if before.iter().any(|other| other.host_interface_name == *host || other.name == *name) {
                return wrong("it, or its name in the container, is there twice");
            }
        }
        Ok(())
    }
}

fn check_env(env: &[String]) -> Result<(), DocumentError> {
    match env.iter().find(|line| line.find('=').is_none_or(|at| at == 0)) {
        Some(line) => Err(DocumentError::Edit {
            what: format!("environment variable {line:?}"),
            why: "write NAME=VALUE",
        }),
        None => Ok(()),
    }
}
