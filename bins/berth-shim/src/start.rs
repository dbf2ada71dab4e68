//! `start`: finds or becomes the shim of a container's group.
//!
//! The process that the daemon starts makes the socket and forks. The parent answers at once, since a listening
//! socket takes connections before anybody accepts them; the child is the shim. No second program is loaded.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use berth_sys::fork::{Fork, fork};
use berth_sys::signal::SignalFd;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::process::{Pid, Signal, getppid, kill_process, set_child_subreaper, setsid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::arguments::{Arguments, Environment};
use crate::bootstrap::Bootstrap;
use crate::bundle::{Spec, write_whole};
use crate::log::Log;
use crate::serve::events::Route;
use crate::serve::{Settings, Shim};
use crate::socket::{self, Claim};

/// The name under which the runtime is known.
pub(crate) const RUNTIME: &str = "io.containerd.runc.v2";
/// As much as containerd's shim reads of its parameters.
const INPUT: u64 = 10 << 20;
/// The descriptor on which a supervisor hands over a listening socket.
const GIVEN: i32 = 3;

/// Makes or finds the shim and prints its address.
pub(crate) fn start(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let input = read_input().context("cannot read standard input")?;
    let boot = Bootstrap::read(&input, arguments, environment)?;
    drop(input);
    if boot.namespace.is_empty() {
        bail!("shim namespace cannot be empty: give -namespace");
    }
    let here = Path::new(".");
    let spec = Spec::read(here)?;
    let group = spec.group().unwrap_or(&boot.id).to_owned();
    drop(spec);
    let path = socket::path(&boot.sockets, &boot.grpc_address, &boot.namespace, &group)?;
    let address = format!("unix://{}", path.display());
    let claim = socket::claim(&path)?;
    // containerd 1.6 finds its shims again by this file.
    write_whole(&here.join("address"), address.as_bytes())?;
    let listener = match claim {
        Claim::Served => return answer(&boot, &address),
        Claim::Fresh(listener) => listener,
    };
    if environment.sched_core {
        berth_sys::sched_core::create().context("cannot make a core scheduling group")?;
    }
    let daemon = getppid();
    match fork().context("cannot fork")? {
        Fork::Child => become_shim(&boot, listener, path, daemon),
        Fork::Parent(pid) => {
            let result = see_off(&boot, pid).and_then(|()| answer(&boot, &address));
            if result.is_err() {
                // Nobody will ever call it.
                if let Some(pid) = Pid::from_raw(pid as i32) {
                    let _ = kill_process(pid, Signal::KILL);
                }
                let _ = std::fs::remove_file(&path);
            }
            result
        }
    }
}

/// Not by way of the standard library's `Stdin`, whose buffer every shim would inherit.
fn read_input() -> std::io::Result<Vec<u8>> {
    let mut input = Vec::new();
    File::from(rustix::io::dup(rustix::stdio::stdin())?).take(INPUT).read_to_end(&mut input)?;
    Ok(input)
}

/// What the parent does for the shim before the daemon hears of it.
fn see_off(boot: &Bootstrap, pid: u32) -> Result<()> {
    if let Some(cgroup) =
        boot.options.as_ref().map(|options| &options.shim_cgroup).filter(|path| !path.is_empty())
    {
        crate::cgroup::join(cgroup, pid)?;
    }
    write_whole(Path::new("shim.pid"), pid.to_string().as_bytes())?;
    Ok(())
}

fn answer(boot: &Bootstrap, address: &str) -> Result<()> {
    let stdout = rustix::io::dup(rustix::stdio::stdout()).context("cannot answer")?;
    File::from(stdout).write_all(&boot.answer(address)).context("cannot answer")
}

/// The child's whole life.
fn become_shim(boot: &Bootstrap, listener: UnixListener, socket: PathBuf, daemon: Option<Pid>) -> Result<()> {
    leave_session().context("cannot leave the session")?;
    let log = Log::new(boot.debug);
    adjust_oom_score(daemon, log);
    let settings = Settings {
        namespace: boot.namespace.clone(),
        route: route(boot.ttrpc_address.as_deref(), &boot.publish_binary, &boot.grpc_address),
        socket: Some(socket),
        sockets: boot.sockets.clone(),
        log,
    };
    serve(settings, listener)
}

/// Serves on a socket that the caller has made, or on a path that it names.
pub(crate) fn serve_given(arguments: &Arguments, environment: &Environment) -> Result<()> {
    if arguments.namespace.is_empty() {
        bail!("shim namespace cannot be empty: give -namespace");
    }
    let listener = match &arguments.socket {
        Some(path) => match socket::claim(path)? {
            Claim::Fresh(listener) => listener,
            Claim::Served => bail!("{} is served already", path.display()),
        },
        None => UnixListener::from(given()?),
    };
    let boot = Bootstrap::read(&[], arguments, environment)?;
    // Ours to remove in the end, whoever made it.
    let socket = listener.local_addr().ok().and_then(|address| address.as_pathname().map(Path::to_owned));
    let sockets = socket.as_deref().and_then(Path::parent).map_or(boot.sockets, Path::to_owned);
    let settings = Settings {
        namespace: boot.namespace,
        route: route(boot.ttrpc_address.as_deref(), &boot.publish_binary, &boot.grpc_address),
        socket,
        sockets,
        log: Log::new(boot.debug),
    };
    serve(settings, listener)
}

fn serve(settings: Settings, listener: UnixListener) -> Result<()> {
    set_child_subreaper(Pid::from_raw(std::process::id() as i32)).context("cannot adopt orphans")?;
    let signals =
        SignalFd::block(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT]).context("cannot take signals")?;
    Shim::new(settings, listener, signals)?.serve()
}

