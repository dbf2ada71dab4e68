//! Intel Resource Director Technology: a class of service in the resctrl filesystem.

use std::fs;
use std::path::{Path, PathBuf};

use berth_oci::runtime::Spec;

use crate::error::{Doing as _, Error, Result};

const MOUNT: &str = "/sys/fs/resctrl";

/// Puts process `pid` into the class of service that the configuration asks for. Returns the class'
/// folder when it was made for this container alone.
pub(super) fn join(spec: &Spec, id: &str, pid: i32) -> Result<Option<PathBuf>> {
    let Some(wanted) = spec.linux.as_ref().and_then(|l| l.intel_rdt.as_ref()) else { return Ok(None) };
    let root = Path::new(MOUNT);
    if !root.join("schemata").exists() {
        let what = format!("intelRdt is asked for, but no resctrl filesystem is mounted at {MOUNT}");
        return Err(Error::Unsupported { what });
    }
    let name = if wanted.clos_id.is_empty() { id } else { &wanted.clos_id };
    if name == "." || name == ".." || name.contains('/') {
        return Err(Error::Config { what: format!("intelRdt.closID {name:?} is no name") });
    }
    let group = root.join(name);
    let lines: Vec<&String> = [&wanted.l3_cache_schema, &wanted.mem_bw_schema]
        .into_iter()
        .filter(|line| !line.is_empty())
        .chain(&wanted.schemata)
        .collect();
    let existed = group.is_dir();
    if !existed {
        if !wanted.clos_id.is_empty() && lines.is_empty() {
            return Err(Error::Config { what: format!("intelRdt class {name:?} does not exist") });
        }
        fs::create_dir(&group).doing(|| format!("cannot make {}", group.display()))?;
    }
    let set = || -> std::io::Result<()> {
        for line in &lines {
            fs::write(group.join("schemata"), format!("{line}\n"))?;
        }
        fs::write(group.join("tasks"), pid.to_string())
    };
    let made = !existed && wanted.clos_id.is_empty();
    set()
        .inspect_err(|_| {
            if made {
                let _ = fs::remove_dir(&group);
            }
        })
        .doing(|| format!("cannot set up {}", group.display()))?;
    Ok(made.then_some(group))
}
