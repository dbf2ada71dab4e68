//! The cgroups of a container's first process: what was used in them, and news of memory running out.
//!
//! Found through `/proc/PID/cgroup`, so whoever made the container does not matter.

mod oom;
mod read;
mod v1;
mod v2;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use berth_proto::convert::pack;
use berth_types::{Any, Error, Result};

pub(crate) use self::oom::OomWatch;

const MOUNT: &str = "/sys/fs/cgroup";

/// Where a container is accounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cgroup {
    /// A folder for each controller.
    V1(BTreeMap<String, PathBuf>),
    /// One folder.
    V2(PathBuf),
}

impl Cgroup {
    /// The cgroups of a process.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/cgroup");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(format!("cannot read {path}"), e))?;
        Self::parse(&text, is_unified(), |name| Path::new(MOUNT).join(name))
            .ok_or_else(|| Error::unknown(format!("process {pid} is in no cgroup")))
    }

    /// Reads the lines `ID:CONTROLLERS:PATH`.
    fn parse(text: &str, unified: bool, folder: impl Fn(&str) -> PathBuf) -> Option<Self> {
        let mut controllers = BTreeMap::new();
        for line in text.lines() {
            let (names, path) = line.split_once(':')?.1.split_once(':')?;
            let path = path.trim_start_matches('/');
            if unified && names.is_empty() {
                return Some(Self::V2(folder("").join(path)));
            }
            for name in names.split(',').filter(|name| !name.is_empty()) {
                let name = name.strip_prefix("name=").unwrap_or(name);
                controllers.insert(name.to_owned(), folder(name).join(path));
            }
        }
        (!controllers.is_empty()).then_some(Self::V1(controllers))
    }

    /// What was used so far, in containerd's message for this version.
    pub(crate) fn metrics(&self) -> Result<Any> {
        match self {
            Self::V1(controllers) => v1::metrics(controllers).map(|metrics| pack(&metrics)),
            Self::V2(folder) => v2::metrics(folder).map(|metrics| pack(&metrics)),
        }
        .map_err(|e| Error::io("cannot read the container's cgroup", e))
    }

    /// A watch for the kernel's killing in it.
    pub(crate) fn watch_oom(&self) -> std::io::Result<OomWatch> {
        match self {
            Self::V1(controllers) => OomWatch::v1(controllers.get("memory").ok_or_else(absent)?),
            Self::V2(folder) => OomWatch::v2(folder),
        }
    }
}

fn absent() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::NotFound, "the memory controller is not mounted")
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

/// Whether the machine has cgroup v2 alone.
fn is_unified() -> bool {
    rustix::fs::statfs(MOUNT).is_ok_and(|fs| fs.f_type as u64 == libc::CGROUP2_SUPER_MAGIC as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, unified: bool) -> Option<Cgroup> {
        Cgroup::parse(text, unified, |name| Path::new("/c").join(name))
    }

    #[test]
    fn hierarchies_of_both_versions_are_read() {
        let text = "9:name=systemd:/x\n4:memory:/ns/a\n2:cpu,cpuacct:/ns/a\n0::/u\n";
        let Some(Cgroup::V1(found)) = parse(text, false) else { panic!("v1") };
        assert_eq!(found["cpuacct"], Path::new("/c/cpuacct/ns/a"));
        assert_eq!(found["memory"], Path::new("/c/memory/ns/a"));
        assert_eq!(found["systemd"], Path::new("/c/systemd/x"));
        assert_eq!(parse("0::/ns/a\n", true), Some(Cgroup::V2("/c/ns/a".into())));
        assert_eq!(parse("", true), None);
    }

    #[test]
    fn a_process_has_metrics() {
        let metrics = Cgroup::of(std::process::id()).unwrap().metrics().unwrap();
        assert!(metrics.type_url.starts_with("io.containerd.cgroups.v"), "{}", metrics.type_url);
    }
}
