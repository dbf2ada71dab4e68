//! The cgroups around a container's first process and around the shim.

use std::path::PathBuf;

use berth_cgroup::{Cgroup, MOUNT, Metrics, is_unified};
use berth_proto::convert::pack;
use berth_types::{Any, Error, Result};

/// What was used so far, in containerd's message for this machine's version.
pub(crate) fn metrics(cgroup: &Cgroup) -> Result<Any> {
    let metrics = cgroup.metrics().map_err(|e| Error::io("cannot read the container's cgroup", e))?;
    Ok(match metrics {
        Metrics::V1(metrics) => pack(&*metrics),
        Metrics::V2(metrics) => pack(&*metrics),
    })
}

/// Puts a process into the cgroup at `path` below every hierarchy where it exists.
pub(crate) fn join(path: &str, pid: u32) -> Result<()> {
    let below = path.trim_start_matches('/');
    let mut joined = 0;
    let folders: Vec<PathBuf> = if is_unified() {
        vec![PathBuf::from(MOUNT)]
    } else {
        let entries = std::fs::read_dir(MOUNT).map_err(|e| Error::io(format!("cannot read {MOUNT}"), e))?;
        entries.flatten().map(|entry| entry.path()).collect()
    };
    for folder in folders {
        let file = folder.join(below).join("cgroup.procs");
        match std::fs::write(&file, pid.to_string()) {
            Ok(()) => joined += 1,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Error::io(format!("cannot put the shim into {}", file.display()), error));
            }
        }
    }
    if joined == 0 {
        return Err(Error::not_found(format!("the shim's cgroup {path} does not exist: make it first")));
    }
    Ok(())
}
