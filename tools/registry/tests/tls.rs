//! Hosts with TLS, as hosts.toml and Docker's folder of certificates say how to trust them.

#![expect(clippy::unwrap_used, reason = "a test fails with what it did not expect")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_registry::{Access, Config, Registries};
use berth_types::{Descriptor, Error, ErrorKind, ImageRef};
use testkit::image::{Image, Layer};
use testkit::registry::{Standin, serve};
use testkit::{Invocation, Scratch, need};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// A registry behind TLS, and who vouches for it.
struct Secure {
    address: String,
    certificates: Scratch,
    _standin: Standin,
}

/// Whether the other side has to show a certificate.
#[derive(Clone, Copy, PartialEq)]
enum Shown {
    Nothing,
    Certificate,
}

impl Secure {
    async fn start(client: Shown) -> Option<Self> {
        let certificates = certificates().ok()?;
        let pem = |name: &str| certificates.path(name);
        let key = PrivateKeyDer::from_pem_file(pem("host.key")).unwrap();
        let chain = vec![CertificateDer::from_pem_file(pem("host.crt")).unwrap()];
        let builder = ServerConfig::builder();
        let builder = if client == Shown::Certificate {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(pem("ca.crt")).unwrap()).unwrap();
            builder.with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()));
        let image = image();
        let standin = Standin::start(move |request| serve(&image, "a/b", "1", request));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let behind = standin.address();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut plain = TcpStream::connect(behind).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
                });
            }
        });
        Some(Self { address, certificates, _standin: standin })
    }

    /// Resolves the image under a hosts.toml.
    async fn resolve(&self, hosts: &str) -> Result<Descriptor, Error> {
        let folder = self.folder();
        std::fs::write(folder.join("hosts.toml"), hosts.replace("HOST", &self.address)).unwrap();
        resolve(folder.parent().unwrap(), &self.address).await
    }

    /// `certs.d/HOST`, in which the certificates are.
    fn folder(&self) -> std::path::PathBuf {
        let folder = self.certificates.path("certs.d").join(&self.address);
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["ca.crt", "client.cert", "client.key"] {
            std::fs::copy(self.certificates.path(name), folder.join(name)).unwrap();
        }
        folder
    }
}

fn image() -> Image {
    Image::new("a/b:1").layer(Layer::new().file("file", b"text", 0o644))
}

async fn resolve(hosts: &Path, registry: &str) -> Result<Descriptor, Error> {
    let config = Config {
        hosts: vec![hosts.to_owned()],
        pause: Duration::from_millis(1),
        retries: 1,
        ..Config::default()
    };
    let reference: ImageRef = format!("{registry}/a/b:1").parse().unwrap();
    Registries::new(config).repository(&reference, Access::Pull)?.resolve(&reference).await
}

/// An authority, a host and a client that it vouches for.
fn certificates() -> Result<Scratch, need::Missing> {
    let openssl = need::program("openssl")?;
    let scratch = Scratch::new();
    let run = |line: String| {
        let words = line.split_whitespace().map(|word| match word.strip_prefix("./") {
            Some(name) => scratch.path(name).display().to_string(),
            None => word.to_owned(),
        });
        Invocation::new(&openssl).args(words).ok();
    };
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    run(format!("req -x509 {new} -keyout ./ca.key -out ./ca.crt -subj /CN=authority -days 2"));
    scratch.file("names", "subjectAltName=IP:127.0.0.1");
    for (name, file) in [("host", "host.crt"), ("client", "client.cert")] {
        run(format!("req {new} -keyout ./{name}.key -out ./{name}.csr -subj /CN={name}"));
        run(format!(
            "x509 -req -in ./{name}.csr -CA ./ca.crt -CAkey ./ca.key -out ./{file} -days 2 -extfile ./names"
        ));
    }
    Ok(scratch)
}

#[tokio::test]
async fn a_host_is_trusted_as_its_file_says_and_not_without() {
    let Some(secure) = Secure::start(Shown::Nothing).await else { return };
    let error = secure.resolve("server = 'https://HOST'").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains(&format!("https://{}: HEAD", secure.address)), "{error:?}");
    assert!(error.chain().contains("certificate"), "the reason is said: {}", error.chain());
    secure.resolve("server = 'https://HOST'\nca = 'ca.crt'").await.unwrap();
    secure.resolve("server = 'https://HOST'\nca = ['ca.crt']").await.unwrap();
    secure.resolve("server = 'https://HOST'\nskip_verify = true").await.unwrap();
    secure.resolve("[host.'https://HOST']\nca = 'ca.crt'").await.unwrap();
    let error = secure.resolve("server = 'https://HOST'\nca = 'missing.crt'").await.unwrap_err();
    assert!(error.chain().contains("missing.crt"), "{error:?}");
}

#[tokio::test]
async fn a_host_that_wants_a_certificate_gets_the_one_of_its_file() {
    let Some(secure) = Secure::start(Shown::Certificate).await else { return };
    secure.resolve("server = 'https://HOST'\nca = 'ca.crt'").await.unwrap_err();
    let pair = "server = 'https://HOST'\nca = 'ca.crt'\nclient = [['client.cert', 'client.key']]";
    secure.resolve(pair).await.unwrap();
}

#[tokio::test]
async fn dockers_folder_of_certificates_is_read_as_docker_reads_it() {
    let Some(secure) = Secure::start(Shown::Certificate).await else { return };
    let folder = secure.folder();
    resolve(folder.parent().unwrap(), &secure.address).await.unwrap();
    std::fs::remove_file(folder.join("client.key")).unwrap();
    let error = resolve(folder.parent().unwrap(), &secure.address).await.unwrap_err();
    assert!(error.chain().contains("client.key"), "{error:?}");
}

#[tokio::test]
async fn a_host_that_has_no_tls_is_not_spoken_to_in_the_clear() {
    let image = image();
    let standin = Standin::start(move |request| serve(&image, "a/b", "1", request));
    let scratch = Scratch::new();
    let folder = scratch.path("certs.d").join(standin.address());
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("hosts.toml"), format!("server = 'https://{}'", standin.address())).unwrap();
    let error = resolve(&scratch.path("certs.d"), &standin.address()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(standin.requests(), [], "nothing was asked");
}
