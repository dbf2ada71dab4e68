//! The certificate that the server shows.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use berth_types::{Error, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::Tls;

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// What takes connections, if they are encrypted. Reads the files.
pub(crate) fn acceptor(tls: &Tls, address: IpAddr) -> Result<Option<TlsAcceptor>> {
    let (chain, key) = match tls {
        Tls::Off => return Ok(None),
        Tls::SelfSigned => self_signed(address)?,
        Tls::Files { certificate, key } => files(certificate, key)?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| unusable("the certificate for streaming cannot be used", error))?;
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

fn files(certificate: &Path, key: &Path) -> Result<Pair> {
    let unread = |path: &Path, what: &str, error| {
        unusable(&format!("cannot read {what} for streaming from {}", path.display()), error)
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| unread(certificate, "the certificate", error))?;
    if chain.is_empty() {
        let path = certificate.display();
        return Err(Error::invalid_argument(format!("no certificate for streaming in {path}")));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unread(key, "the key", error))?;
    Ok((chain, private))
}

/// Nobody can check it, so it says no more than where it is: a kubelet is on the same machine and takes any.
fn self_signed(address: IpAddr) -> Result<Pair> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let names = [host, "localhost".to_owned(), address.to_string()];
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| Error::internal("cannot make a certificate for streaming").caused_by(error))?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    Ok((vec![made.cert.into()], key.into()))
}

fn unusable(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::invalid_argument(what).caused_by(error)
}
