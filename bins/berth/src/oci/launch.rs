//! create, start, run, exec.

use std::fs;
use std::path::Path;

use berth_container::{CgroupDriver, Container, Create, Deletion, Exec, Keyring, Made, RootSwitch, Stdio};
use berth_oci::runtime::{Process, Spec};

use super::foreground::Foreground;
use super::log::Log;
use super::{Failure, Outcome, args};

/// The descriptors from 3 on that systemd's socket activation passes.
fn listen_fds(process: &mut Process) -> u32 {
    let own = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    let count = std::env::var("LISTEN_FDS").ok().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    if !own || count == 0 {
        return 0;
    }
    process.env.push(format!("LISTEN_FDS={count}"));
    process.env.push("LISTEN_PID=1".into());
    count
}

pub(super) fn request(
    globals: &args::Globals,
    wanted: &args::Create,
    stdio: Stdio,
) -> Result<Create, Failure> {
    let bundle = wanted.bundle.as_deref().unwrap_or(Path::new("."));
    let bundle = std::path::absolute(bundle)
        .map_err(|e| Failure::new(format!("cannot find the bundle {}: {e}", bundle.display())))?;
    let path = bundle.join("config.json");
    let text = match fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Failure::new(format!("JSON specification file {} not found", path.display())));
        }
        done => done.map_err(|e| Failure::new(format!("cannot read {}: {e}", path.display())))?,
    };
    let mut spec =
        Spec::from_slice(&text).map_err(|e| Failure::new(format!("cannot read {}: {e}", path.display())))?;
    let listening = spec.process.as_mut().map_or(0, listen_fds);
    Ok(Create {
        id: wanted.id.clone(),
        bundle,
        root: absolute(&globals.root)?,
        spec: Some(spec),
        stdio,
        preserve_fds: wanted.preserve_fds + listening,
        root_switch: if wanted.no_pivot { RootSwitch::Move } else { RootSwitch::Pivot },
        keyring: if wanted.no_new_keyring { Keyring::Keep } else { Keyring::New },
        cgroup_driver: if globals.systemd_cgroup { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs },
        root_mount: None,
    })
}

/// The state root, whatever the working directory is.
pub(super) fn absolute(path: &Path) -> Result<std::path::PathBuf, Failure> {
    std::path::absolute(path).map_err(|e| Failure::new(format!("cannot find {}: {e}", path.display())))
}

pub(super) fn console(socket: Option<&std::path::PathBuf>) -> Result<Stdio, Failure> {
    match socket {
        Some(path) => Ok(Stdio::ConsoleSocket(absolute(path)?)),
        None => Ok(Stdio::Inherit),
    }
}

fn make(request: Create, log: &Log) -> Result<Made, Failure> {
    let made = Container::create(request)
        .map_err(|error| Failure::new(format!("container create failed: {}", error.chain())))?;
    log.warnings(&made.warnings);
    Ok(made)
}

pub(super) fn create(globals: &args::Globals, wanted: &args::Create, log: &Log) -> Outcome {
    let made = make(request(globals, wanted, console(wanted.console_socket.as_ref())?)?, log)?;
    if let Err(error) = pid_file(wanted.pid_file.as_deref(), made.container.first_pid()) {
        let _ = made.container.delete(Deletion::Force);
        return Err(error);
    }
    Ok(0)
}

pub(super) fn start(globals: &args::Globals, id: &str, log: &Log) -> Outcome {
    let mut container = Container::load(&globals.root, id)?;
    log.warnings(&container.start()?);
    Ok(0)
}

pub(super) fn run(globals: &args::Globals, wanted: &args::Run, log: &Log) -> Outcome {
    let mut create = request(globals, &wanted.create, console(wanted.create.console_socket.as_ref())?)?;
    let terminal = create.spec.as_ref().and_then(|s| s.process.as_ref()).is_some_and(|p| p.terminal);
    if terminal && !wanted.detach && wanted.create.console_socket.is_none() {
        create.stdio = Stdio::Terminal;
    }
    let signals = if wanted.detach { None } else { Some(Foreground::prepare()?) };
    let Made { mut container, terminal, .. } = make(create, log)?;
    let launched = pid_file(wanted.create.pid_file.as_deref(), container.first_pid())
        .and_then(|()| container.start().map_err(Failure::from));
    match launched {
        Ok(warnings) => log.warnings(&warnings),
        Err(mut failure) => {
            failure.text = format!("container create failed: {}", failure.text);
            let _ = container.delete(Deletion::Force);
            return Err(failure);
        }
    }
    let Some(foreground) = signals else { return Ok(0) };
    let pidfd = container.pidfd().ok_or_else(|| Failure::new("the container has no process"))?;
    let code = foreground.follow(pidfd, terminal)?;
    if !wanted.keep {
        log.warnings(&container.delete(Deletion::Force)?);
    }
    Ok(code)
}

