//! `stop`, `restart`, `kill`, `pause`, `unpause`, `wait`.

use berth_workload::parse;
use clap::Args;

use super::each;
use crate::context::Context;
use crate::failure::Outcome;
use crate::output;

/// Flags of `stop`.
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Signal that asks it to end
    #[arg(short, long)]
    signal: Option<String>,
    /// Seconds to wait before it is ended; -1 for ever
    #[arg(short = 't', long, visible_alias = "time", allow_hyphen_values = true)]
    timeout: Option<i64>,
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Flags of `restart`.
#[derive(Debug, Args)]
pub(crate) struct Restart {
    #[command(flatten)]
    stop: Stop,
}

/// Flags of `kill`.
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Signal
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Flags of `pause`.
#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Flags of `unpause`.
#[derive(Debug, Args)]
pub(crate) struct Unpause {
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Flags of `wait`.
#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Stop {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let signal = self.signal.as_deref().map(parse::signal).transpose()?;
        each(&self.containers, |name| async move {
            context.workload.stop(&context.find(&name).await?, signal, self.timeout).await?;
            Ok(name)
        })
        .await
    }
}

impl Restart {
    pub(crate) async fn run(self, context: &mut Context) -> Outcome {
        context.settle_logging().await?;
        let context = &*context;
        let signal = self.stop.signal.as_deref().map(parse::signal).transpose()?;
        each(&self.stop.containers, |name| async move {
            context.workload.restart(&context.find(&name).await?, signal, self.stop.timeout).await?;
            Ok(name)
        })
        .await
    }
}

impl Kill {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let signal = parse::signal(&self.signal)?;
        each(&self.containers, |name| async move {
            context.workload.kill(&context.find(&name).await?, signal).await?;
            Ok(name)
        })
        .await
    }
}

impl Pause {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        each(&self.containers, |name| async move {
            context.workload.pause(&context.find(&name).await?).await?;
            Ok(name)
        })
        .await
    }
}

impl Unpause {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        each(&self.containers, |name| async move {
            context.workload.unpause(&context.find(&name).await?).await?;
            Ok(name)
        })
        .await
    }
}

impl Wait {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let mut code = 0;
        for name in &self.containers {
            let found = context.find(name).await?;
            match context.workload.wait(&found).await {
                Ok(exit) => output::line(&exit.map_or(0, |exit| exit.status).to_string())?,
                Err(error) => {
                    eprintln!("berth: {}", error.chain());
                    code = 1;
                }
            }
        }
        Ok(code)
    }
}
