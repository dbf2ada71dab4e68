//! `port`: the ports of a container.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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
        let host = |port: &PortMapping| {
            let address: IpAddr = port.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
            SocketAddr::new(address, port.host_port)
        };
        let Some(wanted) = self.port else {
            for port in &ports {
                output::line(&format!("{}/{} -> {}", port.container_port, port.protocol, host(port)))?;
            }
            return Ok(0);
        };
        let (number, protocol) = wanted.split_once('/').unwrap_or((&wanted, "tcp"));
        let is_wanted = |port: &&PortMapping| {
            port.container_port.to_string() == number && port.protocol.to_string() == protocol
        };
        let found_ports: Vec<&PortMapping> = ports.iter().filter(is_wanted).collect();
        if found_ports.is_empty() {
            return Err(Failure::new(format!("no public port '{wanted}' published for {}", found.name())));
        }
        for port in found_ports {
            output::line(&host(port).to_string())?;
        }
        Ok(0)
    }
}
