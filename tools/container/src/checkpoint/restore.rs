//! Files become processes again.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_oci::runtime::{Linux, Mount, NamespaceKind, OCI_VERSION, Spec, State, Status};
use berth_sys::beneath;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::SocketType;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid};

use super::criu::{self, Criu, FIRST_GIVEN, Listener, Privileges};
use super::dump::{self, Folders, external_namespaces};
use super::images::Images;
use super::places::Places;
use super::rpc::{CgroupRoot, Inherit, Join, Kind, Options};
use super::streams::Streams;
use super::verify::{self, Expected};
use super::{CgroupsMode, Restore};
use crate::cgroup::Cgroup;
use crate::container::conversation::send_fd;
use crate::container::record::{Folder, Record};
use crate::container::{Container, Create, Made, Stdio, create, hooks, moment, process};
use crate::error::{Doing as _, Error, Result};
use crate::{apparmor, plan, seccomp};

const LOG: &str = "restore.log";
/// Where the root filesystem is mounted for CRIU, which wants a mount of its own.
const ROOT: &str = "criu-root";

/// Brings a container back. Its processes run when this returns; the first one is a child of the caller.
pub(crate) fn restore(restore: Restore) -> Result<Made> {
    let create = &restore.create;
    let folder = Folder::of(&create.root, &create.id)?;
    let spec = match &create.spec {
        Some(spec) => spec.clone(),
        None => create::read_spec(&create.bundle)?,
    };
    plan::check(&spec)?;
    criu::program()?;
    dump::refuse(&spec)?;
    let linux = spec.linux.clone().unwrap_or_default();
    let cgroup = Cgroup::locate(&linux.cgroups_path, &create.id, create.cgroup_driver)?;
    folder.make(&create.id)?;
    let undo = Undo { folder: &folder, cgroup: &cgroup };
    create::refuse_others(&cgroup)?;
    let made = bring_back(&restore, &spec, &folder, &cgroup)?;
    std::mem::forget(undo);
    Ok(made)
}

fn bring_back(restore: &Restore, spec: &Spec, folder: &Folder, cgroup: &Cgroup) -> Result<Made> {
    let create = &restore.create;
    let linux = spec.linux.clone().unwrap_or_default();
    let places = Places::of(spec, &create.bundle, cgroup);
    let images = Images::gather(&restore.images, &create.id)?;
    let external_mounts = places.sources(&images.mounts()?)?;
    let filtered = set_filter(&images, &linux)?;
    let label = label(spec)?;
    let streams = Streams::read(images.folder())?;
    let given = Given::open(&create.stdio, spec)?;
    let root = Root::mount(spec, create, folder.path().join(ROOT))?;
    let folders =
        Folders::open(images.folder(), Some(restore.work.as_ref().unwrap_or(&restore.images)), LOG)?;

    let fixed = spec.process.as_ref().is_some_and(|process| process.no_new_privileges);
    let criu = Criu::start(given.fds(), if fixed { Privileges::Fixed } else { Privileges::Free })?;
    let mut warnings = Vec::new();
    let resources = linux.resources.clone().unwrap_or_default();
    cgroup.take_in(criu.pid(), &resources)?;
    cgroup.apply_first(&resources, &mut warnings)?;
    let ignores = restore.circumstances.cgroups == Some(CgroupsMode::Ignore);
    let order = Options {
        root: Some(root.path.to_string_lossy().into_owned()),
        parent: restore.parent.as_ref().map(|path| path.to_string_lossy().into_owned()),
        evasive_devices: Some(true),
        sibling: Some(true),
        external_mounts,
        cgroup_roots: if ignores {
            Vec::new()
        } else {
            cgroup.below_top().map(|path| CgroupRoot { path }).into_iter().collect()
        },
        inherit: given.inherited(&streams),
        join: joined(&linux),
        label,
        ..dump::options(&folders, LOG, &restore.circumstances)
    };
    let state = State {
        oci_version: OCI_VERSION.into(),
        id: create.id.clone(),
        status: Status::Creating,
        pid: 0,
        bundle: create.bundle.to_string_lossy().into_owned(),
        annotations: spec.annotations.clone(),
    };
    let expected = Expected { spec, places: &places, cgroup, filtered };
    let mut way = Way { expected, state, create, terminal: None, first: None };
    let response = criu.order(Kind::Restore, order, &mut way);
    let pid = match response {
        Ok(response) if response.success => response.restored.map_or(0, |restored| restored.pid),
        Ok(response) => {
            return Err(criu::failed(
                &format!("bring container {} back", create.id),
                &response,
                folders.log(),
            ));
        }
        Err(error) => {
            way.end();
            // As long as it lives, it holds those that were ended.
            drop(criu);
            way.reap();
            folders.tidy();
            return Err(error);
        }
    };
    let terminal = way.terminal.take();
    let record = Record {
        version: Record::VERSION,
        id: create.id.clone(),
        bundle: create.bundle.clone(),
        pid,
        start_time: process::stat(pid).map_or(0, |(_, started)| started),
        created: moment::now(),
        cgroup: cgroup.clone(),
        rdt: None,
        spec: spec.clone(),
    };
    folder.write(&record)?;
    let pidfd = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let container = Container::restored(folder.clone(), record, pidfd);
    Ok(Made { container, terminal, warnings })
}

