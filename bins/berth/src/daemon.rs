//! The daemon that is ours: started when nobody answers, and by name.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use berth_client::Client;
use berth_core::Catalog;

use crate::address::Place;
use crate::failure::Failure;

/// How long a daemon may take to its first answer; it may have to mend its stores.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where its log goes, unless that cannot be written.
const LOG: &str = "/var/log/berth/berthd.log";
const PID: &str = "/run/berth/berthd.pid";

/// Makes sure that a daemon answers: starts ours if it is the one that is meant.
pub(crate) async fn ensure(place: &Place) -> Result<(), Failure> {
    if let Err(error) = UnixStream::connect(&place.address)
        && error.kind() == std::io::ErrorKind::PermissionDenied
    {
        return Err(Failure::new(format!(
            "you may not use the daemon's socket {}: it is for root. Run the command as root:  sudo berth {}",
            place.address.display(),
            words()
        ))
        .of_engine());
    }
    if !place.is_default() {
        return Err(Failure::new(format!(
            "no daemon answers at {}: is it running, and is that its address?",
            place.address.display()
        ))
        .of_engine());
    }
    if !rustix::process::geteuid().is_root() {
        return Err(not_root());
    }
    start(place).await.map(drop)
}

/// What somebody without root's rights is told.
pub(crate) fn not_root() -> Failure {
    Failure::new(format!(
        "berth needs root's rights to start its daemon, and you are not root.\n\
         Run it as root:  sudo berth {}\n\
         or let an administrator start the daemon once:  sudo berth system start",
        words()
    ))
    .of_engine()
}

/// The words of this command.
fn words() -> String {
    std::env::args().skip(1).collect::<Vec<_>>().join(" ")
}

/// Starts the daemon in the background and waits until it answers; gives its pid.
pub(crate) async fn start(place: &Place) -> Result<u32, Failure> {
    let program = sibling("berthd").ok_or_else(|| {
        Failure::new("the daemon's program berthd is neither beside this one nor on PATH: install it, or give the address of a daemon with --address").of_engine()
    })?;
    let (log, log_path) = open_log(&place.home)?;
    let from = log.metadata().map(|metadata| metadata.len()).unwrap_or(0);
    let mut command = Command::new(&program);
    command.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let mut child = command
        .spawn()
        .map_err(|error| Failure::new(format!("cannot start {}: {error}", program.display())).of_engine())?;
    let began = Instant::now();
    loop {
        if answers(&place.address).await {
            let _ = std::fs::write(PID, child.id().to_string());
            return Ok(child.id());
        }
        if let Some(failure) = ended(&mut child, &log_path, from) {
            // Somebody else may have started one at the same moment; theirs will do.
            if answers(&place.address).await {
                return Ok(0);
            }
            return Err(failure);
        }
        if began.elapsed() > PATIENCE {
            return Err(Failure::new(format!(
                "the daemon was started (pid {}) and does not answer at {} after {} s: see {}",
                child.id(),
                place.address.display(),
                PATIENCE.as_secs(),
                log_path.display()
            ))
            .of_engine());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn answers(address: &Path) -> bool {
    if UnixStream::connect(address).is_err() {
        return false;
    }
    let introspection = Client::connect(address).introspection();
    tokio::time::timeout(Duration::from_secs(2), introspection.version())
        .await
        .is_ok_and(|answer| answer.is_ok())
}

fn ended(child: &mut Child, log: &Path, from: u64) -> Option<Failure> {
    let status = child.try_wait().ok().flatten()?;
    let mut text = String::new();
    if let Ok(mut file) = File::open(log)
        && file.seek(SeekFrom::Start(from)).is_ok()
    {
        let _ = file.take(64 << 10).read_to_string(&mut text);
    }
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(5)..].join("\n  ");
    let text = format!("the daemon ended at its start ({status}); its log {} says\n  {last}", log.display());
    Some(Failure::new(text).of_engine())
}

fn open_log(home: &Path) -> Result<(File, PathBuf), Failure> {
    let beside = home.with_file_name("berthd.log");
    for path in [PathBuf::from(LOG), beside] {
        if let Some(folder) = path.parent() {
            let _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        }
        if let Ok(file) = OpenOptions::new().create(true).append(true).mode(0o600).open(&path) {
            return Ok((file, path));
        }
    }
    Err(Failure::new(format!("cannot write the daemon's log {LOG}")).of_engine())
}

/// The program of ours with that name: beside this one, else on PATH.
pub(crate) fn sibling(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let beside = own.parent()?.join(name);
    if beside.is_file() {
        return Some(beside);
    }
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// The pid of whoever listens at a socket.
pub(crate) fn pid_at(address: &Path) -> Option<u32> {
    let stream = UnixStream::connect(address).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    Some(peer.pid.as_raw_nonzero().get() as u32)
}

/// Asks the daemon at a socket to end, and waits. Its containers go on.
pub(crate) async fn stop(address: &Path) -> Result<Option<u32>, Failure> {
    let Some(pid) = pid_at(address) else { return Ok(None) };
    let process = rustix::process::Pid::from_raw(pid as i32)
        .ok_or_else(|| Failure::new("the daemon is in another pid namespace: stop it there"))?;
    let handle = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty())?;
    rustix::process::pidfd_send_signal(&handle, rustix::process::Signal::TERM)
        .map_err(|error| Failure::new(format!("cannot stop the daemon (pid {pid}): {error}")))?;
    let began = Instant::now();
    while std::fs::exists(format!("/proc/{pid}")).unwrap_or(false) && !is_zombie(pid) {
        if began.elapsed() > PATIENCE {
            return Err(Failure::new(format!("the daemon (pid {pid}) does not end")));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let _ = std::fs::remove_file(PID);
    Ok(Some(pid))
}

fn is_zombie(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|text| text.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}
