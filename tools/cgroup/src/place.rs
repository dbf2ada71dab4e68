//! The cgroups of a container, found through `/proc/PID/cgroup` so that whoever made it does not matter.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::{OomWatch, v1, v1_messages, v2, v2_messages};

/// Where cgroup filesystems are mounted, by convention of every distribution.
pub const MOUNT: &str = "/sys/fs/cgroup";

/// Where a container is accounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cgroup {
    /// A folder for each controller.
    V1(BTreeMap<String, PathBuf>),
    /// One folder.
    V2(PathBuf),
}

/// What was used so far, in containerd's message for the version.
#[derive(Clone, Debug, PartialEq)]
pub enum Metrics {
    /// Of v1, and of machines that have both.
    V1(Box<v1_messages::Metrics>),
    /// Of v2.
    V2(Box<v2_messages::Metrics>),
}

impl Cgroup {
    /// The cgroups of a process. Errors name what cannot be read.
    pub fn of(pid: u32) -> io::Result<Self> {
        let path = format!("/proc/{pid}/cgroup");
        let text = std::fs::read_to_string(&path)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot read {path}: {error}")))?;
        Self::parse(&text, is_unified(), |name| Path::new(MOUNT).join(name))
            .ok_or_else(|| io::Error::other(format!("process {pid} is in no cgroup")))
    }

    /// The cgroups that hold these: a pod's, for those of one of its containers. None above the root.
    pub fn parent(&self) -> Option<Self> {
        Some(match self {
            Self::V1(controllers) => Self::V1(
                controllers
                    .iter()
                    .map(|(name, folder)| Some((name.clone(), folder.parent()?.to_owned())))
                    .collect::<Option<_>>()?,
            ),
            Self::V2(folder) => Self::V2(folder.parent()?.to_owned()),
        })
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

    /// What was used so far. A controller that is not mounted leaves its part out.
    pub fn metrics(&self) -> io::Result<Metrics> {
        Ok(match self {
            Self::V1(controllers) => Metrics::V1(Box::new(v1::metrics(controllers)?)),
            Self::V2(folder) => Metrics::V2(Box::new(v2::metrics(folder)?)),
        })
    }

    /// A watch for the kernel's killing in it.
    pub fn watch_oom(&self) -> io::Result<OomWatch> {
        match self {
            Self::V1(controllers) => OomWatch::v1(controllers.get("memory").ok_or_else(absent)?),
            Self::V2(folder) => OomWatch::v2(folder),
        }
    }
}

fn absent() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the memory controller is not mounted")
}

/// Whether the machine has cgroup v2 alone.
pub fn is_unified() -> bool {
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
        let Some(Cgroup::V1(above)) = Cgroup::V1(found).parent() else { panic!("v1") };
        assert_eq!(above["memory"], Path::new("/c/memory/ns"));
        assert_eq!(parse("0::/ns/a\n", true), Some(Cgroup::V2("/c/ns/a".into())));
        assert_eq!(parse("", true), None);
    }

    #[test]
    fn a_process_has_metrics() {
        let used = match Cgroup::of(std::process::id()).unwrap().metrics().unwrap() {
            Metrics::V1(metrics) => metrics.cpu.unwrap().usage.unwrap().total,
            Metrics::V2(metrics) => metrics.cpu.unwrap().usage_usec,
        };
        assert!(used > 0);
    }
}
