//! From configuration to plan.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use berth_oci::runtime::{self, Hook, Linux, NamespaceKind, Process, Spec};
use berth_sys::mount::attributes::{MountAttributes, Reach, attribute, set_attributes};

use super::mounts::{c_string, clean, clone_of, disconnect};
use super::program::strings;
use super::{
    Device, Filter, HookCall, Init, Plan, Streams, Strings, Task, UserNamespace, check, mounts, program,
};
use crate::cgroup::Cgroup;
use crate::container::{Keyring, RootSwitch, Stdio};
use crate::error::{Doing as _, Error, Result};
use crate::seccomp;

/// What a new container's plan is made from, beside its configuration.
pub(crate) struct Setting<'a> {
    pub id: &'a str,
    pub bundle: &'a Path,
    pub cgroup: &'a Cgroup,
    pub root_mount: Option<OwnedFd>,
    pub root_switch: RootSwitch,
    pub keyring: Keyring,
    pub stdio: Stdio,
    pub preserve: u32,
    pub socket: OwnedFd,
    pub gate: OwnedFd,
    /// Room for the state document of hooks.
    pub state_room: usize,
}

/// Which namespaces the clone itself makes, and which one its parent enters for it.
pub(crate) struct Birth {
    /// `CLONE_NEW…` for the clone.
    pub flags: u64,
    /// A pid namespace to be born in.
    pub pid: Option<OwnedFd>,
    /// A user namespace to be born in, which owns the pid namespace that is made with the process: only its root may
    /// mount a /proc of that.
    pub user: Option<OwnedFd>,
}

/// A new container.
pub(crate) fn init(spec: &Spec, setting: Setting<'_>, warnings: &mut Vec<String>) -> Result<(Plan, Birth)> {
    check::spec(spec)?;
    let Some(linux) = &spec.linux else { return Err(missing("linux")) };
    let Some(process) = &spec.process else { return Err(missing("process")) };
    let root = spec.root.clone().unwrap_or_default();
    let root_path = setting.bundle.join(&root.path);
    let filter = linux.seccomp.as_ref().map(seccomp::filter).transpose()?.flatten();
    let mut namespaces = Namespaces::of(linux)?;
    let own = |kind: &NamespaceKind| linux.namespace(kind).is_some_and(|n| n.path.is_empty());
    let context = mounts::Context {
        bundle: setting.bundle,
        maps: (&linux.uid_mappings, &linux.gid_mappings),
        shared: linux.rootfs_propagation.ends_with("shared"),
        cgroups: &setting.cgroup.hierarchies,
        cgroup_namespace: linux.namespace(&NamespaceKind::Cgroup).is_some(),
        label: &linux.mount_label,
    };
    let own_dev = !spec.mounts.iter().any(|m| is_bind(m) && clean(&m.destination).is_ok_and(|d| d == "/dev"));
    let hooks = spec.hooks.clone().unwrap_or_default();
    let early = [&hooks.prestart, &hooks.create_runtime, &hooks.create_container, &hooks.start_container];
    let init = Init {
        unshare: namespaces.unshare,
        cgroup_namespace: own(&NamespaceKind::Cgroup),
        time_namespace: own(&NamespaceKind::Time).then(|| offsets(linux)),
        inherited_propagation: inherited(linux),
        root: root_tree(setting.root_mount, &root_path)?,
        root_path: c_string(&root_path.to_string_lossy())?,
        move_root: setting.root_switch == RootSwitch::Move,
        root_readonly: root.readonly,
        root_propagation: propagation(&linux.rootfs_propagation)?,
        mounts: mounts::plan(&spec.mounts, &context)?,
        own_dev,
        devices: if own_dev { devices(linux, namespaces.user != UserNamespace::Same)? } else { Vec::new() },
        masked: relative_all(&linux.masked_paths)?,
        null: null_device()?,
        readonly: relative_all(&linux.readonly_paths)?,
        hostname: spec.hostname.clone().into_bytes(),
        domainname: spec.domainname.clone().into_bytes(),
        sysctl: sysctls(linux)?,
        create_hooks: calls(&hooks.create_container)?,
        start_hooks: calls(&hooks.start_container)?,
        report_namespaces: early.iter().any(|hooks| !hooks.is_empty()),
        state: vec![0; setting.state_room],
        created_at: 0,
        gate: setting.gate,
    };
    let user = namespaces.born_in();
    let plan = Plan {
        socket: setting.socket,
        join: namespaces.join,
        user_namespace: namespaces.user,
        streams: streams(setting.stdio, process)?,
        console_size: console_size(process),
        task: Task::Init(Box::new(init)),
        program: program::plan(process, linux, filter, setting.preserve, warnings)?,
        keyring: keyring(setting.keyring, setting.id)?,
    };
    Ok((plan, Birth { flags: namespaces.clone, pid: namespaces.pid, user }))
}

