//! The mounts that a configuration gives a container: which of them CRIU saves, and where the others come from.

use std::path::{Path, PathBuf};

use berth_oci::runtime::{Linux, Mount, Spec};
use berth_sys::mount::info::MountInfo;

use super::images::SavedMount;
use super::rpc::ExternalMount;
use crate::cgroup::{Cgroup, Hierarchies};
use crate::error::{Error, Result};

/// Where a mount's content comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    /// The root filesystem.
    Root,
    /// A filesystem of its own, of this type.
    Own(String),
    /// Whatever is mounted there already: a path of it made read-only, a folder hidden behind an empty one.
    Covered,
    /// A file or folder of the host.
    Host(PathBuf),
}

/// One place at which something is mounted.
#[derive(Clone, Debug)]
struct Place {
    point: PathBuf,
    content: Content,
    /// Words of the mount that take rights away.
    limits: Vec<&'static str>,
    /// Whether a container without it is not what was asked for.
    demanded: bool,
}

/// All of them.
#[derive(Clone, Debug)]
pub(super) struct Places(Vec<Place>);

/// Words that take rights away, in the configuration as in mountinfo.
const LIMITS: [&str; 4] = ["ro", "nosuid", "nodev", "noexec"];

/// `enum fstype` of CRIU's `mnt.proto`.
const KINDS: [(u32, &str); 10] = [
    (1, "proc"),
    (2, "sysfs"),
    (3, "devtmpfs"),
    (5, "tmpfs"),
    (6, "devpts"),
    (12, "cgroup"),
    (14, "mqueue"),
    (15, "fuse"),
    (17, "overlay"),
    (23, "cgroup2"),
];

impl Places {
    /// Those of a configuration whose bundle is `bundle`.
    pub(super) fn of(spec: &Spec, bundle: &Path, cgroup: &Cgroup) -> Self {
        let linux = spec.linux.clone().unwrap_or_default();
        let read_only = spec.root.as_ref().is_some_and(|root| root.readonly);
        let root = Place {
            point: "/".into(),
            content: Content::Root,
            limits: if read_only { vec!["ro"] } else { Vec::new() },
            demanded: true,
        };
        let mut places = vec![root];
        for mount in &spec.mounts {
            places.extend(configured(mount, bundle, cgroup));
        }
        places.extend(covered(&linux));
        let terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
        if terminal {
            places.push(Place::free("/dev/console", Content::Own("devpts".into())));
        }
        // Where none can be made, devices are those of the host.
        for path in DEVICES.into_iter().chain(linux.devices.iter().map(|device| device.path.as_str())) {
            places.push(Place::free(path, Content::Host(path.into())));
        }
        Self(places)
    }

    /// What CRIU is told of the mounts of a container that it saves: those that are the host's, by their place.
    pub(super) fn outside(&self, mounts: &[MountInfo]) -> Vec<ExternalMount> {
        let outside = mounts.iter().filter(|mount| {
            self.source(&mount.point).is_some_and(|source| {
                // A folder behind an empty one has the same place as a hidden file has.
                source != Path::new(NULL) || mount.kind == "devtmpfs" || mount.root.ends_with("null")
            })
        });
        let name = |mount: &MountInfo| mount.point.to_string_lossy().into_owned();
        outside.map(|mount| ExternalMount { key: name(mount), value: name(mount) }).collect()
    }

    /// What CRIU is told of the mounts that it brings back: where those of the host come from. A mount that the
    /// configuration does not give is an error, and so is one that the checkpoint lacks.
    pub(super) fn sources(&self, saved: &[SavedMount]) -> Result<Vec<ExternalMount>> {
        let mut sources = Vec::new();
        for mount in saved {
            let point = Path::new(&mount.point);
            let external = mount.external == Some(true) || mount.key.is_some();
            if !external {
                self.judge(
                    point,
                    KINDS.iter().find(|(number, _)| *number == mount.kind).map(|(_, name)| *name),
                )?;
                continue;
            }
            let key = mount.key.as_deref().unwrap_or(&mount.point);
            let source = self.source(point).filter(|_| key == mount.point);
            let source = source.ok_or_else(|| unasked(point, "from the host"))?;
            let value = source.to_string_lossy().into_owned();
            sources.push(ExternalMount { key: key.to_owned(), value });
        }
        self.all_there(|point| saved.iter().any(|mount| Path::new(&mount.point) == point))?;
        Ok(sources)
    }

