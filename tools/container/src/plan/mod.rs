//! What a new process does before it runs its program, prepared in full.
//!
//! The process is a clone of one that may have threads, so it can neither allocate nor take locks
//! (see [`berth_sys::child`]). Whatever it needs is here: paths as C strings, vectors of pointers,
//! open descriptors, the compiled filter. [`build`] makes a plan from a configuration, and is where
//! a configuration is checked; [`crate::child`] carries it out; [`crate::report`] turns the step and
//! number of a failure back into words.

mod build;
mod check;
mod identity;
mod mounts;
mod program;
mod settings;

use std::ffi::CString;
use std::os::fd::OwnedFd;

use berth_sys::child::{BpfInstruction, CapabilityMasks, SchedAttributes};

pub(crate) use self::build::{Birth, Joining, Setting, device_list, exec, init, relative};
pub(crate) use self::check::spec as check;

/// Everything for one new process.
pub(crate) struct Plan {
    /// The child's end of the socket to its parent.
    pub socket: OwnedFd,
    /// Namespaces to enter, in order: descriptor and `CLONE_NEW…`.
    pub join: Vec<(OwnedFd, i32)>,
    /// Whether to wait for the maps of a new user namespace.
    pub user_namespace: UserNamespace,
    /// What its streams are.
    pub streams: Streams,
    /// Size of its terminal, rows and columns.
    pub console_size: Option<(u16, u16)>,
    /// Making a container, or joining one.
    pub task: Task,
    /// The process itself.
    pub program: Program,
    /// Name of a new session keyring.
    pub keyring: Option<CString>,
}

/// The user namespace of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UserNamespace {
    /// The caller's.
    Same,
    /// A new one, whose maps the parent writes.
    New,
    /// An existing one.
    Joined,
}

/// Standard streams.
pub(crate) enum Streams {
    /// As they are.
    Inherit,
    /// These.
    Fds([OwnedFd; 3]),
    /// A terminal of the container's own; the master goes to the parent.
    Terminal,
}

/// What comes before the program.
pub(crate) enum Task {
    /// A new container.
    Init(Box<Init>),
    /// A process beside a container's first: the `tasks` or `cgroup.procs` files to join.
    Exec(Vec<OwnedFd>),
}

/// The making of a container.
pub(crate) struct Init {
    /// New namespaces, `CLONE_NEW…`, apart from the user, pid, cgroup and time namespaces.
    pub unshare: i32,
    /// A cgroup namespace of its own, made once the cgroup is joined.
    pub cgroup_namespace: bool,
    /// A new time namespace, with this text for `timens_offsets`.
    pub time_namespace: Option<Vec<u8>>,
    /// Propagation of everything inherited: `MS_SLAVE` or `MS_PRIVATE`.
    pub inherited_propagation: u64,
    /// The root filesystem as a detached mount.
    pub root: OwnedFd,
    /// Where it is attached.
    pub root_path: CString,
    /// `MS_MOVE` instead of pivot_root.
    pub move_root: bool,
    /// Whether the root is read-only.
    pub root_readonly: bool,
    /// Propagation of the root at the end, and whether it is recursive.
    pub root_propagation: Option<(u64, bool)>,
    /// In order.
    pub mounts: Vec<Mount>,
    /// Whether /dev is the container's own, to be filled.
    pub own_dev: bool,
    /// Device files.
    pub devices: Vec<Device>,
    /// Paths to hide, relative to the root.
    pub masked: Vec<CString>,
    /// The host's /dev/null as a read-only detached mount, to hide files with.
    pub null: OwnedFd,
    /// Paths to make read-only, relative to the root.
    pub readonly: Vec<CString>,
    /// Host name.
    pub hostname: Vec<u8>,
    /// NIS domain name.
    pub domainname: Vec<u8>,
    /// Kernel parameters: path below /proc/sys, value.
    pub sysctl: Vec<(CString, Vec<u8>)>,
    /// Run before the root is switched.
    pub create_hooks: Vec<HookCall>,
    /// Run before the program.
    pub start_hooks: Vec<HookCall>,
    /// Whether the parent has work to do once the namespaces exist.
    pub report_namespaces: bool,
    /// Room for the state document as hooks get it: first that of a container being created, then
    /// that of a created one. The parent sends both.
    pub state: Vec<u8>,
    /// Where the second begins.
    pub created_at: usize,
    /// Where the process waits for `start`.
    pub gate: OwnedFd,
}

/// A mount.
pub(crate) struct Mount {
    /// Relative to the root, without leading slash.
    pub target: CString,
    /// What.
    pub what: What,
    /// What the target may lie on.
    pub place: Place,
    /// `MOUNT_ATTR_…` of the new mount (of bind mounts the parent has set them).
    pub attributes: u32,
    /// A new tmpfs takes the mode of the directory that it covers.
    pub inherit_mode: bool,
    /// Made read-only only at the end, when what lies below it is mounted.
    pub late_readonly: bool,
    /// Propagation changes after mounting: `MS_…`, recursive.
    pub propagation: Vec<(u64, bool)>,
    /// Recursive attributes to set and clear after mounting.
    pub recursive: (u64, u64),
}

/// Which filesystems may be mounted over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Anything but procfs and sysfs: the path does not lie in /proc or /sys.
    Ordinary,
    /// Also sysfs: the path lies in /sys.
    Sys,
    /// Also procfs: the path is one of the files in /proc that may be replaced.
    Proc,
    /// The place of /proc or /sys itself, which must be a directory reached without symlinks.
    Plain,
}

