//! Mounts of a configuration, taken apart and, where the host's files are concerned, opened.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use berth_oci::runtime;
use berth_sys::mount::attributes::{MountAttributes, Reach, attribute, set_attributes};
use berth_sys::userns::{self, IdMapping};
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::{CgroupView, Filesystem, Mount, Place, What};
use crate::cgroup::Hierarchies;
use crate::error::{Doing as _, Error, Result};

/// `PROC_SUPER_MAGIC` of `<linux/magic.h>`.
const PROCFS: i64 = 0x9fa0;

/// Files in /proc that may be replaced: what lxcfs emulates, and two that checkpointing needs.
const REPLACEABLE: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// What the mounts depend on beside themselves.
pub(super) struct Context<'a> {
    /// The bundle, for relative sources.
    pub bundle: &'a Path,
    /// Maps of the container's user namespace.
    pub maps: (&'a [runtime::IdMapping], &'a [runtime::IdMapping]),
    /// Whether host mounts stay connected with the container's.
    pub shared: bool,
    /// The machine's cgroups, and the container's among them.
    pub cgroups: &'a Hierarchies,
    /// Whether the container has a cgroup namespace.
    pub cgroup_namespace: bool,
    /// SELinux label for new filesystems.
    pub label: &'a str,
}

/// What the option words ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    bind: Option<Reach>,
    set: u64,
    clear: u64,
    rset: u64,
    rclear: u64,
    propagation: Vec<(u64, bool)>,
    super_flags: Vec<&'static str>,
    copy_up: bool,
    id_mapped: Option<Reach>,
    data: Vec<String>,
}

/// Word, attribute, whether the word sets it.
const ATTRIBUTES: &[(&str, u64, bool)] = &[
    ("ro", attribute::RDONLY, true),
    ("rw", attribute::RDONLY, false),
    ("nosuid", attribute::NOSUID, true),
    ("suid", attribute::NOSUID, false),
    ("nodev", attribute::NODEV, true),
    ("dev", attribute::NODEV, false),
    ("noexec", attribute::NOEXEC, true),
    ("exec", attribute::NOEXEC, false),
    ("nodiratime", attribute::NODIRATIME, true),
    ("diratime", attribute::NODIRATIME, false),
    ("nosymfollow", attribute::NOSYMFOLLOW, true),
    ("symfollow", attribute::NOSYMFOLLOW, false),
];

/// Access time modes are values of one field.
const ATIMES: &[(&str, u64)] = &[
    ("noatime", attribute::NOATIME),
    ("atime", 0),
    ("relatime", 0),
    ("norelatime", attribute::STRICTATIME),
    ("strictatime", attribute::STRICTATIME),
    ("nostrictatime", 0),
];

