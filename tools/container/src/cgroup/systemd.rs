//! systemd's way: it is asked over D-Bus for a scope unit around the container's process, makes the
//! directories, and hands them over (`Delegate`); limits are then set as without it.
//!
//! Only what that takes of D-Bus is here: one method call at a time on systemd's private socket.

mod bus;

use std::path::Path;
use std::time::{Duration, Instant};

use berth_oci::runtime::Resources;
use serde::{Deserialize, Serialize};

use self::bus::{Connection, Value};
use super::values;
use crate::error::{Doing as _, Error, Result};

/// Slice of containers that name none.
const SLICE: &str = "system.slice";
/// How long systemd may take to move the process.
const PATIENCE: Duration = Duration::from_secs(30);

/// A scope unit and the slice it lies in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scope {
    slice: String,
    unit: String,
}

impl Scope {
    /// Reads `cgroupsPath` as `slice:prefix:name`; empty for the default.
    pub(super) fn parse(path: &str, id: &str) -> Result<Self> {
        let parts: Vec<&str> = path.split(':').collect();
        let (slice, prefix, name) = match parts.as_slice() {
            [""] => (SLICE, "berth", id),
            [slice, prefix, name] if !name.is_empty() => (*slice, *prefix, *name),
            _ => {
                let what = format!(
                    "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
                );
                return Err(Error::Config { what });
            }
        };
        let slice = if slice.is_empty() { SLICE } else { slice };
        let fine = |text: &str| !text.contains('/') && !text.contains("..");
        let is_slice = Path::new(slice).extension().is_some_and(|e| e == "slice");
        if !fine(slice) || !fine(prefix) || !fine(name) || !is_slice {
            return Err(Error::Config { what: format!("cgroupsPath {path:?} names no slice and scope") });
        }
        let unit = match prefix {
            _ if Path::new(name).extension().is_some_and(|e| e == "slice") => name.to_owned(),
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        Ok(Self { slice: slice.to_owned(), unit })
    }

    /// Where systemd puts it: a slice `a-b.slice` lies in `a.slice`.
    pub(super) fn path(&self) -> String {
        let mut path = String::new();
        let stem = self.slice.trim_end_matches(".slice");
        if stem != "-" {
            let mut prefix = String::new();
            for part in stem.split('-') {
                prefix = if prefix.is_empty() { part.to_owned() } else { format!("{prefix}-{part}") };
                path = format!("{path}/{prefix}.slice");
            }
        }
        format!("{path}/{}", self.unit)
    }

    /// Starts the unit with this process in it, and waits until the process is there.
    pub(super) fn start(&self, pid: i32, resources: &Resources) -> Result<()> {
        let doing = || format!("unable to start unit {:?} by systemd", self.unit);
        let properties = self.properties(pid, resources);
        let mut bus = Connection::open().doing(doing)?;
        let body = [
            Value::Text(self.unit.clone()),
            Value::Text("replace".into()),
            Value::Properties(properties),
            Value::Nothing("a(sa(sv))"),
        ];
        bus.call("StartTransientUnit", &body).doing(doing)?;
        let begun = Instant::now();
        let path = self.path();
        loop {
            let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).doing(doing)?;
            if cgroups.lines().any(|line| line.ends_with(&path)) {
                return Ok(());
            }
            // systemd cannot move a process that has ended; the process itself has said why it did.
            let ended = std::fs::read_to_string(format!("/proc/{pid}/status"))
                .map_or(true, |text| text.lines().any(|line| line.starts_with("State:\tZ")));
            if ended {
                let what = format!("process {pid} ended before systemd could move it into {:?}", self.unit);
                return Err(Error::State { what });
            }
            if begun.elapsed() > PATIENCE {
                let what = format!("systemd did not move process {pid} into {:?} in time", self.unit);
                return Err(Error::State { what });
            }
            super::freeze::rest(Duration::from_millis(1));
        }
    }

    fn properties(&self, pid: i32, resources: &Resources) -> Vec<(&'static str, Value)> {
        let yes = || Value::Bool(true);
        let mut all = vec![
            ("Description", Value::Text(format!("berth container {}", self.unit))),
            ("Slice", Value::Text(self.slice.clone())),
            ("Delegate", yes()),
            ("PIDs", Value::Numbers(vec![pid as u32])),
            ("MemoryAccounting", yes()),
            ("CPUAccounting", yes()),
            ("IOAccounting", yes()),
            ("TasksAccounting", yes()),
            ("DefaultDependencies", Value::Bool(false)),
        ];
        // What systemd writes too, so that its next reload does not undo what is set directly.
        if let Some(limit) = resources.memory.as_ref().and_then(|m| m.limit).filter(|l| *l > 0) {
            all.push(("MemoryMax", Value::Large(limit as u64)));
        }
        if let Some(limit) = resources.pids.as_ref().and_then(|p| p.limit).filter(|l| *l > 0) {
            all.push(("TasksMax", Value::Large(limit as u64)));
        }
        if let Some(cpu) = &resources.cpu {
            let weight = values::weight_of_shares(cpu.shares.unwrap_or(0));
            if weight != 0 {
                all.push(("CPUWeight", Value::Large(weight)));
            }
            if let Some(quota) = cpu.quota.filter(|q| *q > 0) {
                let period = cpu.period.filter(|p| *p > 0).unwrap_or(100_000);
                all.push(("CPUQuotaPerSecUSec", Value::Large(quota as u64 * 1_000_000 / period)));
            }
        }
        all
    }

    /// Stops the unit; a unit that is gone, or no systemd, is as good.
    pub(super) fn stop(&self) {
        let Ok(mut bus) = Connection::open() else { return };
        let unit = Value::Text(self.unit.clone());
        let _ = bus.call("StopUnit", &[unit.clone(), Value::Text("replace".into())]);
        let _ = bus.call("ResetFailedUnit", &[unit]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_lies_in_the_slices_that_its_name_begins_with() {
        let scope = Scope::parse("a-b.slice:docker:x", "id").unwrap();
        assert_eq!(scope.path(), "/a.slice/a-b.slice/docker-x.scope");
        assert_eq!(Scope::parse("", "id").unwrap().path(), "/system.slice/berth-id.scope");
        assert_eq!(Scope::parse("-.slice::x", "id").unwrap().path(), "/x.scope");
        for bad in ["/a/b", "a:b", "a.slice:b:../c", "a:b:c", "a.slice:b:"] {
            assert!(Scope::parse(bad, "id").is_err(), "{bad}");
        }
    }
}