/// A process beside a container's first one. `init` is a pidfd of that one.
pub(crate) fn exec(spec: &Spec, joining: Joining<'_>, warnings: &mut Vec<String>) -> Result<(Plan, Birth)> {
    let none = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&none);
    let filter = linux.seccomp.as_ref().map(seccomp::filter).transpose()?.flatten();
    let filter = filter.map(|filter| Filter { listener: filter.listener, ..filter });
    let mut flags = 0;
    let mut user = UserNamespace::Same;
    let mut pid = None;
    for namespace in &linux.namespaces {
        match &namespace.kind {
            NamespaceKind::Pid => {
                pid = Some(joining.init.try_clone().doing(|| "cannot keep a pidfd")?);
            }
            kind => flags |= clone_flag(kind)?,
        }
        if namespace.kind == NamespaceKind::User {
            user = UserNamespace::Joined;
        }
    }
    let init = joining.init.try_clone().doing(|| "cannot keep a pidfd")?;
    let mut plan = Plan {
        socket: joining.socket,
        join: if flags == 0 { Vec::new() } else { vec![(init, flags)] },
        user_namespace: user,
        streams: streams(joining.stdio, joining.process)?,
        console_size: console_size(joining.process),
        task: Task::Exec(joining.entrances),
        program: program::plan(joining.process, linux, filter, joining.preserve, warnings)?,
        keyring: keyring(joining.keyring, joining.id)?,
    };
    let affinity = joining.process.exec_cpu_affinity.as_ref();
    if let Some(list) = affinity.map(|a| a.final_set.as_str()).filter(|list| !list.is_empty()) {
        plan.program.affinity = Some(super::settings::list("execCPUAffinity.final", list)?);
    }
    Ok((plan, Birth { flags: 0, pid, user: None }))
}

/// What an exec's plan is made from, beside the container's configuration.
pub(crate) struct Joining<'a> {
    pub id: &'a str,
    pub init: &'a OwnedFd,
    pub process: &'a Process,
    pub stdio: Stdio,
    pub keyring: Keyring,
    pub preserve: u32,
    pub socket: OwnedFd,
    pub entrances: Vec<OwnedFd>,
}

fn missing(what: &str) -> Error {
    Error::Config { what: format!("{what} is missing") }
}

fn is_bind(mount: &runtime::Mount) -> bool {
    mount.kind == "bind" || mount.options.iter().any(|o| o == "bind" || o == "rbind")
}

/// What happens to each namespace.
struct Namespaces {
    clone: u64,
    unshare: i32,
    join: Vec<(OwnedFd, i32)>,
    pid: Option<OwnedFd>,
    user: UserNamespace,
}

impl Namespaces {
    fn of(linux: &Linux) -> Result<Self> {
        let mut all = Self { clone: 0, unshare: 0, join: Vec::new(), pid: None, user: UserNamespace::Same };
        for namespace in &linux.namespaces {
            let flag = clone_flag(&namespace.kind)?;
            if namespace.path.is_empty() {
                all.make(&namespace.kind, flag);
            } else {
                let file = File::open(&namespace.path)
                    .doing(|| format!("cannot open namespace {}", namespace.path))?;
                all.enter(&namespace.kind, flag, file.into());
            }
        }
        // The user namespace first: it decides what may be done in the others.
        all.join.sort_by_key(|(_, flag)| *flag != libc::CLONE_NEWUSER);
        Ok(all)
    }

    /// A user namespace must exist before anything is made in it, and a pid namespace begins with a
    /// birth; cgroup and time namespaces have their moment later.
    fn make(&mut self, kind: &NamespaceKind, flag: i32) {
        match kind {
            NamespaceKind::User => {
                self.clone |= flag as u64;
                self.user = UserNamespace::New;
            }
            NamespaceKind::Pid => self.clone |= flag as u64,
            NamespaceKind::Cgroup | NamespaceKind::Time => {}
            _ => self.unshare |= flag,
        }
    }

