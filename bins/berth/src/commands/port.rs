//! `port`: the ports of a container.

use berth_net::PortMapping;
use clap::Args;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;

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
        let endpoint = context.workload.endpoint(&found.container.id)?;
        let ports = endpoint.map(|endpoint| endpoint.ports).unwrap_or_default();
        let Some(wanted) = self.port else {
            for port in &ports {
                output::line(&format!("{} -> {}", port.inner(), port.host()))?;
            }
            return Ok(0);
        };
        let whole = if wanted.contains('/') { wanted.clone() } else { format!("{wanted}/tcp") };
        let found_ports: Vec<&PortMapping> = ports.iter().filter(|port| port.inner() == whole).collect();
        if found_ports.is_empty() {
            return Err(Failure::new(format!("no public port '{wanted}' published for {}", found.name())));
        }
        for port in found_ports {
            output::line(&port.host().to_string())?;
        }
        Ok(0)
    }
}