/// Puts the configuration's filter in the place of the one that the container had. True when there is one.
fn set_filter(images: &Images, linux: &Linux) -> Result<bool> {
    let Some(filter) = linux.seccomp.as_ref().map(seccomp::filter).transpose()?.flatten() else {
        return Ok(false);
    };
    let mut bytes = Vec::with_capacity(8 * filter.program.len());
    for one in &filter.program {
        bytes.extend(one.code.to_ne_bytes());
        bytes.extend([one.jt, one.jf]);
        bytes.extend(one.k.to_ne_bytes());
    }
    if images.set_first_filter(&bytes, filter.flags & seccomp::FLAG_LOG)? {
        return Ok(true);
    }
    let what = "the configuration has a filter of system calls, and the processes of the checkpoint had none";
    Err(Error::Config { what: what.into() })
}

/// The label that the processes get, whatever the checkpoint says.
fn label(spec: &Spec) -> Result<Option<String>> {
    let process = spec.process.clone().unwrap_or_default();
    if !process.apparmor_profile.is_empty() {
        apparmor::provide(&process.apparmor_profile)?;
        return Ok(Some(format!("apparmor:{}", process.apparmor_profile)));
    }
    Ok(Some(process.selinux_label).filter(|label| !label.is_empty()).map(|label| format!("selinux:{label}")))
}

/// Namespaces by path that CRIU enters for the processes.
fn joined(linux: &Linux) -> Vec<Join> {
    let kinds = [(NamespaceKind::Ipc, "ipc"), (NamespaceKind::Uts, "uts")];
    let path = |kind: &NamespaceKind| linux.namespace(kind).filter(|one| !one.path.is_empty());
    kinds
        .iter()
        .filter_map(|(kind, word)| Some(Join { kind: (*word).into(), path: path(kind)?.path.clone() }))
        .collect()
}

/// What the restored processes get from outside: three streams, and the namespaces that are not their own.
struct Given {
    fds: Vec<OwnedFd>,
    streams: usize,
    namespaces: Vec<String>,
}

impl Given {
    fn open(stdio: &Stdio, spec: &Spec) -> Result<Self> {
        let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().doing(|| "cannot copy a stream");
        let mut fds: Vec<OwnedFd> = match stdio {
            Stdio::Inherit => {
                vec![copy(io::stdin().as_fd())?, copy(io::stdout().as_fd())?, copy(io::stderr().as_fd())?]
            }
            Stdio::Fds(fds) => fds.iter().map(|fd| copy(fd.as_fd())).collect::<Result<_>>()?,
            Stdio::Terminal | Stdio::ConsoleSocket(_) => Vec::new(),
        };
        let streams = fds.len();
        let null =
            || File::options().read(true).write(true).open("/dev/null").doing(|| "cannot open /dev/null");
        while fds.len() < 3 {
            fds.push(null()?.into());
        }
        let mut namespaces = Vec::new();
        for namespace in external_namespaces(spec)? {
            let file = File::open(&namespace.path);
            fds.push(file.doing(|| format!("cannot open namespace {}", namespace.path.display()))?.into());
            namespaces.push(namespace.key);
        }
        while fds.len() < 5 {
            fds.push(null()?.into());
        }
        Ok(Self { fds, streams, namespaces })
    }

    fn fds(&self) -> [BorrowedFd<'_>; 5] {
        std::array::from_fn(|at| self.fds[at].as_fd())
    }

    /// Which of CRIU's descriptors stands for what the checkpoint has under which name.
    fn inherited(&self, streams: &Streams) -> Vec<Inherit> {
        let number = |at: usize| FIRST_GIVEN + at as i32;
        let mut all: Vec<Inherit> = Vec::new();
        for (at, key) in streams.given().filter(|(at, _)| *at < self.streams) {
            if !all.iter().any(|known| known.key == key) {
                all.push(Inherit { key: key.to_owned(), fd: number(at) });
            }
        }
        let namespaces = self.namespaces.iter().enumerate();
        all.extend(namespaces.map(|(at, key)| Inherit { key: key.clone(), fd: number(3 + at) }));
        all
    }
}

/// The root filesystem as a mount of its own, as long as CRIU needs it.
struct Root {
    path: PathBuf,
}