    /// Whether the mounts that a restored container has are those that the configuration gives it.
    pub(super) fn check(&self, mounts: &[MountInfo]) -> Result<()> {
        for mount in mounts {
            if self.source(&mount.point).is_none() {
                self.judge(&mount.point, Some(&mount.kind))?;
            }
            let words: Vec<&str> = mount.options.split(',').collect();
            let place = self.0.iter().filter(|place| place.point == mount.point && place.demanded);
            let missing = place.flat_map(|place| &place.limits).find(|limit| !words.contains(*limit));
            if let Some(limit) = missing {
                let what = format!(
                    "the checkpoint has {} without {limit}, which the configuration demands",
                    mount.point.display()
                );
                return Err(Error::Config { what });
            }
        }
        self.all_there(|point| mounts.iter().any(|mount| mount.point == point))
    }

    /// The host's file or folder that is to be mounted at a place, or at one above it.
    fn source(&self, point: &Path) -> Option<PathBuf> {
        let above = self.0.iter().filter(|place| point.starts_with(&place.point));
        let nearest = above.max_by_key(|place| place.point.components().count())?;
        let Content::Host(source) = &nearest.content else { return None };
        let rest = point.strip_prefix(&nearest.point).ok()?;
        Some(if rest.as_os_str().is_empty() { source.clone() } else { source.join(rest) })
    }

    /// Whether a filesystem of this type may be mounted there that is not the host's.
    fn judge(&self, point: &Path, kind: Option<&str>) -> Result<()> {
        let allows = |place: &Place| match &place.content {
            Content::Root | Content::Covered => true,
            Content::Own(wanted) => kind == Some(wanted),
            // A folder is hidden behind an empty filesystem, a file behind the null device.
            Content::Host(source) => source == Path::new(NULL) && kind == Some("tmpfs"),
        };
        if self.0.iter().any(|place| place.point == point && allows(place)) {
            return Ok(());
        }
        Err(unasked(point, kind.unwrap_or("of an unknown type")))
    }

    fn all_there(&self, there: impl Fn(&Path) -> bool) -> Result<()> {
        match self.0.iter().find(|place| place.demanded && !there(&place.point)) {
            None => Ok(()),
            Some(place) => Err(Error::Config {
                what: format!(
                    "the configuration mounts {}, and the checkpoint does not",
                    place.point.display()
                ),
            }),
        }
    }
}

impl Place {
    /// One that may be there or not.
    fn free(point: &str, content: Content) -> Self {
        Self { point: clean(point), content, limits: Vec::new(), demanded: false }
    }
}

/// What a file is hidden behind.
const NULL: &str = "/dev/null";
/// Devices that every container has.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

fn configured(mount: &Mount, bundle: &Path, cgroup: &Cgroup) -> Vec<Place> {
    let has = |word: &str| mount.options.iter().any(|option| option == word);
    let point = clean(&mount.destination);
    let limits = LIMITS.into_iter().filter(|limit| has(limit)).collect();
    let content = match mount.kind.as_str() {
        _ if has("bind") || has("rbind") || mount.kind == "bind" => Content::Host(bundle.join(&mount.source)),
        "cgroup" | "cgroup2" => return cgroups(&point, limits, cgroup),
        kind => Content::Own(kind.to_owned()),
    };
    vec![Place { point, content, limits, demanded: true }]
}

/// The container's own cgroups; on version 1 a folder of them.
fn cgroups(point: &Path, limits: Vec<&'static str>, cgroup: &Cgroup) -> Vec<Place> {
    let one = |point: PathBuf, own: &Path| Place {
        point,
        content: Content::Host(own.to_owned()),
        limits: limits.clone(),
        demanded: true,
    };
    match &cgroup.hierarchies {
        Hierarchies::V2(own) => vec![one(point.to_owned(), own)],
        Hierarchies::V1(all) => {
            let folder = Place {
                point: point.to_owned(),
                content: Content::Own("tmpfs".into()),
                limits: Vec::new(),
                demanded: true,
            };
            let each = all.iter().map(|hierarchy| one(point.join(&hierarchy.name), &hierarchy.own));
            std::iter::once(folder).chain(each).collect()
        }
    }
}

/// Paths that are hidden or read-only: those that the filesystems below do not have are not mounted over.
fn covered(linux: &Linux) -> Vec<Place> {
    let hidden = linux.masked_paths.iter().map(|path| Place::free(path, Content::Host(NULL.into())));
    let read_only = linux.readonly_paths.iter().map(|path| Place::free(path, Content::Covered));
    hidden.chain(read_only).collect()
}

