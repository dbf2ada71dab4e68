//! What is configured: containerd's keys `stream_server_address`, `stream_server_port`, `stream_idle_timeout`,
//! `enable_tls_streaming` and `[x509_key_pair_streaming]`, as values.

use std::path::PathBuf;
use std::time::Duration;

use berth_types::{Error, Result};

/// Where and how is listened. The default is containerd's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The address, which is also that of the URLs; empty for the one that this machine has towards others.
    pub address: String,
    /// The port; 0 for any that is free.
    pub port: u16,
    /// How long a connection may be without a byte; zero for ever.
    pub idle_timeout: Duration,
    /// Whether and how connections are encrypted.
    pub tls: Tls,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: "127.0.0.1".to_owned(),
            port: 0,
            idle_timeout: Duration::from_secs(4 * 60 * 60),
            tls: Tls::Off,
        }
    }
}

/// How connections are encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// Not at all.
    #[default]
    Off,
    /// With a certificate that is made at the start.
    SelfSigned,
    /// With these files, in PEM.
    Files {
        /// The certificate, and those between it and its root.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
}

/// containerd's keys for TLS, as they stand in a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsKeys<'a> {
    /// `enable_tls_streaming`.
    pub enabled: bool,
    /// `tls_cert_file`.
    pub certificate: &'a str,
    /// `tls_key_file`.
    pub key: &'a str,
}

impl TryFrom<TlsKeys<'_>> for Tls {
    type Error = Error;

    /// Files without the switch are an error, as is one without the other: somebody meant something else.
    fn try_from(keys: TlsKeys<'_>) -> Result<Self> {
        let missing = |what: &str, without: &str| {
            Err(Error::invalid_argument(format!("{what} is set but {without} is not: set both or none")))
        };
        match (keys.enabled, keys.certificate, keys.key) {
            (false, "", "") => Ok(Self::Off),
            (true, "", "") => Ok(Self::SelfSigned),
            (false, "", _) => missing("x509_key_pair_streaming.tls_key_file", "enable_tls_streaming"),
            (false, ..) => missing("x509_key_pair_streaming.tls_cert_file", "enable_tls_streaming"),
            (true, "", _) => missing("tls_key_file", "tls_cert_file of x509_key_pair_streaming"),
            (true, _, "") => missing("tls_cert_file", "tls_key_file of x509_key_pair_streaming"),
            (true, certificate, key) => Ok(Self::Files { certificate: certificate.into(), key: key.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_for_tls_come_in_pairs_and_with_the_switch() {
        let chosen = |enabled, certificate, key| Tls::try_from(TlsKeys { enabled, certificate, key });
        assert_eq!(chosen(false, "", "").unwrap(), Tls::Off);
        assert_eq!(chosen(true, "", "").unwrap(), Tls::SelfSigned);
        let files = Tls::Files { certificate: "/c".into(), key: "/k".into() };
        assert_eq!(chosen(true, "/c", "/k").unwrap(), files);
        for (enabled, certificate, key) in
            [(true, "/c", ""), (true, "", "/k"), (false, "/c", ""), (false, "", "/k"), (false, "/c", "/k")]
        {
            chosen(enabled, certificate, key).unwrap_err();
        }
    }
}
