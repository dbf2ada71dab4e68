//! What may be depended on: licences that fit Apache-2.0, one registry, and a shim that carries little.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::step;

/// Licences that a crate may have; one of those that it offers is enough.
const LICENCES: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// The most crates that the shim may be made of: its memory is paid once a pod.
const SHIM_BUDGET: usize = 45;

/// What a shim must never carry.
const NOT_IN_SHIM: [&str; 6] = ["tokio", "tonic", "hyper", "reqwest", "redb", "clap"];

/// Fails with every crate that is against the policy.
pub(crate) fn check(root: &Path) -> Result<()> {
    let text = step::output(
        Command::new("cargo").args(["metadata", "--format-version=1", "--locked"]).current_dir(root),
    )?;
    let metadata: Value = serde_json::from_slice(&text).context("cargo metadata is not JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let mut wrong: Vec<String> = packages.iter().filter_map(objection).collect();
    let shim = carried(root, "berth-shim")?;
    for name in NOT_IN_SHIM.into_iter().filter(|name| shim.contains(*name)) {
        wrong.push(format!("the shim carries {name}"));
    }
    if shim.len() > SHIM_BUDGET {
        wrong.push(format!("the shim is made of {} crates, more than {SHIM_BUDGET}", shim.len()));
    }
    if !wrong.is_empty() {
        bail!("{} dependencies against the policy:\n  {}", wrong.len(), wrong.join("\n  "));
    }
    eprintln!("dependencies: {} crates, {} of them in the shim", packages.len(), shim.len());
    Ok(())
}

/// What is wrong with one crate's source or licence, if anything is.
fn objection(package: &Value) -> Option<String> {
    let name = package["name"].as_str().unwrap_or("a crate without a name");
    if let Some(source) = package["source"].as_str()
        && !source.starts_with("registry+")
    {
        return Some(format!("{name} comes from {source}, not from the registry"));
    }
    let licence = package["license"].as_str().unwrap_or_default();
    (!is_allowed(licence)).then(|| format!("{name} has the licence {licence:?}"))
}

/// Reads an SPDX expression of the forms that crates use: alternatives by OR or `/`, all of several by AND.
fn is_allowed(licence: &str) -> bool {
    let flat = licence.replace(['(', ')'], "").replace('/', " OR ");
    flat.split(" AND ").all(|part| part.split(" OR ").any(|offered| LICENCES.contains(&offered.trim())))
}

/// The crates that a binary of `name` is made of: no build scripts' crates, no tests'.
fn carried(root: &Path, name: &str) -> Result<BTreeSet<String>> {
    let mut tree = Command::new("cargo");
    tree.args(["tree", "--locked", "--package", name, "--edges", "normal,no-proc-macro"]);
    let text = step::output(tree.args(["--prefix", "none", "--format", "{p}"]).current_dir(root))?;
    let text = String::from_utf8_lossy(&text);
    Ok(text
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_offered_licence_is_enough_but_all_demanded_ones_count() {
        for fine in ["MIT", "MIT OR GPL-3.0", "(MIT OR Apache-2.0) AND Unicode-3.0", "Apache-2.0/MIT"] {
            assert!(is_allowed(fine), "{fine}");
        }
        for wrong in ["", "GPL-3.0", "MIT AND GPL-2.0"] {
            assert!(!is_allowed(wrong), "{wrong}");
        }
    }
}
