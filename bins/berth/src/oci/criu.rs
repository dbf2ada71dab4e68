//! checkpoint, restore.

use std::path::PathBuf;

use berth_container::checkpoint::{After, Circumstances};
use berth_container::{Checkpoint, Container, Deletion, Made, Restore, Stdio};

use super::foreground::Foreground;
use super::launch::{absolute, console, pid_file, request};
use super::log::Log;
use super::{Failure, Outcome, args};

/// runc's default, in the current folder.
const IMAGES: &str = "checkpoint";

pub(super) fn checkpoint(globals: &args::Globals, wanted: &args::Checkpoint) -> Outcome {
    let container = Container::load(&globals.root, &wanted.id)?;
    let after = match (wanted.pre_dump, wanted.leave_running) {
        (true, _) => After::RunsMemoryOnly,
        (false, true) => After::Runs,
        (false, false) => After::Ends,
    };
    container.checkpoint(&Checkpoint {
        images: images(&wanted.criu)?,
        work: work(&wanted.criu)?,
        parent: wanted.criu.parent_path.clone(),
        after,
        circumstances: circumstances(&wanted.criu)?,
        link_remap: wanted.link_remap,
        skip_tcp_in_flight: wanted.tcp_skip_in_flight,
        page_server: wanted.page_server.as_deref().map(page_server).transpose()?,
    })?;
    // As with runc, a container that has ended with its checkpoint is gone.
    if after == After::Ends {
        let _ = container.delete(Deletion::Force)?;
    }
    Ok(0)
}

pub(super) fn restore(globals: &args::Globals, wanted: &args::Restore, log: &Log) -> Outcome {
    let as_create = args::Create {
        bundle: wanted.bundle.clone(),
        console_socket: None,
        pidfd_socket: None,
        pid_file: None,
        no_pivot: false,
        no_new_keyring: false,
        preserve_fds: 0,
        id: wanted.id.clone(),
    };
    let mut create = request(globals, &as_create, console(wanted.console_socket.as_ref())?)?;
    let terminal = create.spec.as_ref().and_then(|s| s.process.as_ref()).is_some_and(|p| p.terminal);
    if terminal && !wanted.detach && wanted.console_socket.is_none() {
        create.stdio = Stdio::Terminal;
    }
    let signals = if wanted.detach { None } else { Some(Foreground::prepare()?) };
    let Made { container, terminal, warnings } = Container::restore(Restore {
        create,
        images: images(&wanted.criu)?,
        work: work(&wanted.criu)?,
        parent: wanted.criu.parent_path.clone(),
        circumstances: circumstances(&wanted.criu)?,
    })?;
    log.warnings(&warnings);
    if let Err(error) = pid_file(wanted.pid_file.as_deref(), container.first_pid()) {
        let _ = container.delete(Deletion::Force);
        return Err(error);
    }
    let Some(foreground) = signals else { return Ok(0) };
    let pidfd = container.pidfd().ok_or_else(|| Failure::new("the container has no process"))?;
    let code = foreground.follow(pidfd, terminal)?;
    log.warnings(&container.delete(Deletion::Force)?);
    Ok(code)
}

fn images(wanted: &args::Criu) -> Result<PathBuf, Failure> {
    absolute(wanted.image_path.as_deref().unwrap_or(IMAGES.as_ref()))
}

fn work(wanted: &args::Criu) -> Result<Option<PathBuf>, Failure> {
    wanted.work_path.as_deref().map(absolute).transpose()
}

fn circumstances(wanted: &args::Criu) -> Result<Circumstances, Failure> {
    if wanted.lazy_pages {
        return Err(Failure::new("--lazy-pages is not supported: restore with all pages at hand"));
    }
    if let Some(kind) = wanted.empty_ns.iter().find(|kind| *kind != "network") {
        return Err(Failure::new(format!("--empty-ns {kind}: only network can be left empty")));
    }
    let mode = wanted.manage_cgroups_mode.as_deref().map(str::parse).transpose()?;
    Ok(Circumstances {
        open_tcp: wanted.tcp_established,
        external_unix_sockets: wanted.ext_unix_sk,
        shell_job: wanted.shell_job,
        file_locks: wanted.file_locks,
        empty_network: !wanted.empty_ns.is_empty(),
        cgroups: mode,
        auto_dedup: wanted.auto_dedup,
    })
}

fn page_server(text: &str) -> Result<(String, u16), Failure> {
    let parts =
        text.rsplit_once(':').and_then(|(address, port)| Some((address.to_owned(), port.parse().ok()?)));
    parts.ok_or_else(|| Failure::new(format!("--page-server {text:?} is not ADDRESS:PORT")))
}
