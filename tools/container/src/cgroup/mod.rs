//! The container's cgroup, whatever the machine has: v1, v2, or v1 with an (almost) empty v2 beside it.
//!
//! ```text
//!   v1, hybrid:  /sys/fs/cgroup/{cpu,memory,…,systemd,unified}/<cgroupsPath>
//!   v2:          /sys/fs/cgroup/<cgroupsPath>
//! ```
//!
//! A process joins v1 cgroups by writing `0` into their `tasks` files itself (see [`crate::child`]) and
//! is born into a v2 one (`CLONE_INTO_CGROUP`), because moving another process waits for an RCU grace
//! period. Sources: cgroups(7), Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.

mod devices;
mod file;
mod freeze;
mod layout;
mod processes;
mod systemd;
mod v1;
mod v2;
pub(crate) mod values;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_oci::runtime::Resources;
use serde::{Deserialize, Serialize};

use crate::container::CgroupDriver;
use crate::error::{Doing as _, Result};

/// One mounted hierarchy of v1 (or the v2 one of a hybrid machine), and the container's place in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hierarchy {
    /// Name below /sys/fs/cgroup.
    pub name: String,
    /// Its controllers; a named hierarchy has none.
    pub controllers: Vec<String>,
    /// What to mount it with.
    pub options: Vec<String>,
    /// Whether it is v2.
    pub unified: bool,
    /// The container's cgroup.
    pub own: PathBuf,
    /// Other names of it below /sys/fs/cgroup.
    pub links: Vec<String>,
}

/// The container's place in every hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Hierarchies {
    /// Several.
    V1(Vec<Hierarchy>),
    /// One.
    V2(PathBuf),
}

/// The cgroup of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cgroup {
    /// Where.
    pub hierarchies: Hierarchies,
    /// Who arranges it.
    pub driver: CgroupDriver,
    /// systemd's name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<systemd::Scope>,
}

impl Cgroup {
    /// Finds out where the cgroup of container `id` is to be. Makes nothing.
    pub(crate) fn locate(path: &str, id: &str, driver: CgroupDriver) -> Result<Self> {
        let scope = match driver {
            CgroupDriver::Cgroupfs => None,
            CgroupDriver::Systemd => Some(systemd::Scope::parse(path, id)?),
        };
        let within = scope.as_ref().map(systemd::Scope::path);
        let hierarchies = layout::locate(within.as_deref().unwrap_or(path), id)?;
        Ok(Self { hierarchies, driver, scope })
    }

    /// Makes the v2 directory that a process can be born in; `None` where there is none.
    pub(crate) fn birthplace(&self) -> Result<Option<OwnedFd>> {
        if self.scope.is_some() {
            // systemd makes it around a process that exists.
            return Ok(None);
        }
        let Some(own) = self.unified() else { return Ok(None) };
        let hybrid = matches!(self.hierarchies, Hierarchies::V1(_));
        let made = v2::make(own, hybrid).and_then(|()| File::open(own));
        match made {
            Ok(directory) => Ok(Some(directory.into())),
            // Nothing there limits anything: v1 does.
            Err(_) if hybrid => Ok(None),
            Err(e) => Err(e).doing(|| format!("cannot make cgroup {}", own.display())),
        }
    }

    /// The v2 directory, where there is one.
    pub(crate) fn unified(&self) -> Option<&Path> {
        match &self.hierarchies {
            Hierarchies::V2(own) => Some(own),
            Hierarchies::V1(all) => all.iter().find(|h| h.unified).map(|h| h.own.as_path()),
        }
    }

    /// Makes the v1 directories.
    pub(crate) fn make(&self) -> Result<()> {
        match &self.hierarchies {
            Hierarchies::V2(_) => Ok(()),
            Hierarchies::V1(all) => v1::make(all),
        }
    }

    /// With systemd's driver: asks it for the scope around process `pid`. It makes the directories.
    pub(crate) fn register(&self, pid: i32, resources: &Resources) -> Result<()> {
        self.scope.as_ref().map_or(Ok(()), |scope| scope.start(pid, resources))
    }

    /// Makes it and moves process `pid` of this machine in, with what it starts from then on.
    pub(crate) fn take_in(&self, pid: i32, resources: &Resources) -> Result<()> {
        drop(self.birthplace()?);
        self.make()?;
        self.register(pid, resources)?;
        let own: Vec<&Path> = match &self.hierarchies {
            // systemd has moved it.
            Hierarchies::V2(_) if self.scope.is_some() => Vec::new(),
            Hierarchies::V2(own) => vec![own],
            Hierarchies::V1(all) => all.iter().map(|hierarchy| hierarchy.own.as_path()).collect(),
        };
        for directory in own {
            file::write(directory, "cgroup.procs", &pid.to_string())?;
        }
        Ok(())
    }

