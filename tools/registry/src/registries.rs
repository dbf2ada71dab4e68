//! The registries as this machine is configured to reach them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_types::{Error, ImageRef, Result};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Identity};
use tokio::sync::Semaphore;

use crate::auth::Tokens;
use crate::blob::AHEAD;
use crate::config::Config;
use crate::hosts::{self, Host};
use crate::repository::{Access, Repository};

/// Bytes of a certificate file.
const CERTIFICATE_LIMIT: u64 = 4 << 20;

/// Connections, tokens and configuration, shared by every repository. Clones are the same.
#[derive(Clone)]
pub struct Registries {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) tokens: Tokens,
    /// Room for parts of blobs that are fetched before their turn.
    pub(crate) room: Arc<Semaphore>,
    clients: Clients,
}

type Clients = Arc<Mutex<HashMap<Trust, Client>>>;

/// What makes one connection pool differ from another.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct Trust {
    ca: Vec<PathBuf>,
    client: Vec<(PathBuf, Option<PathBuf>)>,
    skip_verify: bool,
    dial_timeout: Option<Duration>,
    waits: Waits,
}

/// What a client waits for. How long an answer takes cannot be counted from the beginning of a request whose body takes
/// its time: such a one is watched while it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Waits {
    #[default]
    ForAnswers,
    ForBodies,
}

impl Registries {
    /// Registries under a configuration. Reads nothing yet.
    pub fn new(config: Config) -> Self {
        let room = Arc::new(Semaphore::new(AHEAD));
        Self {
            shared: Arc::new(Shared { config, tokens: Tokens::default(), room, clients: Clients::default() }),
        }
    }

    /// The same connections under another configuration. Tokens are not shared: they are somebody's. How long
    /// connections may take, and how requests name this program, is as it was.
    #[must_use]
    pub fn under(&self, config: Config) -> Self {
        let (clients, room) = (Arc::clone(&self.shared.clients), Arc::clone(&self.shared.room));
        Self { shared: Arc::new(Shared { config, tokens: Tokens::default(), room, clients }) }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// One repository of one registry.
    pub fn repository(&self, reference: &ImageRef, access: Access) -> Result<Repository> {
        let hosts = self.hosts(reference.host())?;
        Ok(Repository::new(Arc::clone(&self.shared), reference, hosts, access))
    }

    /// The hosts that are asked for a registry, in order.
    pub fn hosts(&self, registry: &str) -> Result<Vec<Host>> {
        let mut hosts = hosts::find(&self.shared.config, registry)?;
        for own in hosts.iter_mut().filter(|host| !host.mirror) {
            own.headers.extend(self.shared.config.headers.clone());
        }
        Ok(hosts)
    }
}

impl Shared {
    /// The client for a host's own address.
    pub(crate) fn client(&self, host: &Host, waits: Waits) -> Result<Client> {
        let trust = Trust {
            ca: host.ca.clone(),
            client: host.client.clone(),
            skip_verify: host.skip_verify,
            dial_timeout: host.dial_timeout,
            waits,
        };
        self.client_for(trust)
    }

    /// The client for every address that a registry leads to.
    pub(crate) fn foreign_client(&self, waits: Waits) -> Result<Client> {
        self.client_for(Trust { waits, ..Trust::default() })
    }

    fn client_for(&self, trust: Trust) -> Result<Client> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&trust) {
            return Ok(client.clone());
        }
        let client = self.build(&trust)?;
        clients.insert(trust, client.clone());
        Ok(client)
    }

    fn build(&self, trust: &Trust) -> Result<Client> {
        let config = &self.config;
        let mut builder = Client::builder()
            .user_agent(&config.user_agent)
            // Whether credentials go along is decided here and nowhere else.
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(trust.dial_timeout.unwrap_or(config.connect_timeout))
            .tls_danger_accept_invalid_certs(trust.skip_verify);
        if trust.waits == Waits::ForAnswers {
            builder = builder.read_timeout(config.read_timeout);
        }
        let mut certificates = Vec::new();
        for path in &trust.ca {
            let pem = read(path)?;
            let parsed =
                Certificate::from_pem_bundle(&pem).map_err(|source| invalid(path).caused_by(source))?;
            certificates.extend(parsed);
        }
        if !certificates.is_empty() {
            builder = builder.tls_certs_merge(certificates);
        }
        // One connection can show one certificate; the first that is configured counts, as with curl.
        if let Some((certificate, key)) = trust.client.first() {
            let mut pem = read(certificate)?;
            if let Some(key) = key {
                pem.push(b'\n');
                pem.extend(read(key)?);
            }
            let identity =
                Identity::from_pem(&pem).map_err(|source| invalid(certificate).caused_by(source))?;
            builder = builder.identity(identity);
        }
        builder.build().map_err(|source| {
            let text =
                "cannot set up TLS; if this machine has no certificates, install the package ca-certificates";
            Error::failed_precondition(text).caused_by(source)
        })
    }
}

fn invalid(path: &Path) -> Error {
    Error::invalid_argument(format!("{} holds no certificate in PEM form", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let failed = |source| Error::io(format!("cannot read {}", path.display()), source);
    let mut data = Vec::new();
    std::fs::File::open(path)
        .map_err(failed)?
        .take(CERTIFICATE_LIMIT)
        .read_to_end(&mut data)
        .map_err(failed)?;
    Ok(data)
}
