//! What the client is told about the machine it runs on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::HeaderMap;

use crate::credentials::{Ask, Credentials};
use crate::transcript::Transcript;

/// Configuration. The default reads no file: a program says which folders count.
#[derive(Clone)]
pub struct Config {
    /// Folders with `HOST/hosts.toml`, the first that knows a host counts.
    pub hosts: Vec<PathBuf>,
    /// Docker's `config.json`, if it is there.
    pub docker: Option<PathBuf>,
    /// Credentials by host, over those of Docker's file.
    pub credentials: BTreeMap<String, Credentials>,
    /// Who is asked for credentials before all others, if anybody is.
    pub ask: Option<Ask>,
    /// Headers for the registry's own hosts, beside those of hosts.toml. Mirrors do not get them.
    pub headers: HeaderMap,
    /// Who reads along, if anybody does.
    pub transcript: Option<Transcript>,
    /// Hosts that are spoken to without TLS. Loopback needs no entry.
    pub plain_http: Vec<String>,
    /// Hosts of token services that may be given credentials although they are not in their registry's domain.
    pub realms: Vec<String>,
    /// How requests name this program.
    pub user_agent: String,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long a host may be silent.
    pub read_timeout: Duration,
    /// Bytes of a body that have to come while a host might be silent: one that sends less is given up.
    pub least: u64,
    /// Connections for one large blob, where its host heeds ranges.
    pub connections: usize,
    /// Bytes of one part of a large blob.
    pub part: u64,
    /// How often a request is repeated after a failure that can pass.
    pub retries: u32,
    /// The first pause before a repetition; each one is twice as long as that before.
    pub pause: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            docker: None,
            credentials: BTreeMap::new(),
            ask: None,
            headers: HeaderMap::new(),
            transcript: None,
            plain_http: Vec::new(),
            realms: Vec::new(),
            user_agent: concat!("berth/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_mins(1),
            least: 64 << 10,
            connections: 4,
            part: crate::blob::PART,
            retries: 4,
            pause: Duration::from_millis(250),
        }
    }
}

impl Config {
    /// What a program on a usual machine reads: berth's, containerd's and Docker's folders, and the user's
    /// Docker configuration below `docker` (`$DOCKER_CONFIG` or `~/.docker`).
    pub fn system(docker: Option<&Path>) -> Self {
        let folders = ["/etc/berth/certs.d", "/etc/containerd/certs.d", "/etc/docker/certs.d"];
        Self {
            hosts: folders.iter().map(PathBuf::from).collect(),
            docker: docker.map(|folder| folder.join("config.json")),
            ..Self::default()
        }
    }
}
