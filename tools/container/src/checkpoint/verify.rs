//! What restored processes are, compared with what the configuration lets them be.
//!
//! Called when CRIU has made all of them and holds each before its first instruction: the kernel is asked, not the
//! files of the checkpoint.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use berth_oci::runtime::{Capabilities, Linux, NamespaceKind, Process, Spec};
use berth_sys::mount::info;

use super::places::Places;
use crate::cgroup::Cgroup;
use crate::error::{Doing as _, Error, Result};

/// What they are compared with.
pub(super) struct Expected<'a> {
    pub spec: &'a Spec,
    pub places: &'a Places,
    pub cgroup: &'a Cgroup,
    /// Whether the configuration has a filter of system calls.
    pub filtered: bool,
}

/// Namespaces and their names in `/proc/PID/ns`.
const NAMESPACES: [(NamespaceKind, &str); 7] = [
    (NamespaceKind::Mount, "mnt"),
    (NamespaceKind::Pid, "pid"),
    (NamespaceKind::Network, "net"),
    (NamespaceKind::Ipc, "ipc"),
    (NamespaceKind::Uts, "uts"),
    (NamespaceKind::Cgroup, "cgroup"),
    (NamespaceKind::User, "user"),
];

impl Expected<'_> {
    /// Compares the process `first` and all that descend from it.
    pub(super) fn check(&self, first: i32) -> Result<()> {
        let all = family(first)?;
        let inside: BTreeSet<i32> = self.cgroup.pids()?.into_iter().collect();
        let process = self.spec.process.clone().unwrap_or_default();
        let linux = self.spec.linux.clone().unwrap_or_default();
        namespaces(first, &linux)?;
        let mut views = BTreeSet::new();
        for pid in all {
            if !inside.contains(&pid) {
                return Err(Error::Config {
                    what: format!("restored process {pid} is outside the container's cgroup"),
                });
            }
            if views.insert(namespace(pid, "mnt")?) {
                let path = format!("/proc/{pid}/mountinfo");
                let mounts = info::read(Path::new(&path)).doing(|| format!("cannot read {path}"))?;
                self.places.check(&mounts)?;
            }
            profile(pid, &process)?;
            for thread in threads(pid)? {
                status(&thread, &process, self.filtered)?;
            }
        }
        Ok(())
    }
}

/// A process and its descendants.
pub(super) fn family(first: i32) -> Result<Vec<i32>> {
    let (mut all, mut next) = (vec![first], 0);
    while let Some(pid) = all.get(next).copied() {
        next += 1;
        for thread in threads(pid)? {
            let path = thread.join("children");
            let children = fs::read_to_string(&path).doing(|| format!("cannot read {}", path.display()))?;
            all.extend(children.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
        }
    }
    Ok(all)
}

fn threads(pid: i32) -> Result<Vec<PathBuf>> {
    let path = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&path).doing(|| format!("cannot read {path}"))?;
    entries.map(|entry| entry.map(|entry| entry.path()).doing(|| format!("cannot read {path}"))).collect()
}

fn namespace(pid: i32, name: &str) -> Result<PathBuf> {
    let path = format!("/proc/{pid}/ns/{name}");
    fs::read_link(&path).doing(|| format!("cannot read {path}"))
}

/// The first process has a namespace of its own where the configuration says so, and the one named there otherwise.
fn namespaces(first: i32, linux: &Linux) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let own = std::process::id() as i32;
    for (kind, name) in NAMESPACES {
        let Some(wanted) = linux.namespace(&kind) else { continue };
        let has = namespace(first, name)?;
        let right = if wanted.path.is_empty() {
            has != namespace(own, name)?
        } else {
            let inode = |path: &str| {
                fs::metadata(path).map(|about| about.ino()).doing(|| format!("cannot look at {path}"))
            };
            inode(&format!("/proc/{first}/ns/{name}"))? == inode(&wanted.path)?
        };
        if !right {
            let what = format!(
                "the checkpoint's first process has another {name} namespace than the configuration gives it"
            );
            return Err(Error::Config { what });
        }
    }
    Ok(())
}

fn profile(pid: i32, process: &Process) -> Result<()> {
    let wanted = &process.apparmor_profile;
    if wanted.is_empty() || wanted == "unconfined" {
        return Ok(());
    }
    let path = format!("/proc/{pid}/attr/apparmor/current");
    let has = fs::read_to_string(&path).doing(|| format!("cannot read {path}"))?;
    if has.trim().rsplit_once(" (").map_or(has.trim(), |(name, _)| name) == wanted {
        return Ok(());
    }
    Err(Error::Config {
        what: format!(
            "restored process {pid} is under the AppArmor profile {:?}, not {wanted:?}",
            has.trim()
        ),
    })
}