pub(super) fn exec(globals: &args::Globals, wanted: &args::Exec, log: &Log) -> Outcome {
    exec_inner(globals, wanted, log)
        .map_err(|failure| Failure { text: format!("exec failed: {}", failure.text), code: 255 })
}

fn exec_inner(globals: &args::Globals, wanted: &args::Exec, log: &Log) -> Outcome {
    let mut container = Container::load(&globals.root, &wanted.id)?;
    let mut process = process(&container, wanted)?;
    let preserve = wanted.preserve_fds + listen_fds(&mut process);
    let mut stdio = console(wanted.console_socket.as_ref())?;
    if process.terminal && !wanted.detach && wanted.console_socket.is_none() {
        stdio = Stdio::Terminal;
    }
    let signals = if wanted.detach { None } else { Some(Foreground::prepare()?) };
    let done = container.exec(Exec {
        process,
        stdio,
        preserve_fds: preserve,
        cgroup: wanted.cgroup.clone(),
        keyring: Keyring::Keep,
        ignore_paused: wanted.ignore_paused,
    })?;
    log.warnings(&done.warnings);
    pid_file(wanted.pid_file.as_deref(), done.pid)?;
    match signals {
        Some(foreground) => {
            use std::os::fd::AsFd as _;
            foreground.follow(done.pidfd.as_fd(), done.terminal)
        }
        None => Ok(0),
    }
}

/// The process of a file, or the container's own with what the flags change.
fn process(container: &Container, wanted: &args::Exec) -> Result<Process, Failure> {
    if let Some(path) = &wanted.process {
        let text =
            fs::read(path).map_err(|e| Failure::new(format!("cannot read {}: {e}", path.display())))?;
        return serde_json::from_slice(&text)
            .map_err(|e| Failure::new(format!("cannot read {}: {e}", path.display())));
    }
    if wanted.args.is_empty() {
        return Err(Failure::new("process args cannot be empty"));
    }
    let mut process = container.default_process(&wanted.args);
    process.terminal = wanted.tty;
    if let Some(cwd) = &wanted.cwd {
        process.cwd.clone_from(cwd);
    }
    process.env.extend(wanted.env.iter().cloned());
    if let Some(user) = &wanted.user {
        let (uid, gid) = user.split_once(':').unwrap_or((user, ""));
        let number = |text: &str| {
            text.parse::<u32>().map_err(|_| Failure::new(format!("user {user:?} is not UID[:GID]")))
        };
        process.user.uid = number(uid)?;
        process.user.gid = if gid.is_empty() { process.user.gid } else { number(gid)? };
    }
    process.user.additional_gids.extend(&wanted.additional_gids);
    if let Some(label) = &wanted.process_label {
        process.selinux_label.clone_from(label);
    }
    if let Some(profile) = &wanted.apparmor {
        process.apparmor_profile.clone_from(profile);
    }
    process.no_new_privileges |= wanted.no_new_privs;
    let capabilities = process.capabilities.get_or_insert_default();
    for set in [&mut capabilities.bounding, &mut capabilities.effective, &mut capabilities.permitted] {
        set.extend(wanted.cap.iter().cloned());
    }
    Ok(process)
}

/// Written beside and renamed: whoever waits for the file finds a whole number in it.
pub(super) fn pid_file(path: Option<&Path>, pid: i32) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let new = path.with_file_name(name);
    fs::write(&new, pid.to_string())
        .and_then(|()| fs::rename(&new, path))
        .map_err(|e| Failure::new(format!("cannot write {}: {e}", path.display())))
}
