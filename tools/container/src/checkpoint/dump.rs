//! Processes become files.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use berth_oci::runtime::{NamespaceKind, Spec};
use berth_sys::mount::info;

use super::criu::{self, Criu, Listener, Privileges};
use super::places::Places;
use super::rpc::{Kind, Options, PageServer};
use super::streams::Streams;
use super::{After, CgroupsMode, Checkpoint, Circumstances};
use crate::cgroup::Cgroup;
use crate::error::{Doing as _, Error, Result};

const LOG: &str = "dump.log";
/// `CLONE_NEWNET`, the one namespace that CRIU can leave empty.
const EMPTY_NETWORK: u32 = libc::CLONE_NEWNET as u32;
/// How packets are held back meanwhile where there is no program for it: over netlink.
const BY_NFTABLES: i32 = 2;
/// Everything; a failure needs it, and nobody else reads it.
const LOG_LEVEL: i32 = 4;

/// What is saved.
pub(crate) struct Saved<'a> {
    pub id: &'a str,
    pub pid: i32,
    pub spec: &'a Spec,
    pub bundle: &'a Path,
    pub cgroup: &'a Cgroup,
}

/// Nobody who objects.
struct Nobody;

impl Listener for Nobody {
    fn at(&mut self, _: &str, _: Option<i32>, _: Option<OwnedFd>) -> Result<()> {
        Ok(())
    }
}

/// The folders of an order, open as long as CRIU needs them.
pub(super) struct Folders {
    images: File,
    work: File,
    log: PathBuf,
}

impl Folders {
    pub(super) fn open(images: &Path, work: Option<&Path>, log: &str) -> Result<Self> {
        let work = work.unwrap_or(images);
        let open = |path: &Path| {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .and_then(|()| File::open(path))
                .doing(|| format!("cannot make {}", path.display()))
        };
        Ok(Self { images: open(images)?, work: open(work)?, log: work.join(log) })
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// Removes what CRIU makes there for as long as it runs, after one that was killed: mounts of cgroups.
    pub(super) fn tidy(&self) {
        let entries =
            self.log.parent().and_then(|work| fs::read_dir(work).ok()).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".criu.")) {
            // What cannot be removed was not CRIU's.
            let _ = rustix::mount::unmount(entry.path(), rustix::mount::UnmountFlags::DETACH);
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// What both directions tell CRIU.
pub(super) fn options(folders: &Folders, log: &str, circumstances: &Circumstances) -> Options {
    Options {
        images: folders.images.as_raw_fd(),
        work: Some(folders.work.as_raw_fd()),
        log_level: Some(LOG_LEVEL),
        log_file: Some(log.into()),
        notify: Some(true),
        open_tcp: Some(circumstances.open_tcp),
        external_unix_sockets: Some(circumstances.external_unix_sockets),
        shell_job: Some(circumstances.shell_job),
        file_locks: Some(circumstances.file_locks),
        empty_namespaces: circumstances.empty_network.then_some(EMPTY_NETWORK),
        cgroups: Some(circumstances.cgroups.unwrap_or(CgroupsMode::Soft).wire()),
        auto_dedup: Some(circumstances.auto_dedup),
        orphan_terminal: Some(true),
        network_lock: (!criu::has("iptables-restore")).then_some(BY_NFTABLES),
        ..Options::default()
    }
}

/// Saves a container's processes into files. When they are to end, they are dead when this returns.
pub(crate) fn dump(saved: &Saved<'_>, checkpoint: &Checkpoint) -> Result<()> {
    let Saved { id, pid, spec, bundle, cgroup } = saved;
    criu::program()?;
    let streams = Streams::of(*pid)?;
    let mounts = format!("/proc/{pid}/mountinfo");
    let mounts = info::read(Path::new(&mounts)).doing(|| format!("cannot read {mounts}"))?;
    let folders = Folders::open(&checkpoint.images, checkpoint.work.as_deref(), LOG)?;
    let memory_only = checkpoint.after == After::RunsMemoryOnly;
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let order = Options {
        pid: Some(*pid),
        leave_running: Some(checkpoint.after == After::Runs),
        page_server: checkpoint.page_server.as_ref().map(|(address, port)| PageServer {
            address: Some(address.clone()),
            port: Some(i32::from(*port)),
        }),
        root: Some(path(&bundle.join(spec.root.as_ref().map_or("rootfs", |root| &root.path)))),
        parent: checkpoint.parent.as_deref().map(path),
        track_memory: Some(memory_only || checkpoint.parent.is_some()),
        link_remap: Some(checkpoint.link_remap),
        skip_tcp_in_flight: Some(checkpoint.skip_tcp_in_flight),
        external_mounts: Places::of(spec, bundle, cgroup).outside(&mounts),
        external: external_namespaces(spec)?
            .into_iter()
            .map(|one| one.told)
            .chain(streams.external())
            .collect(),
        freezer: cgroup.directory().map(path),
        ..options(&folders, LOG, &checkpoint.circumstances)
    };
    let kind = if memory_only { Kind::PreDump } else { Kind::Dump };
    let null = File::options().read(true).write(true).open("/dev/null").doing(|| "cannot open /dev/null")?;
    let response = Criu::start([null.as_fd(); 5], Privileges::Free)?.order(kind, order, &mut Nobody)?;
    if !response.success {
        return Err(criu::failed(&format!("save container {id}"), &response, folders.log()));
    }
    if memory_only { Ok(()) } else { streams.write(&checkpoint.images) }
}

/// A namespace that is not the container's own: it is there before and after.
pub(super) struct ExternalNamespace {
    /// CRIU's name for it, as an inherited descriptor's.
    pub key: String,
    /// How CRIU is told of it at the dump.
    told: String,
    pub path: PathBuf,
}

/// Those of the kinds that CRIU can leave out: network and processes.
pub(super) fn external_namespaces(spec: &Spec) -> Result<Vec<ExternalNamespace>> {
    let Some(linux) = &spec.linux else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for (kind, word) in [(NamespaceKind::Network, "net"), (NamespaceKind::Pid, "pid")] {
        let Some(namespace) = linux.namespace(&kind).filter(|namespace| !namespace.path.is_empty()) else {
            continue;
        };
        let path = PathBuf::from(&namespace.path);
        let inode =
            fs::metadata(&path).doing(|| format!("cannot look at namespace {}", path.display()))?.ino();
        let key = format!("berth-{word}");
        all.push(ExternalNamespace { told: format!("{word}[{inode}]:{key}"), key, path });
    }
    Ok(all)
}

/// Refuses what CRIU could not bring back as it was.
pub(crate) fn refuse(spec: &Spec) -> Result<()> {
    let linux = spec.linux.clone().unwrap_or_default();
    let listens = linux.seccomp.is_some_and(|seccomp| !seccomp.listener_path.is_empty());
    let what = if listens {
        "its system calls are answered by an agent (seccomp.listenerPath)"
    } else if !linux.uid_mappings.is_empty() {
        "it has a user namespace"
    } else {
        return Ok(());
    };
    Err(Error::Unsupported { what: format!("a container cannot be saved or brought back when {what}") })
}