    /// The user namespace that has to be entered before the process is born: one that is joined by a process with a pid
    /// namespace of its own. It is not joined again.
    fn born_in(&mut self) -> Option<OwnedFd> {
        let is_user = |(_, flag): &(OwnedFd, i32)| *flag == libc::CLONE_NEWUSER;
        let first = self.join.iter().position(is_user)?;
        (self.clone & libc::CLONE_NEWPID as u64 != 0).then(|| self.join.remove(first).0)
    }

    fn enter(&mut self, kind: &NamespaceKind, flag: i32, file: OwnedFd) {
        match kind {
            NamespaceKind::Pid => self.pid = Some(file),
            NamespaceKind::User => {
                self.user = UserNamespace::Joined;
                self.join.push((file, flag));
            }
            _ => self.join.push((file, flag)),
        }
    }
}

fn clone_flag(kind: &NamespaceKind) -> Result<i32> {
    Ok(match kind {
        NamespaceKind::Pid => libc::CLONE_NEWPID,
        NamespaceKind::Network => libc::CLONE_NEWNET,
        NamespaceKind::Mount => libc::CLONE_NEWNS,
        NamespaceKind::Ipc => libc::CLONE_NEWIPC,
        NamespaceKind::Uts => libc::CLONE_NEWUTS,
        NamespaceKind::User => libc::CLONE_NEWUSER,
        NamespaceKind::Cgroup => libc::CLONE_NEWCGROUP,
        NamespaceKind::Time => libc::CLONE_NEWTIME,
        NamespaceKind::Other(name) => {
            return Err(Error::Config { what: format!("namespace {name:?} does not exist") });
        }
    })
}

/// Lines for `timens_offsets`.
fn offsets(linux: &Linux) -> Vec<u8> {
    let line = |(clock, offset): (&String, &runtime::TimeOffset)| {
        format!("{clock} {} {}\n", offset.secs, offset.nanosecs)
    };
    linux.time_offsets.iter().map(line).collect::<String>().into_bytes()
}

fn inherited(linux: &Linux) -> u64 {
    if linux.rootfs_propagation.ends_with("private") { libc::MS_PRIVATE } else { libc::MS_SLAVE }
}

fn propagation(word: &str) -> Result<Option<(u64, bool)>> {
    let (name, recursive) = word.strip_prefix('r').map_or((word, false), |name| (name, true));
    Ok(Some(match name {
        "" => return Ok(None),
        "shared" => (libc::MS_SHARED, recursive),
        "slave" => (libc::MS_SLAVE, recursive),
        "private" => (libc::MS_PRIVATE, recursive),
        "unbindable" => (libc::MS_UNBINDABLE, recursive),
        _ => return Err(Error::Config { what: format!("rootfsPropagation={word} is not supported") }),
    }))
}

/// The root filesystem as a detached mount.
fn root_tree(given: Option<OwnedFd>, path: &Path) -> Result<OwnedFd> {
    if let Some(mount) = given {
        return Ok(mount);
    }
    let doing = || format!("invalid rootfs: {}", path.display());
    let stat = rustix::fs::stat(path).doing(doing)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFDIR {
        return Err(Error::Config { what: format!("{}: not a directory", doing()) });
    }
    let tree = clone_of(path, Reach::Tree).doing(doing)?;
    disconnect(&tree).doing(doing)?;
    Ok(tree)
}

/// The host's null device behind a mount that cannot be used to change it.
fn null_device() -> Result<OwnedFd> {
    let doing = || "cannot clone /dev/null";
    let null = clone_of(Path::new("/dev/null"), Reach::One).doing(doing)?;
    let stat = rustix::fs::fstat(&null).doing(doing)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || stat.st_rdev != rustix::fs::makedev(1, 3) {
        return Err(Error::Unsupported { what: "/dev/null of this machine is not the null device".into() });
    }
    let change = MountAttributes {
        set: attribute::RDONLY | attribute::NOSUID | attribute::NOEXEC,
        propagation: libc::MS_PRIVATE,
        ..MountAttributes::default()
    };
    set_attributes(&null, c"", Reach::One, &change).doing(doing)?;
    Ok(null)
}

/// Name, minor and major of the devices that every container has.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("random", 1, 8), ("full", 1, 7), ("tty", 5, 0), ("zero", 1, 5), ("urandom", 1, 9)];

/// The default devices and those of the configuration, in the order in which failures are numbered.
pub(crate) fn device_list(linux: &Linux) -> Vec<runtime::Device> {
    let given = |path: &str| linux.devices.iter().any(|d| clean(&d.path).is_ok_and(|p| p == path));
    let default = |(name, major, minor): &(&str, u32, u32)| runtime::Device {
        path: format!("/dev/{name}"),
        kind: "c".into(),
        major: (*major).into(),
        minor: (*minor).into(),
        file_mode: Some(0o666),
        ..Default::default()
    };
    let defaults = DEVICES.iter().map(default).filter(|d| !given(&d.path));
    defaults.chain(linux.devices.iter().cloned()).collect()
}

