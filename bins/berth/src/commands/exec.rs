//! `exec`: one more process in a container.

use std::path::PathBuf;

use berth_types::attach::Pace;
use berth_types::{Exit, Stdio};
use berth_workload::parse::detach_keys;
use berth_workload::{ExecOptions, Found};
use clap::Args;

use super::options::environment;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::terminal::{Ended, Fifos, Foreground, Session, Wanted, awaited, is_terminal};

/// Flags of `exec`.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Run in the background
    #[arg(short, long)]
    detach: bool,
    /// Keys that leave the process running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Set a variable
    #[arg(short, long, value_name = "VARIABLE")]
    env: Vec<String>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give it every capability
    #[arg(long)]
    privileged: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// User and group: NAME|ID[:GROUP]
    #[arg(short, long)]
    user: Option<String>,
    /// Working directory
    #[arg(short, long)]
    workdir: Option<String>,
    /// The container, the command and its arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_name = "CONTAINER COMMAND [ARGUMENT]...")]
    words: Vec<String>,
}

impl Exec {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        if self.tty && self.interactive && !self.detach && !is_terminal() {
            return Err(Failure::new("the input device is not a TTY"));
        }
        let found = context.find(&self.words[0]).await?;
        let options = self.options(context, &found).await?;
        if self.detach {
            return self.detached(context, &found, &options).await;
        }
        let wanted = Wanted {
            stdin: self.interactive,
            stdout: true,
            stderr: true,
            keys: match (self.tty && is_terminal(), self.detach_keys.as_deref()) {
                (false, _) => None,
                (true, None) => Some(berth_workload::parse::DetachKeys::default()),
                (true, Some(text)) => Some(detach_keys(text)?),
            },
            pace: Pace::Wait,
        };
        let fifos = Fifos::make(self.interactive, self.tty)?;
        let exec = context.workload.exec(&found, &options, fifos.stdio()).await?;
        let tasks = context.client.tasks(context.scope());
        let session = Session::fifos(fifos, wanted, None)?;
        let foreground =
            Foreground::take(tasks.clone(), exec.process.clone(), self.tty, self.interactive, false)?;
        let end = awaited(&tasks, &exec.process);
        let (started, ()) = tokio::join!(tasks.start(&exec.process), foreground.resize());
        if let Err(error) = started {
            let _ = context.workload.delete_exec(&exec).await;
            return Err(Failure::from(error).of_start());
        }
        if self.tty {
            // A shim may make the terminal only with the process.
            foreground.resize().await;
        }
        match foreground.until_end(session, end).await? {
            Ended::Exit(Exit { status, .. }) => {
                match context.workload.delete_exec(&exec).await {
                    // The container has ended too, and took it along.
                    Err(error) if error.kind() == berth_types::ErrorKind::NotFound => {}
                    other => drop(other?),
                }
                Ok(status as u8)
            }
            Ended::Detached => Ok(0),
            Ended::Broken => Err(Failure::silent(141)),
            Ended::Signal(number) => Err(Failure::silent(128 + number as u8)),
        }
    }

    async fn options(&self, context: &Context, found: &Found) -> Result<ExecOptions, Failure> {
        let user = match &self.user {
            Some(user) => Some(context.workload.identity_in(&found.container.id, user).await?),
            None => None,
        };
        Ok(ExecOptions {
            args: self.words[1..].to_vec(),
            env: environment(&self.env_file, &self.env)?,
            cwd: self.workdir.clone().unwrap_or_default(),
            tty: self.tty,
            privileged: self.privileged,
            user,
        })
    }

    async fn detached(&self, context: &Context, found: &Found, options: &ExecOptions) -> Outcome {
        let stdio = Stdio { terminal: self.tty, ..Stdio::default() };
        let exec = context.workload.exec(found, options, stdio).await?;
        match context.client.tasks(context.scope()).start(&exec.process).await {
            Ok(_) => Ok(0),
            Err(error) => {
                let _ = context.workload.delete_exec(&exec).await;
                Err(Failure::from(error).of_start())
            }
        }
    }
}
