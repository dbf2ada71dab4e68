//! Whom the daemon trusts to be the collector, and who it is to the collector: the files that OpenTelemetry's variables name.

use std::fs;
use std::sync::Arc;

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// A file of certificates or of a key.
type Pem = Arc<[u8]>;

/// The files, read.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    /// Who signs for collectors; without it the machine's own authorities.
    authority: Option<Pem>,
    /// The daemon's certificate and its key.
    identity: Option<(Pem, Pem)>,
}

/// Without the key.
impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("has_authority", &self.authority.is_some()).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads what the variables name; those of traces come before those of everything.
    ///
    /// # Errors
    ///
    /// Which variable names a file that cannot be read, or lacks its companion.
    pub(super) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let file = |what: &str| {
            let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")];
            let named = names.into_iter().find_map(|name| {
                let path = variable(&name).filter(|path| !path.is_empty())?;
                Some((name, path))
            });
            let read = named.map(|(name, path)| match fs::read(&path) {
                Ok(bytes) => Ok(Pem::from(bytes)),
                Err(error) => Err(format!("cannot read {path}, which {name} names: {error}")),
            });
            read.transpose()
        };
        let authority = file("CERTIFICATE")?;
        let identity = match (file("CLIENT_CERTIFICATE")?, file("CLIENT_KEY")?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(alone("CLIENT_CERTIFICATE", "CLIENT_KEY")),
            (None, Some(_)) => return Err(alone("CLIENT_KEY", "CLIENT_CERTIFICATE")),
        };
        Ok(Self { authority, identity })
    }

    /// For gRPC.
    pub(super) fn of_tonic(&self) -> ClientTlsConfig {
        let config = ClientTlsConfig::new();
        let config = match &self.authority {
            Some(authority) => config.ca_certificate(Certificate::from_pem(authority)),
            None => config.with_native_roots(),
        };
        match &self.identity {
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
            None => config,
        }
    }

    /// For HTTP.
    ///
    /// # Errors
    ///
    /// A file that holds no certificate, or no key.
    pub(super) fn of_reqwest(&self) -> reqwest::Result<reqwest::Client> {
        let mut client = reqwest::Client::builder();
        if let Some(authority) = &self.authority {
            client = client.tls_certs_only(reqwest::Certificate::from_pem_bundle(authority)?);
        }
        if let Some((certificate, key)) = &self.identity {
            let both = [certificate.as_ref(), b"\n", key.as_ref()].concat();
            client = client.identity(reqwest::Identity::from_pem(&both)?);
        }
        client.build()
    }
}

fn alone(set: &str, missing: &str) -> String {
    format!("OTEL_EXPORTER_OTLP_{set} is set and OTEL_EXPORTER_OTLP_{missing} is not: set both, or neither")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_missing_or_alone_is_named() {
        let scratch = testkit::Scratch::new();
        let path = scratch.file("pem", "-");
        let path = path.to_str().expect("it is text");
        let of = |variables: &[(&str, &str)]| {
            Tls::read(|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(of(&[]), Ok(Tls::default()));
        let both = of(&[
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", path),
            ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", path),
        ]);
        assert!(both.expect("both are there").identity.is_some());
        let error = of(&[("OTEL_EXPORTER_OTLP_CLIENT_KEY", path)]).expect_err("it is alone");
        assert!(error.contains("CLIENT_CERTIFICATE is not"), "{error}");
        let missing = ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/nowhere/ca.pem");
        let error = of(&[("OTEL_EXPORTER_OTLP_CERTIFICATE", path), missing]).expect_err("it is missing");
        assert!(error.contains("/nowhere/ca.pem") && error.contains(missing.0), "{error}");
    }
}