fn unasked(point: &Path, what: &str) -> Error {
    Error::Config {
        what: format!(
            "the checkpoint has a mount {what} at {}, which the configuration does not give the container",
            point.display()
        ),
    }
}

/// A path of the configuration as mountinfo has it.
fn clean(path: &str) -> PathBuf {
    let parts = Path::new(path).components().filter(|part| *part != std::path::Component::RootDir);
    Path::new("/").join(parts.collect::<PathBuf>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(masked: &[&str]) -> Places {
        let mut spec = Spec::default();
        let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| Mount {
            destination: destination.into(),
            kind: kind.into(),
            source: source.into(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            ..Mount::default()
        };
        spec.mounts = vec![
            mount("/proc", "proc", "proc", &["nosuid"]),
            mount("/data/", "bind", "files", &["rbind", "ro"]),
        ];
        let linux = spec.linux.get_or_insert_default();
        linux.masked_paths = masked.iter().map(|path| (*path).to_owned()).collect();
        let cgroup = Cgroup {
            hierarchies: Hierarchies::V2("/sys/fs/cgroup/x".into()),
            driver: crate::CgroupDriver::Cgroupfs,
            scope: None,
        };
        Places::of(&spec, Path::new("/bundle"), &cgroup)
    }

    fn saved(point: &str, kind: u32, key: Option<&str>) -> SavedMount {
        SavedMount { kind, point: point.into(), external: None, key: key.map(str::to_owned) }
    }

    fn good() -> Vec<SavedMount> {
        vec![
            saved("/", 17, None),
            saved("/proc", 1, None),
            saved("/data", 0, Some("/data")),
            saved("/data/inner", 0, Some("/data/inner")),
            saved("/proc/keys", 0, Some("/proc/keys")),
        ]
    }

    #[test]
    fn sources_are_those_of_the_configuration() {
        let sources = places(&["/proc/keys"]).sources(&good()).unwrap();
        let values: Vec<_> = sources.iter().map(|one| one.value.as_str()).collect();
        assert_eq!(values, ["/bundle/files", "/bundle/files/inner", "/dev/null"]);
    }

    #[test]
    fn mounts_that_nobody_asked_for_are_refused_and_so_are_missing_ones() {
        let refused = |change: &dyn Fn(&mut Vec<SavedMount>)| {
            let mut mounts = good();
            change(&mut mounts);
            places(&["/proc/keys"]).sources(&mounts).unwrap_err().to_string()
        };
        assert!(refused(&|all| all.push(saved("/mnt", 16, None))).contains("/mnt"));
        assert!(refused(&|all| all.push(saved("/mnt", 0, Some("/mnt")))).contains("/mnt"));
        assert!(refused(&|all| all[1].kind = 2).contains("/proc"));
        assert!(refused(&|all| all[2].key = None).contains("/data"));
        assert!(refused(&|all| all[2].key = Some("/etc".into())).contains("/data"));
        assert!(refused(&|all| drop(all.remove(2))).contains("does not"));
    }

    #[test]
    fn what_is_mounted_in_the_end_is_compared_too() {
        let mount = |point: &str, kind: &str, options: &str| {
            let line = format!("1 0 0:1 / {point} {options} - {kind} none rw");
            MountInfo::parse(line.as_bytes()).unwrap()
        };
        let good = || {
            vec![
                mount("/", "overlay", "rw"),
                mount("/proc", "proc", "rw,nosuid"),
                mount("/data", "ext4", "ro,relatime"),
            ]
        };
        let places = places(&[]);
        places.check(&good()).unwrap();
        let refused = |change: &dyn Fn(&mut Vec<MountInfo>)| {
            let mut mounts = good();
            change(&mut mounts);
            places.check(&mounts).unwrap_err().to_string()
        };
        assert!(refused(&|all| all[2].options = "rw".into()).contains("/data without ro"));
        assert!(refused(&|all| all[1].options = "rw".into()).contains("nosuid"));
        assert!(refused(&|all| all[1].kind = "ext4".into()).contains("/proc"));
        assert!(refused(&|all| drop(all.pop())).contains("/data"));
        assert!(refused(&|all| all.push(mount("/x", "tmpfs", "rw"))).contains("/x"));
    }
}