impl Root {
    fn mount(spec: &Spec, create: &Create, path: PathBuf) -> Result<Self> {
        let from = create.bundle.join(spec.root.as_ref().map_or("rootfs", |root| &root.path));
        let doing = || format!("cannot mount {} at {}", from.display(), path.display());
        fs::create_dir(&path).doing(doing)?;
        let flags = MountFlags::BIND | MountFlags::REC;
        let mounted = rustix::mount::mount(&from, &path, c"", flags, None);
        if mounted.is_err() {
            let _ = fs::remove_dir(&path);
        }
        mounted.doing(doing)?;
        // It keeps its propagation: CRIU gives the container's root that of its source.
        let root = Self { path };
        mount_points(&root.path, spec, &create.bundle)?;
        if spec.root.as_ref().is_some_and(|root| root.readonly) {
            // CRIU takes the root as it is, and not as it was.
            let flags = MountFlags::BIND | MountFlags::RDONLY;
            let limited = rustix::mount::mount_remount(&root.path, flags, c"");
            limited.doing(|| format!("cannot make {} read-only", root.path.display()))?;
        }
        Ok(root)
    }
}

/// CRIU mounts over what is there, and makes nothing itself. Mounts that lie on other mounts find their points there.
fn mount_points(root: &Path, spec: &Spec, bundle: &Path) -> Result<()> {
    let root = beneath::Root::open(root).doing(|| format!("cannot open {}", root.display()))?;
    let destination = |mount: &Mount| PathBuf::from(mount.destination.trim_matches('/'));
    let all: Vec<PathBuf> = spec.mounts.iter().map(destination).collect();
    for (mount, path) in spec.mounts.iter().zip(&all) {
        if all.iter().any(|above| above != path && path.starts_with(above)) {
            continue;
        }
        let has = |word: &str| mount.options.iter().any(|option| option == word);
        let is_file = (has("bind") || has("rbind")) && !bundle.join(&mount.source).is_dir();
        let made = if is_file { make_file(&root, path) } else { root.make_dirs(path).map(drop) };
        made.doing(|| format!("cannot make the mount point {}", mount.destination))?;
    }
    Ok(())
}

fn make_file(root: &beneath::Root, path: &Path) -> io::Result<()> {
    match root.entry_making_parents(path, &mut |_, _| Ok(()))?.create_file() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done.map(drop),
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // The container has mounts of its own by now, or none.
        let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.path);
    }
}

/// What happens on the way.
struct Way<'a> {
    expected: Expected<'a>,
    state: State,
    create: &'a Create,
    terminal: Option<OwnedFd>,
    /// The first process, once it is there.
    first: Option<i32>,
}

impl Way<'_> {
    /// Ends every process that has come to be.
    fn end(&self) {
        let Some(first) = self.first else { return };
        // In a pid namespace of its own all others end with it; else they are found through it.
        for pid in verify::family(first).unwrap_or_else(|_| vec![first]) {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

impl Way<'_> {
    /// Takes the status of the first process, if it was the caller's child by then and nobody else has taken it.
    fn reap(&self) {
        if let Some(first) = self.first.and_then(Pid::from_raw) {
            let _ = waitpid(Some(first), WaitOptions::empty());
        }
    }
}

impl Listener for Way<'_> {
    fn at(&mut self, point: &str, pid: Option<i32>, fd: Option<OwnedFd>) -> Result<()> {
        if let Some(pid) = pid.filter(|pid| *pid > 0) {
            self.first = Some(pid);
            self.state.pid = pid;
        }
        match point {
            "setup-namespaces" => {
                let configured = self.expected.spec.hooks.clone().unwrap_or_default();
                hooks::run("prestart", &configured.prestart, &self.state)?;
                hooks::run("createRuntime", &configured.create_runtime, &self.state)
            }
            "orphan-pts-master" => self.take_terminal(fd),
            "pre-resume" => self.expected.check(self.state.pid),
            _ => Ok(()),
        }
    }
}

impl Way<'_> {
    fn take_terminal(&mut self, fd: Option<OwnedFd>) -> Result<()> {
        let Some(master) = fd else { return Ok(()) };
        if let Stdio::ConsoleSocket(path) = &self.create.stdio {
            let path = self.create.bundle.join(path);
            return send_fd(&path, SocketType::STREAM, b"/dev/ptmx", master.as_fd())
                .doing(|| format!("cannot send the terminal to {}", path.display()));
        }
        self.terminal = Some(master);
        Ok(())
    }
}

/// Takes back what was made.
struct Undo<'a> {
    folder: &'a Folder,
    cgroup: &'a Cgroup,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        // The error that led here is the one to tell. Processes that are left in the cgroup end with it.
        let _ = self.cgroup.remove();
        let _ = self.folder.remove();
    }
}
