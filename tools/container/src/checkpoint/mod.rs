//! Checkpoint and restore through CRIU (criu.org): a container's processes as files, and back.
//!
//! ```text
//!   dump:     processes --criu--> images/  (+ descriptors.json: what its standard streams were)
//!   restore:  images/ --checked--> copy --criu--> processes, stopped --checked--> running
//! ```
//!
//! A checkpoint is input, and often comes from somewhere else. What confines the container comes from the configuration
//! that it is restored with and never from the files: its mounts and their sources, its cgroup, the namespaces that it
//! joins, the profile of AppArmor and the first system call filter are set by us; capabilities, `no_new_privs`,
//! filters, namespaces and mounts of every process are compared with the configuration when all of them are there and
//! none has run an instruction yet, and one that has more than it may have ends them all.
//!
//! Where the program `criu` is missing, the error names the package.

mod criu;
mod dump;
mod images;
mod places;
mod restore;
mod rpc;
mod streams;
mod verify;

use std::path::PathBuf;

use crate::container::Create;

pub(crate) use self::dump::{Saved, dump, refuse};
pub(crate) use self::restore::restore;

/// What CRIU may meet, at both ends.
#[derive(Clone, Debug, Default)]
pub struct Circumstances {
    /// Connections of TCP are saved and taken up again.
    pub open_tcp: bool,
    /// Unix sockets whose other end is outside.
    pub external_unix_sockets: bool,
    /// A terminal or session that belongs to somebody outside.
    pub shell_job: bool,
    /// Locks on files.
    pub file_locks: bool,
    /// The network namespace comes back empty; somebody else sets it up.
    pub empty_network: bool,
    /// How cgroups below the container's are saved and brought back; `Soft` without it.
    pub cgroups: Option<CgroupsMode>,
    /// Pages are given back to the disk as they are read (restore), or as newer ones replace them (dump).
    pub auto_dedup: bool,
}

/// CRIU's `--manage-cgroups`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupsMode {
    /// Neither made nor changed.
    Ignore,
    /// What is missing is made, what is there stays as it is.
    Soft,
    /// Everything as it was.
    Full,
    /// As `Full`, and nothing may be there before.
    Strict,
}

impl std::str::FromStr for CgroupsMode {
    type Err = crate::Error;

    fn from_str(text: &str) -> crate::Result<Self> {
        match text {
            "ignore" => Ok(Self::Ignore),
            "soft" => Ok(Self::Soft),
            "full" => Ok(Self::Full),
            "strict" => Ok(Self::Strict),
            other => Err(crate::Error::Config {
                what: format!("cgroups mode {other:?} is none of ignore, soft, full, strict"),
            }),
        }
    }
}

impl CgroupsMode {
    /// `criu_cg_mode`.
    fn wire(self) -> i32 {
        match self {
            Self::Ignore => 0,
            Self::Soft => 3,
            Self::Full => 4,
            Self::Strict => 5,
        }
    }
}

/// What becomes of the processes when they are saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum After {
    /// They end.
    #[default]
    Ends,
    /// They go on.
    Runs,
    /// They go on, and only memory was saved: a first part, which a later checkpoint names as its parent.
    RunsMemoryOnly,
}

/// A checkpoint to make.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    /// The folder for the images; made if it is not there.
    pub images: PathBuf,
    /// The folder for CRIU's log and scratch; `images` without it.
    pub work: Option<PathBuf>,
    /// An earlier checkpoint, as a path relative to `images`.
    pub parent: Option<PathBuf>,
    /// What becomes of the processes.
    pub after: After,
    /// What CRIU may meet.
    pub circumstances: Circumstances,
    /// Files that are open and deleted get a name beside where they were.
    pub link_remap: bool,
    /// Connections that are being made are dropped.
    pub skip_tcp_in_flight: bool,
    /// Where pages are sent instead of into files: address and port.
    pub page_server: Option<(String, u16)>,
}

/// A container to bring back.
#[derive(Debug, Default)]
pub struct Restore {
    /// The container, as if it were to be made. `root_mount` and `preserve_fds` are not heeded.
    pub create: Create,
    /// The folder with the images.
    pub images: PathBuf,
    /// The folder for CRIU's log and scratch; `images` without it.
    pub work: Option<PathBuf>,
    /// An earlier checkpoint, as a path relative to `images`.
    pub parent: Option<PathBuf>,
    /// What CRIU may meet.
    pub circumstances: Circumstances,
}