fn devices(linux: &Linux, bind: bool) -> Result<Vec<Device>> {
    let one = |device: &runtime::Device| {
        let path = clean(&device.path)?;
        let kind = match device.kind.as_str() {
            "c" | "u" => libc::S_IFCHR,
            "b" => libc::S_IFBLK,
            "p" => libc::S_IFIFO,
            other => {
                let what = format!("device {path} is of type {other:?}: types are c, u, b, p");
                return Err(Error::Config { what });
            }
        };
        let (major, minor) = (u32::try_from(device.major), u32::try_from(device.minor));
        let number = if kind == libc::S_IFIFO {
            0
        } else {
            let (Ok(major), Ok(minor)) = (major, minor) else {
                return Err(Error::Config { what: format!("device {path} has no valid number") });
            };
            rustix::fs::makedev(major, minor)
        };
        let host = || clone_of(Path::new(&path), Reach::One).doing(|| format!("cannot clone device {path}"));
        Ok(Device {
            bind: bind.then(host).transpose()?,
            path: c_string(path.trim_start_matches('/'))?,
            mode: kind | device.file_mode.unwrap_or(0o666) & 0o7777,
            device: number,
            uid: device.uid.unwrap_or(0),
            gid: device.gid.unwrap_or(0),
        })
    };
    device_list(linux).iter().map(one).collect()
}

fn relative_all(paths: &[String]) -> Result<Vec<CString>> {
    paths.iter().map(|path| c_string(clean(path)?.trim_start_matches('/'))).collect()
}

/// A path cleaned and without its leading slash.
pub(crate) fn relative(path: &str) -> Result<String> {
    Ok(clean(path)?.trim_start_matches('/').to_owned())
}

fn sysctls(linux: &Linux) -> Result<Vec<(CString, Vec<u8>)>> {
    let one = |(key, value): (&String, &String)| {
        Ok((c_string(&check::sysctl_path(key))?, value.clone().into_bytes()))
    };
    linux.sysctl.iter().map(one).collect()
}

fn calls(hooks: &[Hook]) -> Result<Vec<HookCall>> {
    let one = |hook: &Hook| {
        if !hook.path.starts_with('/') {
            return Err(Error::Config { what: format!("hook {:?} is not an absolute path", hook.path) });
        }
        let seconds = hook.timeout.unwrap_or(0);
        if hook.timeout.is_some_and(|t| t <= 0) {
            return Err(Error::Config { what: format!("hook {}: timeout must be above 0", hook.path) });
        }
        let args = if hook.args.is_empty() { vec![hook.path.clone()] } else { hook.args.clone() };
        Ok(HookCall {
            path: c_string(&hook.path)?,
            argv: Strings::new(strings(&args)?, 0),
            envp: Strings::new(strings(&hook.env)?, 0),
            timeout: i32::try_from(seconds.saturating_mul(1000)).unwrap_or(i32::MAX),
        })
    };
    hooks.iter().map(one).collect()
}

fn streams(stdio: Stdio, process: &Process) -> Result<Streams> {
    let refused = |what: &str| Err(Error::Config { what: what.into() });
    match (stdio, process.terminal) {
        (Stdio::Terminal | Stdio::ConsoleSocket(_), true) => Ok(Streams::Terminal),
        (Stdio::Terminal, false) => refused("a terminal is handed back only if process.terminal is set"),
        (Stdio::ConsoleSocket(_), false) => {
            refused("cannot use console socket if runc will not detach or allocate tty")
        }
        (Stdio::Inherit | Stdio::Fds(_), true) => {
            refused("cannot allocate tty if runc will detach without setting console socket")
        }
        (Stdio::Inherit, false) => Ok(Streams::Inherit),
        (Stdio::Fds(fds), false) => Ok(Streams::Fds(fds)),
    }
}

fn console_size(process: &Process) -> Option<(u16, u16)> {
    let size = process.console_size.as_ref()?;
    Some((u16::try_from(size.height).ok()?, u16::try_from(size.width).ok()?))
}

fn keyring(keyring: Keyring, id: &str) -> Result<Option<CString>> {
    match keyring {
        Keyring::Keep => Ok(None),
        Keyring::New => c_string(&format!("_ses.{id}")).map(Some),
    }
}
