//! A client of image registries (OCI distribution specification 1.1, and what Docker's registries do).
//!
//! [`Registries`] knows the machine's configuration: hosts.toml folders as containerd documents them, Docker's
//! config.json with its credential helpers. [`Repository`] is one name in one of them: it resolves, reads and
//! writes, asking each configured host in turn and telling of every attempt when all have failed.
//!
//! What a registry says is not trusted: documents and error bodies are bounded, digests are verified by whoever
//! takes the bytes (documents here, blobs by the content store), redirects are counted, and credentials and
//! configured headers go to the host that they are for and to no other.

mod account;
mod attempt;
mod auth;
mod blob;
mod challenge;
mod config;
mod credentials;
mod docker;
mod exchange;
mod explain;
mod hosts;
mod pace;
mod referrers;
mod registries;
mod repository;
mod retry;
mod session;
mod transcript;
mod upload;

pub use account::{Hit, registry_name};
pub use blob::Blob;
pub use challenge::challenges;
pub use config::Config;
pub use credentials::{Ask, Credentials, Secret};
pub use explain::Explained;
pub use hosts::{Capability, Host, hosts_of};
pub use registries::Registries;
pub use repository::{Access, Repository};
pub use reqwest::header::{HeaderMap, HeaderName};
pub use transcript::{Detail, Listen, Transcript};
pub use upload::BlobSource;