    /// Its path from the top of the hierarchies.
    pub(crate) fn below_top(&self) -> Option<String> {
        let top = Path::new(berth_cgroup::MOUNT);
        let (own, top) = match &self.hierarchies {
            Hierarchies::V2(own) => (own.as_path(), top.to_owned()),
            Hierarchies::V1(all) => {
                let own = self.directory()?;
                (own, top.join(&all.iter().find(|hierarchy| hierarchy.own == own)?.name))
            }
        };
        Some(Path::new("/").join(own.strip_prefix(top).ok()?).to_string_lossy().into_owned())
    }

    /// The files that a process joins by writing `0` to them; empty on v2, where it is born inside.
    pub(crate) fn entrances(&self) -> Result<Vec<OwnedFd>> {
        let Hierarchies::V1(all) = &self.hierarchies else { return Ok(Vec::new()) };
        let mut files = Vec::with_capacity(all.len());
        for hierarchy in all.iter().filter(|h| !h.unified) {
            let path = hierarchy.own.join("tasks");
            let file = File::options().write(true).open(&path);
            files.push(file.doing(|| format!("cannot join cgroup {}", path.display()))?.into());
        }
        Ok(files)
    }

    /// The same place for an exec into a cgroup below: `path`, or `controller:path` on v1.
    pub(crate) fn below(&self, paths: &[String]) -> Result<Self> {
        let mut below = self.clone();
        for given in paths {
            let (controllers, path) =
                given.split_once(':').map_or((None, given.as_str()), |(c, p)| (Some(c), p));
            let path = crate::plan::relative(path)?;
            match &mut below.hierarchies {
                Hierarchies::V2(own) => *own = own.join(&path),
                Hierarchies::V1(all) => {
                    let named = |h: &Hierarchy| {
                        controllers.is_none_or(|c| c.split(',').any(|c| h.controllers.iter().any(|k| k == c)))
                    };
                    all.iter_mut().filter(|h| named(h)).for_each(|h| h.own = h.own.join(&path));
                }
            }
        }
        Ok(below)
    }

    /// Sets limits. `warnings` takes what the machine cannot do and may do without.
    pub(crate) fn apply(&self, resources: &Resources, warnings: &mut Vec<String>) -> Result<()> {
        match &self.hierarchies {
            Hierarchies::V2(own) => v2::apply(own, resources, warnings),
            Hierarchies::V1(all) => v1::apply(all, resources, warnings),
        }
    }

    /// Sets the first limits: those, and the devices that every container may use.
    pub(crate) fn apply_first(&self, resources: &Resources, warnings: &mut Vec<String>) -> Result<()> {
        let mut resources = resources.clone();
        devices::add_defaults(&mut resources.devices);
        self.apply(&resources, warnings)
    }

    /// A directory whose processes are the container's.
    pub(crate) fn directory(&self) -> Option<&Path> {
        match &self.hierarchies {
            Hierarchies::V2(own) => Some(own),
            Hierarchies::V1(all) => {
                let by = |name: &str| all.iter().find(|h| h.controllers.iter().any(|c| c == name));
                let any = || all.iter().find(|h| !h.unified);
                by("freezer").or_else(|| by("pids")).or_else(any).map(|h| h.own.as_path())
            }
        }
    }

    /// The container's directory for a v1 controller.
    pub(crate) fn controller(&self, name: &str) -> Option<&Path> {
        let Hierarchies::V1(all) = &self.hierarchies else { return None };
        all.iter().find(|h| h.controllers.iter().any(|c| c == name)).map(|h| h.own.as_path())
    }

    /// Whether any of it exists.
    pub(crate) fn exists(&self) -> bool {
        self.directory().is_some_and(Path::exists)
    }

    /// All processes in it, also in cgroups below.
    pub(crate) fn pids(&self) -> Result<Vec<i32>> {
        self.directory().map_or(Ok(Vec::new()), processes::all)
    }

    /// Sends a signal to all of them.
    pub(crate) fn signal(&self, signal: i32) -> Result<()> {
        processes::signal(self, signal)
    }

    /// Freezes all of them, and waits until they are.
    pub(crate) fn freeze(&self) -> Result<()> {
        freeze::set(self, freeze::Freeze::Frozen)
    }

    /// Lets them go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        freeze::set(self, freeze::Freeze::Thawed)
    }

    /// Whether they are frozen, or about to be.
    pub(crate) fn is_frozen(&self) -> bool {
        freeze::is_frozen(self)
    }

    /// Removes it, killing whatever is left in it. Fine when it is gone.
    pub(crate) fn remove(&self) -> Result<()> {
        if let Some(scope) = &self.scope {
            scope.stop();
        }
        processes::remove(self)
    }

    /// Where what its processes use is accounted.
    pub(crate) fn accounts(&self) -> berth_cgroup::Cgroup {
        match &self.hierarchies {
            Hierarchies::V2(own) => berth_cgroup::Cgroup::V2(own.clone()),
            Hierarchies::V1(all) => berth_cgroup::Cgroup::V1(
                all.iter()
                    .flat_map(|h| h.controllers.iter().map(|name| (name.clone(), h.own.clone())))
                    .collect(),
            ),
        }
    }
}