/// Capabilities, `no_new_privs` and filters of one thread.
fn status(thread: &Path, process: &Process, filtered: bool) -> Result<()> {
    let path = thread.join("status");
    let text = fs::read_to_string(&path).doing(|| format!("cannot read {}", path.display()))?;
    judge(&text, process, filtered).map_err(|what| Error::Config {
        what: format!(
            "a process of the checkpoint {what}, which the configuration does not give the container"
        ),
    })
}

fn judge(status: &str, process: &Process, filtered: bool) -> std::result::Result<(), String> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).unwrap_or_default()
    };
    let none = Capabilities::default();
    let given = process.capabilities.as_ref().unwrap_or(&none);
    let sets = [
        ("CapBnd", &given.bounding),
        ("CapPrm", &given.bounding),
        ("CapEff", &given.bounding),
        ("CapInh", &given.inheritable),
        ("CapAmb", &given.inheritable),
    ];
    for (name, allowed) in sets {
        let has = u64::from_str_radix(field(name), 16).map_err(|_| format!("has no readable {name}"))?;
        let beyond = has & !mask(allowed);
        if beyond != 0 {
            let number = beyond.trailing_zeros() as usize;
            let capability = Capabilities::NAMES.get(number).copied().unwrap_or("an unknown capability");
            return Err(format!("has {capability} in {name}"));
        }
    }
    if process.no_new_privileges && field("NoNewPrivs") != "1" {
        return Err("may gain privileges".into());
    }
    if filtered && field("Seccomp") != "2" {
        return Err("has no filter of system calls".into());
    }
    Ok(())
}

fn mask(names: &[String]) -> u64 {
    let number = |name: &String| Capabilities::NAMES.iter().position(|known| known == name);
    names.iter().filter_map(number).fold(0, |mask, number| mask | 1 << number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str =
        "CapInh:\t0\nCapPrm:\t21\nCapEff:\t1\nCapBnd:\t21\nCapAmb:\t0\nNoNewPrivs:\t1\nSeccomp:\t2\n";

    fn process() -> Process {
        let bounding = vec!["CAP_CHOWN".to_owned(), "CAP_KILL".to_owned()];
        Process {
            capabilities: Some(Capabilities { bounding, ..Capabilities::default() }),
            no_new_privileges: true,
            ..Process::default()
        }
    }

    #[test]
    fn a_process_may_have_less_than_the_configuration_gives_and_never_more() {
        let judge = |from: &str, to: &str| judge(&FINE.replace(from, to), &process(), true);
        assert_eq!(judge("", ""), Ok(()));
        assert_eq!(judge("CapBnd:\t21", "CapBnd:\t1"), Ok(()));
        assert!(judge("CapBnd:\t21", "CapBnd:\t200021").unwrap_err().contains("CAP_SYS_ADMIN in CapBnd"));
        assert!(judge("CapInh:\t0", "CapInh:\t1").unwrap_err().contains("CapInh"));
        assert!(judge("CapAmb:\t0", "CapAmb:\t1").unwrap_err().contains("CapAmb"));
        assert!(judge("CapPrm:\t21", "CapPrm:\t80000021").is_err());
        assert!(judge("CapEff:\t1", "CapEff:\tx").is_err());
        assert!(judge("NoNewPrivs:\t1", "NoNewPrivs:\t0").unwrap_err().contains("privileges"));
        assert!(judge("Seccomp:\t2", "Seccomp:\t0").unwrap_err().contains("filter"));
    }

    #[test]
    fn the_family_of_a_process_has_its_children() {
        use std::io::Read as _;
        // It tells of its child once there is one. (Our own threads come and go while we look.)
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "sleep 60 & echo $!; wait"]).stdout(std::process::Stdio::piped());
        let mut first = shell.spawn().unwrap();
        let mut told = [0; 16];
        let count = first.stdout.as_mut().unwrap().read(&mut told).unwrap();
        let child: i32 = std::str::from_utf8(&told[..count]).unwrap().trim().parse().unwrap();
        let all = family(first.id() as i32);
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(child).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        first.wait().unwrap();
        assert_eq!(all.unwrap(), [first.id() as i32, child]);
    }
}
