//! `attach`: to a container that runs.

use berth_types::attach::Pace;
use berth_types::{ProcessRef, ProcessStatus};
use berth_workload::parse::detach_keys;
use clap::Args;

use super::run::attach_session;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::terminal::{Ended, Foreground, Session, Wanted, awaited, is_terminal};

/// Flags of `attach`.
#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Keys that leave the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Type nothing
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true",
        action = clap::ArgAction::Set)]
    sig_proxy: bool,
    /// Container
    container: String,
}

impl Attach {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let found = context.find(&self.container).await?;
        let definition = found.definition()?;
        let name = found.name();
        let state = context.workload.task_state(&found.container.id).await?;
        let state = match state {
            Some(state) if state.status == ProcessStatus::Running => state,
            Some(state) if state.status == ProcessStatus::Paused => {
                return Err(Failure::new(format!(
                    "cannot attach to a paused container: unpause {name} first"
                )));
            }
            _ => {
                return Err(Failure::new(format!(
                    "cannot attach to a stopped container: start {name} first"
                )));
            }
        };
        let terminal = state.stdio.terminal;
        if terminal && !self.no_stdin && !is_terminal() {
            return Err(Failure::new("the input device is not a TTY"));
        }
        let keys = self.detach_keys.as_deref().map(detach_keys).transpose()?.unwrap_or_default();
        let types = !self.no_stdin && (definition.config.open_stdin || !state.stdio.stdin.is_empty());
        let wanted = Wanted {
            stdin: types,
            stdout: true,
            stderr: true,
            keys: (terminal && is_terminal()).then_some(keys),
            pace: Pace::CutOff,
        };
        let session = if state.stdio.stdout.starts_with('/') {
            Session::join(&state.stdio, wanted)?
        } else if state.stdio.stdout.starts_with("berth-json:") {
            attach_session(&context.workload, state.pid, wanted)?
        } else {
            let text = format!("the output of {name} goes to {}: use logs", shown(&state.stdio.stdout));
            return Err(Failure::new(text));
        };
        let tasks = context.client.tasks(context.scope());
        let process = ProcessRef::init(found.container.id.clone());
        let foreground = Foreground::take(tasks.clone(), process.clone(), terminal, types, self.sig_proxy)?;
        foreground.resize().await;
        match foreground.until_end(session, awaited(&tasks, &process)).await? {
            Ended::Exit(exit) => Ok(exit.status as u8),
            Ended::Detached => {
                eprintln!("read escape sequence");
                Ok(0)
            }
            Ended::Broken => Err(Failure::silent(141)),
            Ended::Signal(number) => Err(Failure::silent(128 + number as u8)),
        }
    }
}

fn shown(uri: &str) -> &str {
    if uri.is_empty() { "nowhere" } else { uri }
}
