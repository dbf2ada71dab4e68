//! The process of a configuration: strings, identity, limits, filter.

use std::ffi::CString;

use berth_oci::runtime::{Linux, Process};

use super::mounts::{c_string, clean};
use super::{Filter, Program, Strings, identity, settings};
use crate::apparmor;
use crate::error::{Error, Result};

/// Mode creation mask of a process that says nothing of it.
const UMASK: u32 = 0o022;

/// Prepares the process; `linux` gives what belongs to the container as a whole.
pub(super) fn plan(
    process: &Process,
    linux: &Linux,
    filter: Option<Filter>,
    preserve: u32,
    warnings: &mut Vec<String>,
) -> Result<Program> {
    let invalid = |what: &str| Err(Error::Config { what: what.into() });
    let Some(name) = process.args.first() else { return invalid("process.args must not be empty") };
    if !process.cwd.starts_with('/') {
        return invalid("process.cwd must be an absolute path");
    }
    let environment = environment(&process.env)?;
    let path = value(&environment, "PATH").unwrap_or_default();
    let find_home = value(&environment, "HOME").is_none_or(str::is_empty);
    let environment: Vec<_> = environment.iter().filter(|e| *e != "HOME=").collect();
    Ok(Program {
        candidates: candidates(name, path)?,
        searched: !name.contains('/'),
        argv: Strings::new(strings(&process.args)?, 0),
        envp: Strings::new(environment.iter().map(|e| c_string(e)).collect::<Result<_>>()?, 1),
        find_home,
        home: [0; 1024],
        cwd: c_string(&clean(&process.cwd)?)?,
        uid: process.user.uid,
        gid: process.user.gid,
        groups: process.user.additional_gids.clone(),
        umask: process.user.umask.unwrap_or(UMASK),
        capabilities: identity::capabilities(process.capabilities.as_ref(), warnings),
        limits: identity::limits(&process.rlimits)?,
        no_new_privileges: process.no_new_privileges,
        filter,
        label: label(process)?,
        scheduler: process.scheduler.as_ref().map(settings::scheduler).transpose()?,
        io_priority: process.io_priority.as_ref().map(settings::io_priority).transpose()?,
        personality: linux.personality.as_ref().map(settings::personality).transpose()?,
        memory_policy: linux.memory_policy.as_ref().map(settings::memory_policy).transpose()?,
        affinity: None,
        preserve,
    })
}

/// The environment without repetitions: the last value of a name counts, in the place of the first.
fn environment(given: &[String]) -> Result<Vec<String>> {
    let mut all: Vec<String> = Vec::with_capacity(given.len());
    for entry in given {
        let name = entry.split_once('=').map(|(name, _)| name).filter(|name| !name.is_empty());
        let Some(name) = name else {
            return Err(Error::Config { what: format!("environment entry {entry:?} is not NAME=VALUE") });
        };
        match all.iter_mut().find(|known| named(known, name)) {
            Some(known) => known.clone_from(entry),
            None => all.push(entry.clone()),
        }
    }
    Ok(all)
}

fn named(entry: &str, name: &str) -> bool {
    entry.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))
}

fn value<'e>(environment: &'e [String], name: &str) -> Option<&'e str> {
    environment.iter().find(|entry| named(entry, name)).map(|entry| &entry[name.len() + 1..])
}

/// Where the program may be: its own path, or its name in each folder of `PATH`.
fn candidates(name: &str, path: &str) -> Result<Vec<CString>> {
    if name.contains('/') {
        return Ok(vec![c_string(name)?]);
    }
    if name.is_empty() {
        return Ok(Vec::new());
    }
    let in_folder = |folder: &str| match folder {
        "" => c_string(&format!("./{name}")),
        folder => c_string(&format!("{}/{name}", folder.trim_end_matches('/'))),
    };
    path.split(':').filter(|_| !path.is_empty()).map(in_folder).collect()
}

pub(super) fn strings(all: &[String]) -> Result<Vec<CString>> {
    all.iter().map(|s| c_string(s)).collect()
}

/// What to write to the process' security attribute. Asked for where there is none, it is an error:
/// a container must not run with less than it was promised.
fn label(process: &Process) -> Result<Option<(Vec<u8>, bool)>> {
    let unsupported = |what: String| Err(Error::Unsupported { what });
    if !process.apparmor_profile.is_empty() {
        apparmor::provide(&process.apparmor_profile)?;
        if !process.selinux_label.is_empty() {
            return unsupported("an AppArmor profile and an SELinux label cannot both be applied".into());
        }
        return Ok(Some((format!("exec {}", process.apparmor_profile).into_bytes(), true)));
    }
    if process.selinux_label.is_empty() {
        return Ok(None);
    }
    if !selinux() {
        return unsupported(without_selinux("process.selinuxLabel", &process.selinux_label));
    }
    Ok(Some((process.selinux_label.clone().into_bytes(), false)))
}

/// What is said of a label where nobody would heed it.
pub(super) fn without_selinux(field: &str, label: &str) -> String {
    format!(
        "SELinux label {label:?} is asked for, but SELinux is not enabled on this machine: leave {field} out, or boot \
         with SELinux"
    )
}

/// Whether SELinux' filesystem is mounted.
pub(super) fn selinux() -> bool {
    const SELINUX: i64 = 0xf97c_ff8c;
    rustix::fs::statfs("/sys/fs/selinux").is_ok_and(|s| s.f_type == SELINUX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(all: &[&str]) -> Vec<String> {
        all.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn the_last_value_of_a_variable_counts() {
        let all = environment(&owned(&["A=1", "B=2", "A=3", "AB=4"])).unwrap();
        assert_eq!(all, ["A=3", "B=2", "AB=4"]);
        assert_eq!(value(&all, "A"), Some("3"));
        assert!(environment(&owned(&["=x"])).is_err());
        assert!(environment(&owned(&["x"])).is_err());
    }

    #[test]
    fn programs_are_searched_in_path_only_without_a_slash() {
        let all = |name, path| -> Vec<String> {
            candidates(name, path).unwrap().iter().map(|c| c.to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(all("sh", "/bin:/usr/bin/"), ["/bin/sh", "/usr/bin/sh"]);
        assert_eq!(all("./sh", "/bin"), ["./sh"]);
        assert!(all("", "/bin").is_empty());
        assert!(all("sh", "").is_empty());
    }
}