const PROPAGATION: &[(&str, u64)] = &[
    ("private", libc::MS_PRIVATE),
    ("shared", libc::MS_SHARED),
    ("slave", libc::MS_SLAVE),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// Flags of the filesystem rather than of the mount.
const SUPER: [&str; 5] = ["sync", "dirsync", "lazytime", "mand", "silent"];
const SUPER_OFF: [&str; 6] = ["async", "nolazytime", "nomand", "loud", "defaults", "iversion"];

impl Words {
    pub(super) fn parse(words: &[String]) -> Self {
        let mut parsed = Self::default();
        for word in words {
            parsed.add(word);
        }
        parsed
    }

    fn add(&mut self, word: &str) {
        if self.attribute(word, false) || self.propagation(word) {
            return;
        }
        match word {
            "bind" => self.bind = self.bind.or(Some(Reach::One)),
            "rbind" => self.bind = Some(Reach::Tree),
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.id_mapped = Some(Reach::One),
            "ridmap" => self.id_mapped = Some(Reach::Tree),
            "remount" | "" => {}
            _ if SUPER_OFF.contains(&word) => {}
            _ => {
                if let Some(flag) = SUPER.iter().find(|flag| **flag == word) {
                    self.super_flags.push(flag);
                } else if !word.strip_prefix('r').is_some_and(|rest| self.attribute(rest, true)) {
                    self.data.push(word.to_owned());
                }
            }
        }
    }

    fn attribute(&mut self, word: &str, recursive: bool) -> bool {
        let (set, clear) =
            if recursive { (&mut self.rset, &mut self.rclear) } else { (&mut self.set, &mut self.clear) };
        if let Some((_, bit, on)) = ATTRIBUTES.iter().find(|(name, ..)| *name == word) {
            *set = if *on { *set | bit } else { *set & !bit };
            *clear = if *on { *clear & !bit } else { *clear | bit };
            return true;
        }
        if let Some((_, value)) = ATIMES.iter().find(|(name, _)| *name == word) {
            *set = *set & !attribute::ATIME | value;
            *clear |= attribute::ATIME;
            return true;
        }
        false
    }

    fn propagation(&mut self, word: &str) -> bool {
        let named = |name: &str| PROPAGATION.iter().find(|(word, _)| *word == name);
        if let Some((_, flag)) = named(word) {
            self.propagation.push((*flag, false));
        } else if let Some((_, flag)) = word.strip_prefix('r').and_then(named) {
            self.propagation.push((*flag, true));
        } else {
            return false;
        }
        true
    }
}

/// All mounts, ready for the child. Sources of bind mounts are opened here, in the caller's view of
/// the host and with its rights, and are cloned trees from then on.
pub(super) fn plan(mounts: &[runtime::Mount], context: &Context<'_>) -> Result<Vec<Mount>> {
    let with_options = |mount: &runtime::Mount| Words::parse(&mount.options);
    mounts.iter().map(|mount| one(mount, with_options(mount), context)).collect()
}

fn one(mount: &runtime::Mount, words: Words, context: &Context<'_>) -> Result<Mount> {
    let destination = clean(&mount.destination)?;
    let bind = words.bind.or((mount.kind == "bind").then_some(Reach::One));
    let place = place(&destination, mount, bind.is_some(), context)?;
    let mut planned = Mount {
        target: c_string(destination.trim_start_matches('/'))?,
        what: What::New(filesystem(mount, &words, context)?),
        place,
        attributes: words.set as u32,
        inherit_mode: false,
        late_readonly: false,
        propagation: words.propagation.clone(),
        recursive: (words.rset, words.rclear),
    };
    if let Some(reach) = bind {
        let source = source(mount, context);
        let (tree, directory) = tree(&source, reach, mount, &words, context)?;
        planned.what = What::Tree(tree, directory);
        return Ok(planned);
    }
    if !mount.uid_mappings.is_empty() || words.id_mapped.is_some() {
        let what = format!("mount at {destination:?}: only bind mounts can map ids");
        return Err(Error::Unsupported { what });
    }
    match mount.kind.as_str() {
        "tmpfs" => {
            planned.late_readonly = words.set & attribute::RDONLY != 0;
            planned.attributes &= !(attribute::RDONLY as u32);
            planned.inherit_mode = !words.data.iter().any(|word| word.starts_with("mode="));
            if words.copy_up {
                planned.what = What::CopyUp(filesystem(mount, &words, context)?);
            }
        }
        "cgroup" | "cgroup2" => planned.what = cgroups(mount, &words, context)?,
        "" => {
            let what = format!("mount at {destination:?} has neither a type nor the option bind");
            return Err(Error::Config { what });
        }
        _ => {}
    }
    Ok(planned)
}

/// A destination as an absolute path without `.`, `..` and doubled slashes.
pub(super) fn clean(path: &str) -> Result<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => parts.push(name.to_str().unwrap_or_default()),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    if path.contains('\0') {
        return Err(Error::Config { what: format!("path {path:?} has a NUL byte in it") });
    }
    Ok(format!("/{}", parts.join("/")))
}

/// What may be mounted there at all; in runc's words, because users search for them.
fn place(destination: &str, mount: &runtime::Mount, bind: bool, context: &Context<'_>) -> Result<Place> {
    let refused =
        |why: &str| Err(Error::Config { what: format!("{destination:?} cannot be mounted because {why}") });
    if destination == "/" {
        return refused("it is the root filesystem");
    }
    if destination == "/proc" {
        let is_proc = if bind { is_procfs(&source(mount, context)) } else { mount.kind == "proc" };
        return if is_proc { Ok(Place::Plain) } else { refused("it is not of type proc") };
    }
    if destination.starts_with("/proc/") {
        let fine = REPLACEABLE.contains(&destination);
        return if fine { Ok(Place::Proc) } else { refused("it is inside /proc") };
    }
    if destination == "/sys" {
        return Ok(Place::Plain);
    }
    Ok(if destination.starts_with("/sys/") { Place::Sys } else { Place::Ordinary })
}

/// Whether a path of the host lies on procfs.
pub(crate) fn is_procfs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|s| s.f_type == PROCFS)
}

fn source(mount: &runtime::Mount, context: &Context<'_>) -> PathBuf {
    context.bundle.join(&mount.source)
}

/// Clones a tree of the host's and gives the copy its attributes.
fn tree(
    source: &Path,
    reach: Reach,
    mount: &runtime::Mount,
    words: &Words,
    context: &Context<'_>,
) -> Result<(OwnedFd, bool)> {
    let mounting = || format!("error mounting {:?} to rootfs at {:?}", mount.source, mount.destination);
    let stat = rustix::fs::stat(source).doing(|| format!("{}: stat {}", mounting(), source.display()))?;
    let tree = clone_of(source, reach).doing(mounting)?;
    let maps = mappings(mount, words, context);
    if let Some((uids, gids)) = maps {
        let user = userns::open(&uids, &gids).doing(mounting)?;
        let map = MountAttributes {
            set: attribute::IDMAP,
            userns_fd: std::os::fd::AsRawFd::as_raw_fd(&user) as u64,
            ..MountAttributes::default()
        };
        set_attributes(&tree, c"", words.id_mapped.unwrap_or(reach), &map).doing(mounting)?;
    }
    if !context.shared {
        disconnect(&tree).doing(mounting)?;
    }
    let (set, clear) = (words.set, words.clear);
    if set != 0 || clear != 0 {
        let change = MountAttributes { set, clear, ..MountAttributes::default() };
        set_attributes(&tree, c"", Reach::One, &change).doing(mounting)?;
    }
    Ok((tree, stat.st_mode & libc::S_IFMT == libc::S_IFDIR))
}

