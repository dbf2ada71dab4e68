//! Waiting for a process in the foreground while its streams are copied.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_core::Tasks;
use berth_types::{ErrorKind, Exit, KillTarget, ProcessRef, Result};
use berth_workload::{ABSENCE, AGAIN};

use super::session::{Event, Session};
use super::signals::{Heard, WINCH, listen};
use super::{Raw, size};
use crate::failure::Failure;

/// How long output may stand still after a process has ended before it is taken for all there is: something else may
/// hold the pipe open.
const SETTLE: Duration = Duration::from_secs(3);

/// Asks for the end of a process from now on, so that the answer is under way when it comes. A daemon that goes away
/// takes no container with it, so it is asked again when it is back.
pub(crate) fn awaited(
    tasks: &Arc<dyn Tasks>,
    process: &ProcessRef,
) -> impl Future<Output = Result<Exit>> + use<> {
    let (tasks, process) = (Arc::clone(tasks), process.clone());
    let asking = tokio::spawn(async move {
        let mut lost = Instant::now();
        loop {
            let asked = Instant::now();
            match tasks.wait(&process).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    // A daemon that let us wait was there until now.
                    if asked.elapsed() > AGAIN {
                        lost = Instant::now();
                    }
                    if lost.elapsed() > ABSENCE {
                        return Err(error);
                    }
                    tokio::time::sleep(AGAIN).await;
                }
                answer => return answer,
            }
        }
    });
    async move { asking.await.unwrap_or_else(|error| Err(berth_types::Error::cancelled(error.to_string()))) }
}

/// How it ended for us.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The process did.
    Exit(Exit),
    /// The user went away with the keys.
    Detached,
    /// Whoever read our output went away.
    Broken,
    /// A signal that is not passed on asked us to end.
    Signal(i32),
}

/// A process in the foreground.
pub(crate) struct Foreground {
    tasks: Arc<dyn Tasks>,
    process: ProcessRef,
    heard: Heard,
    proxy: bool,
    raw: Option<Raw>,
    terminal: bool,
}

impl Foreground {
    /// Takes the terminal and the signals. With a terminal of its own the process gets ours raw.
    pub(crate) fn take(
        tasks: Arc<dyn Tasks>,
        process: ProcessRef,
        terminal: bool,
        types: bool,
        proxy: bool,
    ) -> std::result::Result<Self, Failure> {
        let heard = listen(proxy, terminal)?;
        let raw = if terminal && types { Raw::enter()? } else { None };
        Ok(Self { tasks, process, heard, proxy, raw, terminal })
    }

    /// Tells the process's terminal the size of ours.
    pub(crate) async fn resize(&self) {
        if self.terminal
            && let Some(size) = size()
        {
            // A process that has just ended has no terminal any more.
            let _ = self.tasks.resize(&self.process, size).await;
        }
    }

    /// Waits for the end of the process, which `wait` tells, and of its output.
    pub(crate) async fn until_end(
        mut self,
        mut session: Session,
        wait: impl Future<Output = Result<Exit>>,
    ) -> std::result::Result<Ended, Failure> {
        let mut wait = std::pin::pin!(wait);
        let mut output_ended = false;
        let exit = loop {
            tokio::select! {
                biased;
                exit = &mut wait => break exit?,
                Some(event) = session.events.recv() => match event {
                    Event::OutputEnded => output_ended = true,
                    Event::Detached => return Ok(Ended::Detached),
                    Event::OutputBroken => return Ok(Ended::Broken),
                    Event::InputEnded => {
                        // Nothing to close when it has ended, or its input is its shim's business.
                        let _ = self.tasks.close_stdin(&self.process).await;
                    }
                    Event::CutOff(text) => return Err(Failure::new(text)),
                },
                Some(number) = self.heard.recv() => {
                    if number == WINCH {
                        self.resize().await;
                    } else if self.proxy {
                        self.pass_on(number).await?;
                    } else {
                        return Ok(Ended::Signal(number));
                    }
                }
            }
        };
        if !output_ended {
            rest(&mut session).await?;
        }
        drop(self.raw.take());
        Ok(Ended::Exit(exit))
    }

    async fn pass_on(&self, number: i32) -> std::result::Result<(), Failure> {
        match self.tasks.kill(&self.process, number as u32, KillTarget::Process).await {
            // It has ended and its exit is on its way, or it is about to begin.
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::FailedPrecondition)
                    || error.message().contains("already finished") =>
            {
                Ok(())
            }
            other => Ok(other?),
        }
    }
}

/// Waits until the last output is out, as long as any moves.
async fn rest(session: &mut Session) -> std::result::Result<(), Failure> {
    let mut before = None;
    loop {
        match tokio::time::timeout(SETTLE, session.events.recv()).await {
            Ok(None | Some(Event::OutputEnded)) => return Ok(()),
            Ok(Some(Event::OutputBroken)) => return Err(Failure::silent(141)),
            Ok(Some(_)) => {}
            Err(_) => {
                let now = session.progress.mark();
                if now.is_some() && now == before {
                    return Ok(());
                }
                before = now;
            }
        }
    }
}
