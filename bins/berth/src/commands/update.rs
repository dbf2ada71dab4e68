//! `update`: other limits for containers.

use berth_workload::parse::restart_policy;
use clap::Args;

use super::each;
use super::options::LimitOptions;
use crate::context::Context;
use crate::failure::Outcome;

/// Flags of `update`.
#[derive(Debug, Args)]
pub(crate) struct Update {
    #[command(flatten)]
    limits: LimitOptions,
    /// When to start it again
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Update {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let policy = self.restart.as_deref().map(restart_policy).transpose()?;
        // What cannot be meant is told before anything changes.
        self.limits.apply(&mut berth_workload::HostConfig::default())?;
        let limits = &self.limits;
        each(&self.containers, |name| async move {
            let found = context.find(&name).await?;
            context
                .workload
                .update(&found, |host| {
                    // It was applied to another one already, so it is valid.
                    let _ = limits.apply(host);
                    if let Some(policy) = policy {
                        host.restart_policy = policy;
                    }
                })
                .await?;
            Ok(name)
        })
        .await
    }
}
