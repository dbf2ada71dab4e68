//! What would be asked for a reference, and what comes of it.

use std::path::PathBuf;

use berth_types::{Descriptor, Digest, ImageRef, Result};
use reqwest::Method;

use crate::credentials;
use crate::exchange;
use crate::hosts::{Capability, Host};
use crate::registries::Registries;
use crate::repository::{Access, accepting, described};

/// One host that would be asked.
#[derive(Debug)]
pub struct Explained {
    /// Its address with the path before the repository.
    pub address: String,
    /// The file or folder that says so; none for what holds without any.
    pub from: Option<PathBuf>,
    /// What it may be asked for.
    pub capabilities: Vec<Capability>,
    /// Whether it stands for another registry than its own.
    pub mirror: bool,
    /// Whether it is only asked if the one before was not understood.
    pub alternate: bool,
    /// With what it is asked when it wants to know who asks; none if there is nothing.
    pub credentials: Result<Option<String>>,
    /// What it has under the reference, or why it does not tell.
    pub answer: std::result::Result<Option<Descriptor>, String>,
}

impl Registries {
    /// Asks every host of a reference's registry for it, each by itself.
    pub async fn explain(&self, reference: &ImageRef) -> Result<Vec<Explained>> {
        let hosts = self.hosts(reference.host())?;
        let mut all = Vec::with_capacity(hosts.len());
        for host in hosts {
            all.push(self.explain_host(reference, host).await?);
        }
        Ok(all)
    }

    async fn explain_host(&self, reference: &ImageRef, host: Host) -> Result<Explained> {
        let repository = self.repository(reference, Access::Pull)?;
        let party = repository.party(&host);
        let found = credentials::find(&self.shared.config, party.account, host.helper.as_deref()).await;
        let name = reference.digest().map_or_else(|| reference.tag().unwrap_or("latest"), Digest::as_str);
        let head = repository.url(&host, &format!("manifests/{name}"));
        let able = [Capability::Pull, Capability::Resolve].iter().any(|one| host.capabilities.contains(one));
        let answer = if able {
            match exchange::send(party, &accepting(exchange::Call::new(Method::HEAD, head))).await {
                Ok(response) => described(&response, reference.digest()).map_err(|error| error.chain()),
                Err(failure) => Err(failure.to_string()),
            }
        } else {
            Err("it is not asked: its settings let it neither pull nor resolve".to_owned())
        };
        Ok(Explained {
            address: format!("{}{}", host.base.origin().ascii_serialization(), host.path),
            credentials: found.map(|found| found.map(|found| found.shown())),
            answer,
            from: host.from,
            capabilities: host.capabilities.into_iter().collect(),
            mirror: host.mirror,
            alternate: host.alternate,
        })
    }
}