fn route(ttrpc: Option<&str>, program: &str, grpc: &str) -> Route {
    match ttrpc {
        Some(address) => Route::Socket(address.strip_prefix("unix://").unwrap_or(address).into()),
        None if program.is_empty() => Route::Nowhere,
        None => Route::Program { program: program.into(), address: grpc.to_owned() },
    }
}

/// The socket on descriptor 3.
fn given() -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{GIVEN}");
    let is_socket =
        rustix::fs::stat(&path).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Socket);
    if !is_socket {
        bail!("no socket to serve on: give -socket, or a listening socket as descriptor {GIVEN}");
    }
    berth_sys::given::descriptor(GIVEN).context("cannot take over the given socket")
}

/// Away from the daemon's terminal and process group: what ends them does not end us. It reads both outputs of `start`
/// to their end, so they must not stay open here either. Messages go to the log.
pub(crate) fn leave_session() -> std::io::Result<()> {
    setsid()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    match open_log() {
        Some(log) => dup2_stderr(log)?,
        None => dup2_stderr(&null)?,
    }
    Ok(())
}

/// The bundle's fifo. Both its ends, so that a daemon that goes does not break it; without waiting, so that one that
/// does not read loses lines instead of holding us up.
fn open_log() -> Option<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let log = openat(CWD, "log", flags, Mode::empty()).ok()?;
    let found = fstat(&log).ok()?;
    (FileType::from_raw_mode(found.st_mode) == FileType::Fifo).then_some(log)
}

/// The kernel shall rather end the shim than the daemon, and rather its containers than the shim: one more than the
/// daemon has.
fn adjust_oom_score(daemon: Option<Pid>, log: Log) {
    let adjust = || -> Result<()> {
        let Some(daemon) = daemon else { return Ok(()) };
        let path = format!("/proc/{}/oom_score_adj", daemon.as_raw_nonzero());
        let score: i32 = std::fs::read_to_string(&path)?.trim().parse()?;
        std::fs::write("/proc/self/oom_score_adj", (score + 1).min(1000).to_string())?;
        Ok(())
    };
    if let Err(error) = adjust() {
        log.warn(format_args!("cannot set the shim's oom_score_adj: {error:#}"));
    }
}
