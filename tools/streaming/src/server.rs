//! The listener, and the life of a connection.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use berth_types::{Error, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream, UdpSocket, lookup_host};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::config::Config;
use crate::http::{Plan, Slot, answer};
use crate::request::{AttachRequest, ExecRequest, PortForwardRequest, Process, Request};
use crate::serve::serve;
use crate::session::Shared;
use crate::socket::{Socket, prepare};
use crate::tls;
use crate::tokens::Tokens;

/// Connections at one time that have not shown a token; more wait.
const STRANGERS: usize = 128;
/// How long a peer may take to show one.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause after a connection could not be taken, as when descriptors ran out.
const BREATH: Duration = Duration::from_millis(100);
/// Longer than anybody waits.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The streaming server. It listens, and serves once it is run.
pub struct Server {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    urls: Urls,
    sessions: Shared,
    idle: Duration,
}

/// Hands out URLs, each good for one connection within a minute.
#[derive(Clone)]
pub struct Urls {
    base: Arc<str>,
    tokens: Arc<Tokens>,
}

impl Urls {
    /// For a command.
    pub fn exec(&self, request: ExecRequest) -> Result<String> {
        self.issue(Request::Process(Process::Exec(request)))
    }

    /// For an attachment.
    pub fn attach(&self, request: AttachRequest) -> Result<String> {
        self.issue(Request::Process(Process::Attach(request)))
    }

    /// For connections to ports.
    pub fn port_forward(&self, request: PortForwardRequest) -> Result<String> {
        self.issue(Request::PortForward(request))
    }

    fn issue(&self, request: Request) -> Result<String> {
        request.check()?;
        let kind = request.kind();
        let token = self.tokens.issue(request)?;
        Ok(format!("{}/{kind}/{token}", self.base))
    }
}

impl Server {
    /// Listens as configured, on behalf of `sessions`.
    pub async fn open(config: &Config, sessions: Shared) -> Result<Self> {
        let wanted = resolve(config).await?;
        let unheard = |error| Error::io(format!("cannot listen on {wanted} for streaming"), error);
        let listener = TcpListener::bind(wanted).await.map_err(unheard)?;
        let address = listener.local_addr().map_err(unheard)?;
        let tls = tls::acceptor(&config.tls, address.ip())?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let urls = Urls { base: format!("{scheme}://{address}").into(), tokens: Arc::default() };
        let idle = if config.idle_timeout.is_zero() { FOR_EVER } else { config.idle_timeout.min(FOR_EVER) };
        Ok(Self { listener, tls, urls, sessions, idle })
    }

    /// What hands out URLs.
    pub fn urls(&self) -> Urls {
        self.urls.clone()
    }

    /// Serves until `stop` resolves; then every connection ends, and with it the work on its streams.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) {
        let Self { listener, tls, urls, sessions, idle } = self;
        let host = Arc::new(Host { tls, tokens: urls.tokens, sessions, idle });
        let places = Arc::new(Semaphore::new(STRANGERS));
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        loop {
            let accepted = async {
                let place = places.clone().acquire_owned().await;
                (listener.accept().await, place)
            };
            tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => {}
                (accepted, place) = accepted => match accepted {
                    Ok((tcp, _)) => {
                        let host = host.clone();
                        connections.spawn(async move {
                            let greeted = timeout(PATIENCE, host.greet(tcp)).await;
                            drop(place);
                            if let Ok(Some((socket, first, plan))) = greeted {
                                serve(socket, &first, plan, &host.sessions, host.idle).await;
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot take a streaming connection");
                        sleep(BREATH).await;
                    }
                },
            }
        }
        connections.shutdown().await;
    }
}

/// What every connection needs.
struct Host {
    tls: Option<TlsAcceptor>,
    tokens: Arc<Tokens>,
    sessions: Shared,
    idle: Duration,
}

impl Host {
    /// Talks HTTP until a request is upgraded; gives what comes next, and the bytes that came already.
    async fn greet(&self, tcp: TcpStream) -> Option<(Socket, bytes::Bytes, Plan)> {
        prepare(&tcp).ok()?;
        let socket = match &self.tls {
            None => Socket::Plain(tcp),
            Some(acceptor) => match acceptor.accept(tcp).await {
                Ok(stream) => Socket::Tls(Box::new(stream)),
                Err(error) => {
                    tracing::debug!(%error, "a streaming client does not agree on TLS");
                    return None;
                }
            },
        };
        let slot = Slot::default();
        let service = service_fn(|request| ready(Ok::<_, Infallible>(answer(&request, &self.tokens, &slot))));
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(socket), service)
            .without_shutdown()
            .await;
        match served {
            Ok(parts) => slot.take().map(|plan| (parts.io.into_inner(), parts.read_buf, plan)),
            Err(error) => {
                tracing::debug!(%error, "a streaming client left before its stream began");
                None
            }
        }
    }
}

async fn resolve(config: &Config) -> Result<SocketAddr> {
    let unknown =
        |error| Error::io(format!("cannot resolve the address {:?} for streaming", config.address), error);
    if config.address.is_empty() {
        let ip = towards_others().await.map_err(unknown)?;
        return Ok((ip, config.port).into());
    }
    let found = lookup_host((config.address.as_str(), config.port)).await.map_err(unknown)?.next();
    found.ok_or_else(|| {
        Error::invalid_argument(format!("{:?} is no address to listen on for streaming", config.address))
    })
}

/// The address from which this machine would speak to one that is far away. No packet is sent: the address is one
/// of those that are only for documentation (RFC 5737).
async fn towards_others() -> std::io::Result<IpAddr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).await?;
    socket.connect(("192.0.2.1", 9)).await?;
    Ok(socket.local_addr()?.ip())
}
