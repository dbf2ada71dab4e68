//! Versions of the specification, and what came with each.

use crate::document::{Document, DocumentError, Edits};

/// All of them, oldest first.
const KNOWN: [&str; 10] =
    ["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];

/// Refuses a version that is not known, and one that is too old for what the file has.
pub(crate) fn check(document: &Document) -> Result<(), DocumentError> {
    let said = document.cdi_version.strip_prefix('v').unwrap_or(&document.cdi_version);
    let place = |version: &str| KNOWN.iter().position(|known| *known == version);
    let said_at = place(said).ok_or_else(|| DocumentError::Version(document.cdi_version.clone()))?;
    let needed = needed(document);
    if place(needed).is_some_and(|at| at > said_at) {
        return Err(DocumentError::TooOld { said: said.to_owned(), needed });
    }
    Ok(())
}

/// The oldest that is in use: readers of CDI take no older one.
const OLDEST: &str = "0.3.0";

fn needed(document: &Document) -> &'static str {
    let Document { kind, annotations, devices, container_edits, .. } = document;
    let edits = || devices.iter().map(|device| &device.container_edits).chain([container_edits]);
    let any = |uses: fn(&Edits) -> bool| edits().any(uses);
    let has_new_rdt = |edits: &Edits| {
        edits.intel_rdt.as_ref().is_some_and(|rdt| !rdt.schemata.is_empty() || rdt.enable_monitoring)
    };
    if any(has_new_rdt) || any(|edits| !edits.net_devices.is_empty()) {
        return "1.1.0";
    }
    if any(|edits| edits.intel_rdt.is_some() || !edits.additional_gids.is_empty()) {
        return "0.7.0";
    }
    let has_dot = kind.split_once('/').is_some_and(|(_, class)| class.contains('.'));
    if has_dot || !annotations.is_empty() || devices.iter().any(|device| !device.annotations.is_empty()) {
        return "0.6.0";
    }
    let begins_with_digit =
        devices.iter().any(|device| device.name.starts_with(|c: char| c.is_ascii_digit()));
    if begins_with_digit || any(|edits| edits.device_nodes.iter().any(|node| !node.host_path.is_empty())) {
        return "0.5.0";
    }
    if any(|edits| edits.mounts.iter().any(|mount| !mount.kind.is_empty())) {
        return "0.4.0";
    }
    OLDEST
}
