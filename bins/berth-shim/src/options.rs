//! The options of a runc-like runtime: from the wire, and in the bundle for whoever clears away after us.

use std::path::Path;

use berth_proto as proto;
use berth_types::{Error, Result};
use prost::{Message as _, Name as _};
use proto::containerd::runc::v1::Options;
use serde::{Deserialize, Serialize};

/// Generic options, whose body is a runtime's own business; ours has none.
const GENERIC: &str = "runtimeoptions.v1.Options";
const FILE: &str = "options.json";
const RUNTIME: &str = "runtime";

/// The options within an `Any`; none when it is empty or of a type that is meant for another runtime.
pub(crate) fn from_any(any: &prost_types::Any) -> Result<Option<Options>> {
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    if name != Options::full_name() {
        return Ok(None);
    }
    Options::decode(any.value.as_slice())
        .map(Some)
        .map_err(|e| Error::invalid_argument("the runtime's options cannot be decoded").caused_by(e))
}

/// The same from an encoded `Any`.
pub(crate) fn from_any_bytes(bytes: &[u8]) -> Result<Option<Options>> {
    let any = prost_types::Any::decode(bytes)
        .map_err(|e| Error::invalid_argument("standard input is no runtime options").caused_by(e))?;
    from_any(&any)
}

/// The options of a task's creation. Types that nobody could mean for this shim are an error.
pub(crate) fn of_create(any: Option<&prost_types::Any>) -> Result<Options> {
    let Some(any) = any.filter(|any| !any.value.is_empty()) else { return Ok(Options::default()) };
    if let Some(options) = from_any(any)? {
        return Ok(options);
    }
    match any.type_url.rsplit('/').next() {
        Some(GENERIC) => Ok(Options::default()),
        _ => Err(Error::invalid_argument(format!(
            "runtime options of type {:?}: give {} instead",
            any.type_url,
            Options::full_name()
        ))),
    }
}

/// The file's form: containerd's names, so that either shim can clear away after the other.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Stored {
    #[serde(skip_serializing_if = "is_default")]
    no_pivot_root: bool,
    #[serde(skip_serializing_if = "is_default")]
    no_new_keyring: bool,
    #[serde(skip_serializing_if = "is_default")]
    shim_cgroup: String,
    #[serde(skip_serializing_if = "is_default")]
    io_uid: u32,
    #[serde(skip_serializing_if = "is_default")]
    io_gid: u32,
    #[serde(skip_serializing_if = "is_default")]
    binary_name: String,
    #[serde(skip_serializing_if = "is_default")]
    root: String,
    #[serde(skip_serializing_if = "is_default")]
    systemd_cgroup: bool,
    #[serde(skip_serializing_if = "is_default")]
    criu_image_path: String,
    #[serde(skip_serializing_if = "is_default")]
    criu_work_path: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Leaves the options in the bundle.
pub(crate) fn write(bundle: &Path, options: &Options) -> Result<()> {
    let options = options.clone();
    let stored = Stored {
        no_pivot_root: options.no_pivot_root,
        no_new_keyring: options.no_new_keyring,
        shim_cgroup: options.shim_cgroup,
        io_uid: options.io_uid,
        io_gid: options.io_gid,
        root: options.root,
        systemd_cgroup: options.systemd_cgroup,
        criu_image_path: options.criu_image_path,
        criu_work_path: options.criu_work_path,
        binary_name: options.binary_name,
    };
    let text = serde_json::to_vec(&stored).map_err(|e| Error::internal("options as JSON").caused_by(e))?;
    crate::bundle::write_private(&bundle.join(FILE), &text)?;
    crate::bundle::write_private(&bundle.join(RUNTIME), stored.binary_name.as_bytes())
}

/// The options that a bundle was left with; defaults when it never got so far.
pub(crate) fn read(bundle: &Path) -> Result<Options> {
    let mut stored = match std::fs::read(bundle.join(FILE)) {
        Ok(text) => serde_json::from_slice(&text).map_err(|e| {
            Error::data_loss(format!("{} is damaged", bundle.join(FILE).display())).caused_by(e)
        })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Stored::default(),
        Err(error) => return Err(Error::io(format!("cannot read {}", bundle.join(FILE).display()), error)),
    };
    if stored.binary_name.is_empty()
        && let Ok(name) = std::fs::read_to_string(bundle.join(RUNTIME))
    {
        stored.binary_name = name;
    }
    Ok(Options {
        no_pivot_root: stored.no_pivot_root,
        no_new_keyring: stored.no_new_keyring,
        shim_cgroup: stored.shim_cgroup,
        io_uid: stored.io_uid,
        io_gid: stored.io_gid,
        binary_name: stored.binary_name,
        root: stored.root,
        systemd_cgroup: stored.systemd_cgroup,
        criu_image_path: stored.criu_image_path,
        criu_work_path: stored.criu_work_path,
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_in_the_bundle() {
        let scratch = tempfile::tempdir().unwrap();
        assert_eq!(read(scratch.path()).unwrap(), Options::default());
        let options =
            Options { binary_name: "runc".into(), systemd_cgroup: true, io_uid: 7, ..Default::default() };
        write(scratch.path(), &options).unwrap();
        assert_eq!(read(scratch.path()).unwrap(), options);
        let text = std::fs::read_to_string(scratch.path().join("options.json")).unwrap();
        assert_eq!(text, r#"{"io_uid":7,"binary_name":"runc","systemd_cgroup":true}"#);
    }

    #[test]
    fn generic_options_are_accepted_and_strangers_refused() {
        let any = |name: &str| prost_types::Any { type_url: name.into(), value: vec![8, 1] };
        assert_eq!(of_create(Some(&any(GENERIC))).unwrap(), Options::default());
        assert!(of_create(Some(&any("a.B"))).is_err());
        assert!(
            of_create(Some(&any("type.googleapis.com/containerd.runc.v1.Options"))).unwrap().no_pivot_root
        );
    }
}
