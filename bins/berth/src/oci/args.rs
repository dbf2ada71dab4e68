//! runc's flags.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Runs containers from OCI bundles, with runc's commands and flags.
#[derive(Debug, Parser)]
#[command(name = "berth-oci", version = VERSION, disable_help_subcommand = true)]
pub(super) struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Command,
}

/// Read by programs that look for the line of the specification.
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.2.1");

#[derive(Debug, Args)]
pub(super) struct Globals {
    /// Log with debug messages
    #[arg(long)]
    pub debug: bool,
    /// File to which errors and warnings are appended
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Form of the log: text or json
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub log_format: String,
    /// Folder with the state of the containers
    #[arg(long, value_name = "FOLDER", default_value = "/run/berth/oci")]
    pub root: PathBuf,
    /// Let systemd arrange cgroups; cgroupsPath is then slice:prefix:name
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Accepted and without effect
    #[arg(long, hide = true)]
    pub rootless: Option<String>,
    /// Accepted and without effect
    #[arg(long, hide = true)]
    pub criu: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a container
    Create(Create),
    /// Let a container that was made run its program
    Start(One),
    /// Make a container and run its program
    Run(Run),
    /// Run another program in a container
    Exec(Box<Exec>),
    /// Send a signal to a container (default: SIGTERM)
    Kill(Kill),
    /// Remove what a container holds
    Delete(Delete),
    /// Freeze all processes of a container
    Pause(One),
    /// Let frozen processes go on
    Resume(One),
    /// Change a container's limits
    Update(Box<Update>),
    /// Print the state of a container
    State(One),
    /// List containers
    List(List),
    /// List the processes of a container
    Ps(Ps),
    /// Print what this runtime can do
    Features,
    /// Print events, such as being out of memory, and usage
    Events(Events),
    /// Write a configuration to start from
    Spec(Spec),
    /// Save a container's processes into files (needs CRIU)
    Checkpoint(Box<Checkpoint>),
    /// Bring a container back from such files (needs CRIU)
    Restore(Box<Restore>),
}

#[derive(Debug, Args)]
pub(super) struct One {
    /// The container
    pub id: String,
}

/// What CRIU may meet, for both directions.
#[derive(Debug, Args)]
pub(super) struct Criu {
    /// Folder of the images (default: checkpoint in the current folder)
    #[arg(long, value_name = "FOLDER")]
    pub image_path: Option<PathBuf>,
    /// Folder for CRIU's log and scratch (default: that of the images)
    #[arg(long, value_name = "FOLDER")]
    pub work_path: Option<PathBuf>,
    /// An earlier checkpoint, relative to the images
    #[arg(long, value_name = "FOLDER")]
    pub parent_path: Option<PathBuf>,
    /// Keep TCP connections
    #[arg(long)]
    pub tcp_established: bool,
    /// Accept unix sockets to the outside
    #[arg(long)]
    pub ext_unix_sk: bool,
    /// Accept a terminal or session of somebody outside
    #[arg(long)]
    pub shell_job: bool,
    /// Keep locks on files
    #[arg(long)]
    pub file_locks: bool,
    /// Cgroups below the container's: ignore, soft, full or strict (default: soft)
    #[arg(long, value_name = "MODE")]
    pub manage_cgroups_mode: Option<String>,
    /// A namespace to leave empty: network
    #[arg(long, value_name = "KIND")]
    pub empty_ns: Vec<String>,
    /// Give pages back to the disk as they are done with
    #[arg(long)]
    pub auto_dedup: bool,
    /// Fetch pages when they are needed; refused
    #[arg(long, hide = true)]
    pub lazy_pages: bool,
}

#[derive(Debug, Args)]
pub(super) struct Checkpoint {
    #[command(flatten)]
    pub criu: Criu,
    /// Let the container go on
    #[arg(long)]
    pub leave_running: bool,
    /// Save only memory, for a later checkpoint with --parent-path; the container goes on
    #[arg(long)]
    pub pre_dump: bool,
    /// Drop connections that are being made
    #[arg(long)]
    pub tcp_skip_in_flight: bool,
    /// Give open files that were deleted a name beside where they were
    #[arg(long)]
    pub link_remap: bool,
    /// Send pages to ADDRESS:PORT instead of writing them
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub page_server: Option<String>,
    /// With --lazy-pages; refused
    #[arg(long, hide = true)]
    pub status_fd: Option<i32>,
    /// The container
    pub id: String,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    #[command(flatten)]
    pub criu: Criu,
    /// The bundle (default: the current folder)
    #[arg(long, short)]
    pub bundle: Option<PathBuf>,
    /// Unix socket that receives the terminal's master side
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// File that receives the process id
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// Do not wait for its end
    #[arg(long, short)]
    pub detach: bool,
    /// Accepted and without effect: CRIU makes the root
    #[arg(long, hide = true)]
    pub no_pivot: bool,
    /// Accepted and without effect
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
    /// The container's name
    pub id: String,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The bundle (default: the current folder)
    #[arg(long, short)]
    pub bundle: Option<PathBuf>,
    /// Unix socket that receives the terminal's master side
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// Unix socket that receives a pidfd; accepted and without effect
    #[arg(long, hide = true)]
    pub pidfd_socket: Option<PathBuf>,
    /// File that receives the process id
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// Switch the root without pivot_root
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// How many descriptors above 2 the container keeps
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// The container's name
    pub id: String,
}

