//! The table of the streaming server.

use anyhow::{Context, Result};
use berth_streaming::{Config, Tls, TlsKeys};
use serde::Deserialize;

use crate::config::GoDuration;

use super::URI;

/// `[plugins.'io.containerd.grpc.v1.cri']`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Streaming {
    disable_tcp_service: bool,
    stream_server_address: String,
    stream_server_port: String,
    stream_idle_timeout: GoDuration,
    enable_tls_streaming: bool,
    x509_key_pair_streaming: KeyPair,
}

/// Its table `x509_key_pair_streaming`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct KeyPair {
    tls_cert_file: String,
    tls_key_file: String,
}

impl Default for Streaming {
    fn default() -> Self {
        Self {
            disable_tcp_service: true,
            stream_server_address: "127.0.0.1".to_owned(),
            stream_server_port: "0".to_owned(),
            stream_idle_timeout: GoDuration::from_secs(4 * 60 * 60),
            enable_tls_streaming: false,
            x509_key_pair_streaming: KeyPair::default(),
        }
    }
}

impl Streaming {
    /// What is asked for and cannot be had, for the log.
    pub(super) fn warning(&self) -> Option<&'static str> {
        (!self.disable_tcp_service)
            .then_some("disable_tcp_service = false: the CRI is served on the unix socket alone")
    }

    /// As the server takes it.
    pub(super) fn config(&self) -> Result<Config> {
        let keys = &self.x509_key_pair_streaming;
        let keys = TlsKeys {
            enabled: self.enable_tls_streaming,
            certificate: &keys.tls_cert_file,
            key: &keys.tls_key_file,
        };
        let tls = Tls::try_from(keys).map_err(|error| anyhow::anyhow!(error.chain()));
        Ok(Config {
            address: self.stream_server_address.clone(),
            port: self.stream_server_port.parse().with_context(|| {
                format!("stream_server_port {:?} of plugins.{URI:?} is no port", self.stream_server_port)
            })?,
            idle_timeout: self.stream_idle_timeout.as_std(),
            tls: tls.with_context(|| format!("in plugins.{URI:?}"))?,
        })
    }
}
