//! The Container Device Interface 1.1: devices that vendors describe in files, by names such as `vendor.com/gpu=0`.
//!
//! A file says what a container needs to use a device: device nodes, mounts, environment, hooks, groups, network devices.
//! [`inject`] finds the devices in the configured folders and writes that into a container's document. Folders that come
//! later have precedence; of two files in the same folder that describe a device neither counts, and the error names both.
//!
//! The files are read anew each time: devices come and go, and only containers that ask for some pay for it. A file that
//! cannot be read takes nothing from the others; what is wrong with it is said when a device is missed. Nothing here
//! opens a device or runs a hook. Everything blocks.
//!
//! Used by the CRI's face, for requests and for plugins of NRI, and by the engine of Docker's containers.

mod catalog;
mod document;
mod edits;
mod name;
mod version;

use std::path::{Path, PathBuf};

use berth_oci::runtime::Spec;
use berth_types::{Error, Result};

pub use name::{DeviceName, NameError, of_annotations};

use catalog::Catalog;

/// The usual folders: what an administrator wrote, and what daemons of devices write.
pub const FOLDERS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Gives a container the devices, each once however often it is named. NotFound names what is missing and says why;
/// nothing has changed then.
pub fn inject(spec: &mut Spec, folders: &[PathBuf], wanted: &[DeviceName]) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let catalog = Catalog::read(folders);
    let mut changed = spec.clone();
    for edits in catalog.edits_of(wanted)? {
        edits::apply(&mut changed, edits).map_err(|error| {
            Error::failed_precondition(error.to_string())
                .context("a CDI device cannot be given to the container")
        })?;
    }
    *spec = changed;
    Ok(())
}

/// The devices that the contents of one file describe, and the container's document with all of them: what [`inject`] does
/// with a file that it has found, for whoever has the contents alone. The file's name says whether they are JSON.
pub fn inject_file(spec: &mut Spec, name: &Path, contents: &str) -> Result<Vec<DeviceName>> {
    let wrong = |why: String| Error::invalid_argument(format!("{}: {why}", name.display()));
    let document = catalog::parse(name, contents).map_err(|error| wrong(error.to_string()))?;
    let of_devices = document.devices.iter().map(|device| &device.container_edits);
    for edits in std::iter::once(&document.container_edits).chain(of_devices) {
        edits::apply(spec, edits).map_err(|error| wrong(error.to_string()))?;
    }
    Ok(document.devices.iter().map(|device| DeviceName::of(&document.kind, &device.name)).collect())
}

#[cfg(test)]
mod tests;