/// A detached clone of the tree at a path of the host.
pub(super) fn clone_of(path: &Path, reach: Reach) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, reach == Reach::Tree);
    Ok(open_tree(CWD, path, flags)?)
}

/// Lets host mounts reach the copy, but nothing of the copy reach the host.
pub(super) fn disconnect(tree: impl AsFd) -> io::Result<()> {
    let slave = MountAttributes { propagation: libc::MS_SLAVE, ..MountAttributes::default() };
    set_attributes(tree, c"", Reach::Tree, &slave)
}

type Maps = (Vec<IdMapping>, Vec<IdMapping>);

fn mappings(mount: &runtime::Mount, words: &Words, context: &Context<'_>) -> Option<Maps> {
    if !mount.uid_mappings.is_empty() {
        return Some((convert(&mount.uid_mappings), convert(&mount.gid_mappings)));
    }
    words.id_mapped.map(|_| (convert(context.maps.0), convert(context.maps.1)))
}

/// Mappings in the words of the system call crate.
pub(super) fn convert(maps: &[runtime::IdMapping]) -> Vec<IdMapping> {
    let one =
        |m: &runtime::IdMapping| IdMapping { inside: m.container_id, outside: m.host_id, length: m.size };
    maps.iter().map(one).collect()
}

/// Longest value that fsconfig(2) takes.
const MAX_VALUE: usize = 255;
/// Filesystems whose instances are never read-only themselves, only their mounts.
const VIRTUAL: [&str; 8] = ["proc", "sysfs", "tmpfs", "mqueue", "devpts", "cgroup", "cgroup2", "overlay"];

fn filesystem(mount: &runtime::Mount, words: &Words, context: &Context<'_>) -> Result<Filesystem> {
    let mut options = Vec::new();
    for flag in &words.super_flags {
        options.push((c_string(flag)?, None));
    }
    if words.set & attribute::RDONLY != 0 && !VIRTUAL.contains(&mount.kind.as_str()) {
        options.push((c"ro".to_owned(), None));
    }
    let label = format!("context={:?}", context.label);
    let labelled = !context.label.is_empty() && !matches!(mount.kind.as_str(), "proc" | "sysfs" | "mqueue");
    let extra = labelled.then_some(label.as_str());
    for word in words.data.iter().map(String::as_str).chain(extra) {
        options.push(match word.split_once('=') {
            Some((key, value)) => (c_string(key)?, Some(c_string(value)?)),
            None => (c_string(word)?, None),
        });
    }
    let long = options.iter().any(|(_, value)| value.as_ref().is_some_and(|v| v.count_bytes() > MAX_VALUE));
    let joined = long.then(|| c_string(&words.data.join(","))).transpose()?;
    let source = (!mount.source.is_empty()).then(|| c_string(&mount.source)).transpose()?;
    Ok(Filesystem { kind: c_string(&mount.kind)?, source, options, joined })
}

fn cgroups(mount: &runtime::Mount, words: &Words, context: &Context<'_>) -> Result<What> {
    let view = |kind: &str, words: Vec<(CString, Option<CString>)>, path: &Path| -> Result<CgroupView> {
        if context.cgroup_namespace {
            let kind = c_string(kind)?;
            let source = Some(c"cgroup".to_owned());
            return Ok(CgroupView::Mount(Filesystem { kind, source, options: words, joined: None }));
        }
        Ok(CgroupView::Bind(c_string(&path.to_string_lossy())?))
    };
    let all = match context.cgroups {
        Hierarchies::V2(own) => return Ok(What::CgroupV2(view("cgroup2", Vec::new(), own)?)),
        Hierarchies::V1(all) => all,
    };
    let mut hierarchies = Vec::new();
    let mut links = Vec::new();
    for hierarchy in all {
        let options = hierarchy.options.iter().map(|word| {
            Ok(match word.split_once('=') {
                Some((key, value)) => (c_string(key)?, Some(c_string(value)?)),
                None => (c_string(word)?, None),
            })
        });
        let kind = if hierarchy.unified { "cgroup2" } else { "cgroup" };
        let view = view(kind, options.collect::<Result<_>>()?, &hierarchy.own)?;
        hierarchies.push((c_string(&hierarchy.name)?, view));
        for link in &hierarchy.links {
            links.push((c_string(link)?, c_string(&hierarchy.name)?));
        }
    }
    let base = runtime::Mount { kind: "tmpfs".into(), source: "tmpfs".into(), ..Default::default() };
    let mode = Words { data: vec!["mode=755".into()], ..Words::default() };
    let _ = (mount, words);
    Ok(What::CgroupV1 { base: filesystem(&base, &mode, context)?, hierarchies, links })
}

/// A C string, which cannot have a NUL in it.
pub(super) fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::Config { what: format!("{text:?} has a NUL byte in it") })
}

#[cfg(test)]
mod tests;
