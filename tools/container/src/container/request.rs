//! What callers ask for.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use berth_oci::runtime::{Process, Spec};

/// What a process' standard streams are.
#[derive(Debug, Default)]
pub enum Stdio {
    /// Those of the calling process.
    #[default]
    Inherit,
    /// These, for standard input, output and error. They are closed here once the process has them.
    Fds([OwnedFd; 3]),
    /// A terminal, whose master side comes back in [`Made::terminal`] or [`Execed::terminal`]
    /// (`process.terminal` must be set).
    Terminal,
    /// A terminal, whose master side is sent to this unix socket (runc's `--console-socket`).
    ConsoleSocket(PathBuf),
}

/// Who arranges cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// This crate, by the cgroup filesystem.
    #[default]
    Cgroupfs,
    /// systemd, asked over D-Bus for a scope; `cgroupsPath` is then `slice:prefix:name`.
    Systemd,
}

/// How the container's root becomes `/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootSwitch {
    /// `pivot_root(2)`.
    #[default]
    Pivot,
    /// `MS_MOVE` and `chroot(2)`, for a root on initramfs (runc's `--no-pivot`).
    Move,
}

/// Whether the process gets a session keyring of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keyring {
    /// A new one, named `_ses.ID`.
    #[default]
    New,
    /// The caller's (runc's `--no-new-keyring`).
    Keep,
}

/// A container to make.
#[derive(Debug, Default)]
pub struct Create {
    /// Its name: letters, digits and `_+-.`.
    pub id: String,
    /// Absolute path of the folder with `config.json`.
    pub bundle: PathBuf,
    /// Folder in which each container has one of its own (runc's `--root`).
    pub root: PathBuf,
    /// The configuration, when the caller has read `config.json` already.
    pub spec: Option<Spec>,
    /// Its standard streams.
    pub stdio: Stdio,
    /// Descriptors 3 to 3+n of the calling process that the container keeps (and those of
    /// `LISTEN_FDS` that the caller adds).
    pub preserve_fds: u32,
    /// How the root becomes `/`.
    pub root_switch: RootSwitch,
    /// Session keyring.
    pub keyring: Keyring,
    /// Who arranges cgroups.
    pub cgroup_driver: CgroupDriver,
    /// A detached mount (`fsmount(2)`, `open_tree(2)`) to be the root filesystem: it is attached at
    /// the configured root path in the container's mount namespace only, so that the host has
    /// neither a mount to see nor one to undo. Without it the path itself is taken.
    pub root_mount: Option<OwnedFd>,
}

/// A process to run in a container that is created or running.
#[derive(Debug, Default)]
pub struct Exec {
    /// The process. Absent capabilities, AppArmor profile and the like stay absent; see
    /// [`super::Container::default_process`] for runc's defaults.
    pub process: Process,
    /// Its standard streams.
    pub stdio: Stdio,
    /// As for [`Create`].
    pub preserve_fds: u32,
    /// A cgroup below the container's (or `controller:path` on v1) instead of the container's own.
    pub cgroup: Vec<String>,
    /// Session keyring.
    pub keyring: Keyring,
    /// Whether a paused container is refused (`false`) or the process waits frozen (`true`).
    pub ignore_paused: bool,
}

/// A container just made.
#[derive(Debug)]
pub struct Made {
    /// The container. Its process waits for [`super::Container::start`].
    pub container: super::Container,
    /// Master side of its terminal, with [`Stdio::Terminal`].
    pub terminal: Option<OwnedFd>,
    /// What could not be done but did not matter enough to fail; for the caller's log.
    pub warnings: Vec<String>,
}

/// A process just started by exec.
#[derive(Debug)]
pub struct Execed {
    /// Its id on the host. A direct child of the caller, who reaps it.
    pub pid: i32,
    /// A pidfd of it.
    pub pidfd: OwnedFd,
    /// Master side of its terminal, with [`Stdio::Terminal`].
    pub terminal: Option<OwnedFd>,
    /// As for [`Made`].
    pub warnings: Vec<String>,
}

/// Who a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The first process.
    Init,
    /// Every process in the container's cgroup.
    All,
}

/// Whether a container that runs is killed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Only a stopped one is deleted; a created one is killed.
    Stopped,
    /// Whatever state it is in (runc's `--force`).
    Force,
}
