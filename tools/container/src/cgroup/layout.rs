//! Which hierarchies the machine has, and where in them the container goes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use berth_cgroup::{MOUNT, is_unified};

use super::{Hierarchies, Hierarchy};
use crate::error::{Doing as _, Error, Result};

/// `CGROUP_SUPER_MAGIC` of `<linux/magic.h>`.
const V1: i64 = 0x0027_e0eb;
/// `CGROUP2_SUPER_MAGIC`.
const V2: i64 = 0x6367_7270;

/// The container's place in each hierarchy. A relative path counts from the runtime's own cgroup.
pub(super) fn locate(path: &str, id: &str) -> Result<Hierarchies> {
    let path = if path.is_empty() { id } else { path };
    let base = Path::new(MOUNT);
    if is_unified() {
        let own = if path.starts_with('/') { String::new() } else { parent(&own()?.unified) };
        return Ok(Hierarchies::V2(place(base, &own, path)?));
    }
    v1(base, path).map(Hierarchies::V1)
}

fn magic(path: &Path) -> i64 {
    rustix::fs::statfs(path).map_or(0, |s| s.f_type)
}

/// v2 lets processes only be in leaves, so a sibling of the runtime's own cgroup it is.
fn parent(path: &str) -> String {
    path.rsplit_once('/').map(|(parent, _)| parent.to_owned()).unwrap_or_default()
}

fn place(mount: &Path, own: &str, path: &str) -> Result<PathBuf> {
    let cleaned = crate::plan::relative(path)?;
    if cleaned.is_empty() {
        return Err(Error::Config { what: "linux.cgroupsPath must not be the root cgroup".into() });
    }
    Ok(mount.join(own.trim_start_matches('/')).join(cleaned))
}

fn v1(base: &Path, path: &str) -> Result<Vec<Hierarchy>> {
    let own = if path.starts_with('/') { None } else { Some(own()?) };
    let entries =
        fs::read_dir(base).doing(|| format!("cannot read {MOUNT}: is the cgroup filesystem mounted?"))?;
    let mut hierarchies: Vec<Hierarchy> = Vec::new();
    let mut links: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in entries {
        let entry = entry.doing(|| format!("cannot read {MOUNT}"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().is_ok_and(|t| t.is_symlink()) {
            if let Ok(target) = fs::read_link(entry.path()) {
                let target = target.to_string_lossy().trim_matches('/').to_owned();
                links.entry(target).or_default().push(name);
            }
            continue;
        }
        let mount = entry.path();
        let kind = magic(&mount);
        if kind != V1 && kind != V2 {
            continue;
        }
        let controllers = controllers(&name, kind);
        let inside = own.as_ref().map(|own| own.of(&name, kind == V2)).unwrap_or_default();
        hierarchies.push(Hierarchy {
            options: options(&name, &controllers, kind),
            controllers,
            unified: kind == V2,
            own: place(&mount, &inside, path)?,
            links: Vec::new(),
            name,
        });
    }
    for hierarchy in &mut hierarchies {
        hierarchy.links = links.remove(&hierarchy.name).unwrap_or_default();
    }
    hierarchies.sort_by(|a, b| a.name.cmp(&b.name));
    if hierarchies.iter().all(|h| h.unified) {
        let what = format!("no cgroup hierarchies below {MOUNT}: mount them, or boot with cgroup v2");
        return Err(Error::Unsupported { what });
    }
    Ok(hierarchies)
}

fn controllers(name: &str, kind: i64) -> Vec<String> {
    if kind == V2 || name == "systemd" {
        return Vec::new();
    }
    name.split(',').map(str::to_owned).collect()
}

fn options(name: &str, controllers: &[String], kind: i64) -> Vec<String> {
    match () {
        () if kind == V2 => Vec::new(),
        () if controllers.is_empty() => vec!["none".into(), format!("name={name}")],
        () => controllers.to_vec(),
    }
}

/// The runtime's own cgroups, of /proc/self/cgroup.
struct Own {
    unified: String,
    by_controller: BTreeMap<String, String>,
}

impl Own {
    fn of(&self, hierarchy: &str, unified: bool) -> String {
        if unified {
            return self.unified.clone();
        }
        let first = hierarchy.split(',').next().unwrap_or_default();
        let found = self.by_controller.get(first);
        found.or_else(|| self.by_controller.get(&format!("name={first}"))).cloned().unwrap_or_default()
    }
}

fn own() -> Result<Own> {
    let text = fs::read_to_string("/proc/self/cgroup").doing(|| "cannot read /proc/self/cgroup")?;
    let mut own = Own { unified: String::new(), by_controller: BTreeMap::new() };
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        if controllers.is_empty() {
            path.clone_into(&mut own.unified);
        }
        for controller in controllers.split(',').filter(|c| !c.is_empty()) {
            own.by_controller.insert(controller.to_owned(), path.to_owned());
        }
    }
    Ok(own)
}
