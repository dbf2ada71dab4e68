//! `run -d --rm`: somebody has to remove the container when it ends, and the command line has gone by then.
//!
//! One process for each daemon and namespace does it for all of them. It holds a lock while it lives; it ends when
//! there is nothing left to wait for.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use berth_types::ProcessStatus;
use berth_types::filter::Filters;
use berth_workload::{Found, RemoveOptions, labels};
use futures::StreamExt;
use rustix::fs::{FlockOperation, flock};

use crate::context::Context;
use crate::failure::{Failure, Outcome};

/// How long it stays when nothing is left, in case more comes.
const LINGER: Duration = Duration::from_secs(10);

fn lock_path(context: &Context) -> PathBuf {
    context.place.home.join(format!("reaper-{}.lock", context.place.namespace))
}

fn lock(context: &Context) -> Result<Option<File>, Failure> {
    let path = lock_path(context);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| Failure::new(format!("cannot open {}: {error}", path.display())))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes sure that somebody waits. Called when the container that is to be removed exists already.
pub(crate) fn ensure(context: &Context) -> Result<(), Failure> {
    if lock(context)?.is_none() {
        return Ok(());
    }
    let place = &context.place;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--address").arg(&place.address).args(["--namespace", place.namespace.as_str()]);
    command.arg("--data-root").arg(&place.home).arg("internal-reaper");
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    command.spawn().map(drop).map_err(|error| Failure::new(format!("cannot start the reaper: {error}")))
}

/// Removes every container that asked for it when it ends, until there are none.
pub(crate) async fn run(context: &mut Context) -> Outcome {
    loop {
        let Some(held) = lock(context)? else { return Ok(0) };
        watch(context).await?;
        drop(held);
        // One that came between the last look and the end of the lock found the lock held, and counts on us.
        if waiting(context).await?.is_empty() {
            return Ok(0);
        }
    }
}

async fn waiting(context: &Context) -> Result<Vec<Found>, Failure> {
    let filters = Filters::parse(&[format!("labels.\"{}\"==true", labels::AUTO_REMOVE)])?;
    let containers = context.client.containers(context.scope()).list(&filters).await?;
    Ok(containers.into_iter().map(|container| Found { container }).collect())
}

async fn watch(context: &Context) -> Result<(), Failure> {
    let filters = Filters::parse(&["topic==/tasks/exit", "topic==/tasks/delete"])?;
    let mut events = context.client.events().subscribe(filters).await?;
    loop {
        let mut left = 0;
        for found in waiting(context).await? {
            match context.workload.task_state(&found.container.id).await? {
                Some(state) if state.status == ProcessStatus::Stopped => {
                    // Whoever stays with it in the foreground may remove it at the same time.
                    let _ =
                        context.workload.remove(&found, RemoveOptions { force: true, volumes: true }).await;
                }
                Some(_) => left += 1,
                None => {}
            }
        }
        let next = tokio::time::timeout(LINGER, events.next()).await;
        match next {
            Err(_) if left == 0 => return Ok(()),
            Ok(None | Some(Err(_))) => return Ok(()),
            _ => {}
        }
    }
}