/// What is mounted.
pub(crate) enum What {
    /// A detached tree, made by the parent; whether it is a directory.
    Tree(OwnedFd, bool),
    /// A new filesystem.
    New(Filesystem),
    /// A tmpfs that starts with what the directory has.
    CopyUp(Filesystem),
    /// The cgroup trees of v1: a tmpfs with one mount for each hierarchy.
    CgroupV1 {
        /// The tmpfs.
        base: Filesystem,
        /// Name below it, and what is mounted there.
        hierarchies: Vec<(CString, CgroupView)>,
        /// Links to joint hierarchies: name, what it points to.
        links: Vec<(CString, CString)>,
    },
    /// The one tree of v2.
    CgroupV2(CgroupView),
}

/// How the container sees a cgroup hierarchy.
pub(crate) enum CgroupView {
    /// Through its cgroup namespace, as a new mount.
    Mount(Filesystem),
    /// Without a namespace: its own cgroup, by its path on the host, as a bind mount.
    Bind(CString),
}

/// A new filesystem instance.
pub(crate) struct Filesystem {
    /// Type.
    pub kind: CString,
    /// Source, if it has one.
    pub source: Option<CString>,
    /// Options: key and value (none for a flag).
    pub options: Vec<(CString, Option<CString>)>,
    /// All options in one string, for values that are too long to be set one by one (as those of
    /// overlay are); then this is mounted the old way.
    pub joined: Option<CString>,
}

/// A device file.
pub(crate) struct Device {
    /// Relative to the root.
    pub path: CString,
    /// Type and permission bits.
    pub mode: u32,
    /// Number.
    pub device: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The host's device as a detached mount, where devices cannot be made.
    pub bind: Option<OwnedFd>,
}

/// A hook, ready to be executed.
pub(crate) struct HookCall {
    /// Program.
    pub path: CString,
    /// Arguments.
    pub argv: Strings,
    /// Environment.
    pub envp: Strings,
    /// Milliseconds; 0 for none.
    pub timeout: i32,
}

/// The process in the container.
pub(crate) struct Program {
    /// Where its program may be, in order.
    pub candidates: Vec<CString>,
    /// Whether these come from `PATH`.
    pub searched: bool,
    /// Arguments.
    pub argv: Strings,
    /// Environment, with room for `HOME`.
    pub envp: Strings,
    /// Whether `HOME` is to be found out.
    pub find_home: bool,
    /// Where `HOME=…` is put together.
    pub home: [u8; 1024],
    /// Working directory.
    pub cwd: CString,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// File mode creation mask.
    pub umask: u32,
    /// Capabilities.
    pub capabilities: Capabilities,
    /// Resource limits: resource, soft, hard.
    pub limits: Vec<(u32, u64, u64)>,
    /// No new privileges.
    pub no_new_privileges: bool,
    /// The filter.
    pub filter: Option<Filter>,
    /// What to write to the process' security attribute, and whether it is AppArmor's.
    pub label: Option<(Vec<u8>, bool)>,
    /// Scheduling.
    pub scheduler: Option<SchedAttributes>,
    /// I/O priority.
    pub io_priority: Option<i32>,
    /// Execution domain.
    pub personality: Option<u64>,
    /// NUMA policy: mode with flags, nodes.
    pub memory_policy: Option<(i32, Vec<u64>)>,
    /// Processors, at the end.
    pub affinity: Option<Vec<u64>>,
    /// Descriptors kept open beside the streams.
    pub preserve: u32,
}

/// Capability sets of the program.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Capabilities {
    /// Effective, permitted, inheritable.
    pub masks: CapabilityMasks,
    /// The ceiling.
    pub bounding: u64,
    /// What any exec keeps.
    pub ambient: u64,
    /// Number of the last capability that the kernel knows.
    pub last: u32,
}

/// A compiled filter.
pub(crate) struct Filter {
    /// The program.
    pub program: Vec<BpfInstruction>,
    /// `SECCOMP_FILTER_FLAG_…`.
    pub flags: u32,
    /// Whether a listener is made and handed over.
    pub listener: bool,
}

/// A null-terminated vector of strings, as execve takes it.
pub(crate) struct Strings {
    /// Owns what `pointers` point to.
    #[expect(dead_code, reason = "keeps the strings alive")]
    strings: Vec<CString>,
    /// The vector; always ends with a null pointer.
    pointers: Vec<*const std::ffi::c_char>,
}

/// A list such as `0-3,7` as a bit mask; `what` names it in the error.
pub(crate) fn processors(what: &str, list: &str) -> crate::error::Result<Vec<u64>> {
    settings::list(what, list)
}

impl Strings {
    /// Makes one; `spare` slots are kept for [`Strings::put`].
    pub(crate) fn new(strings: Vec<CString>, spare: usize) -> Self {
        let mut pointers: Vec<_> = strings.iter().map(|s| s.as_ptr()).collect();
        pointers.resize(strings.len() + spare + 1, std::ptr::null());
        Self { strings, pointers }
    }

    /// The vector.
    pub(crate) fn pointers(&self) -> &[*const std::ffi::c_char] {
        &self.pointers
    }

    /// Puts another string into a spare slot; nothing happens when there is none. Does not allocate.
    pub(crate) fn put(&mut self, string: *const std::ffi::c_char) {
        let end = self.pointers.iter().position(|p| p.is_null()).unwrap_or(self.pointers.len());
        if end + 1 < self.pointers.len()
            && let Some(slot) = self.pointers.get_mut(end)
        {
            *slot = string;
        }
    }
}
