//! `port`: the ports of a container.

use clap::Args;

use crate::context::Context;
use crate::failure::{Failure, Outcome};

/// Flags of `port`.
#[derive(Debug, Args)]
pub(crate) struct Port {
    /// Container
    container: String,
    /// One port: NUMBER[/PROTOCOL]
    port: Option<String>,
}

impl Port {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let found = context.find(&self.container).await?;
        // With the networks that there are, none or the host's own, no port is mapped.
        match self.port {
            None => Ok(0),
            Some(port) => {
                Err(Failure::new(format!("no public port '{port}' published for {}", found.name())))
            }
        }
    }
}