#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub create: Create,
    /// Do not wait for its end
    #[arg(long, short)]
    pub detach: bool,
    /// Do not delete it after its end
    #[arg(long)]
    pub keep: bool,
    /// Accepted and without effect
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
}

#[derive(Debug, Args)]
pub(super) struct Exec {
    /// Unix socket that receives the terminal's master side
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// Unix socket that receives a pidfd; accepted and without effect
    #[arg(long, hide = true)]
    pub pidfd_socket: Option<PathBuf>,
    /// Working directory
    #[arg(long)]
    pub cwd: Option<String>,
    /// Environment: NAME=VALUE
    #[arg(long, short)]
    pub env: Vec<String>,
    /// Give it a terminal
    #[arg(long, short)]
    pub tty: bool,
    /// UID[:GID]
    #[arg(long, short)]
    pub user: Option<String>,
    /// Supplementary groups
    #[arg(long, short = 'g')]
    pub additional_gids: Vec<u32>,
    /// File with the process as in config.json
    #[arg(long, short)]
    pub process: Option<PathBuf>,
    /// Do not wait for its end
    #[arg(long, short)]
    pub detach: bool,
    /// File that receives the process id
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// SELinux label
    #[arg(long)]
    pub process_label: Option<String>,
    /// AppArmor profile
    #[arg(long)]
    pub apparmor: Option<String>,
    /// Set no_new_privs
    #[arg(long)]
    pub no_new_privs: bool,
    /// Capabilities beside the container's
    #[arg(long, short)]
    pub cap: Vec<String>,
    /// How many descriptors above 2 the process keeps
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// Cgroup below the container's: PATH or CONTROLLERS:PATH
    #[arg(long)]
    pub cgroup: Vec<String>,
    /// Accept a paused container; the process waits until it goes on
    #[arg(long)]
    pub ignore_paused: bool,
    /// Accepted and without effect
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
    /// The container
    pub id: String,
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Kill {
    /// To all its processes
    #[arg(long, short)]
    pub all: bool,
    /// The container
    pub id: String,
    /// Name or number
    pub signal: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Kill it first if it runs
    #[arg(long, short)]
    pub force: bool,
    /// The container
    pub id: String,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// table or json
    #[arg(long, short, default_value = "table")]
    pub format: String,
    /// Names only
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct Ps {
    /// table or json
    #[arg(long, short, default_value = "table")]
    pub format: String,
    /// The container
    pub id: String,
    /// For ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub options: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Events {
    /// Time between figures, such as 5s
    #[arg(long, default_value = "5s")]
    pub interval: String,
    /// Print usage once and end
    #[arg(long)]
    pub stats: bool,
    /// The container
    pub id: String,
}

#[derive(Debug, Args)]
pub(super) struct Spec {
    /// The bundle (default: the current folder)
    #[arg(long, short)]
    pub bundle: Option<PathBuf>,
    /// For a user without rights
    #[arg(long)]
    pub rootless: bool,
}

#[derive(Debug, Args)]
pub(super) struct Update {
    /// File with resources as in config.json, - for standard input
    #[arg(long, short)]
    pub resources: Option<PathBuf>,
    /// Weight of block I/O, 10 to 1000
    #[arg(long)]
    pub blkio_weight: Option<u16>,
    /// Microseconds
    #[arg(long)]
    pub cpu_period: Option<u64>,
    /// Microseconds in each period
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Microseconds that may be saved up
    #[arg(long)]
    pub cpu_burst: Option<u64>,
    /// Microseconds
    #[arg(long)]
    pub cpu_rt_period: Option<u64>,
    /// Microseconds
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// Relative weight
    #[arg(long)]
    pub cpu_share: Option<u64>,
    /// 1 for only when nothing else wants to run
    #[arg(long)]
    pub cpu_idle: Option<i64>,
    /// Processors
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// Memory limit, such as 64m
    #[arg(long, allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Soft memory limit
    #[arg(long, allow_hyphen_values = true)]
    pub memory_reservation: Option<String>,
    /// Memory and swap together
    #[arg(long, allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Accepted and without effect
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub kernel_memory: Option<String>,
    /// Accepted and without effect
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub kernel_memory_tcp: Option<String>,
    /// Number of tasks
    #[arg(long, allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// The container
    pub id: String,
}
