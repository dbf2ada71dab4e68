//! A server whose sessions do what their command says, and peers that speak to it byte by byte.

#![allow(dead_code, reason = "each test program uses a part")]

pub(crate) mod go;
pub(crate) mod raw;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use berth_streaming::{
    AttachRequest, Config, ExecRequest, PortForwardRequest, PortStream, ProcessStreams, Server, Sessions,
    Urls, Wanted,
};
use berth_types::{Error, Result, SandboxId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// What the sessions of a server are at.
#[derive(Default)]
pub(crate) struct Bench {
    pub(crate) running: AtomicUsize,
    pub(crate) begun: AtomicUsize,
    /// Sessions that were told that their peer is gone.
    pub(crate) left: AtomicUsize,
}

struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Bench {
    fn begin(&self) -> Running<'_> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.running.fetch_add(1, Ordering::SeqCst);
        Running(&self.running)
    }

    async fn process(&self, words: &[&str], streams: ProcessStreams) -> Result<i32> {
        let ProcessStreams { stdin, stdout, stderr, mut sizes, mut gone } = streams;
        let io = |error| Error::io("a stream of the test broke", error);
        match words {
            ["cat"] => {
                let (mut stdin, mut stdout) = (stdin.unwrap(), stdout.unwrap());
                copy(&mut stdin, &mut stdout).await.map_err(io)?;
            }
            ["both"] => {
                stdout.unwrap().write_all(b"for the one").await.map_err(io)?;
                stderr.unwrap().write_all(b"for the other").await.map_err(io)?;
            }
            ["exit", code] => return Ok(code.parse().unwrap()),
            ["fail"] => {
                let cause = Error::unavailable("its shim does not answer");
                return Err(Error::not_found("there is no such container").caused_by(cause));
            }
            // A process that closes its input while the peer still has some.
            ["head", count] => {
                let mut head = vec![0; count.parse().unwrap()];
                let (mut stdin, mut stdout) = (stdin.unwrap(), stdout.unwrap());
                stdin.read_exact(&mut head).await.map_err(io)?;
                drop(stdin);
                stdout.write_all(&head).await.map_err(io)?;
            }
            ["write", count] => {
                let mut stdout = stdout.unwrap();
                let bytes = vec![b'x'; count.parse().unwrap()];
                stdout.write_all(&bytes).await.map_err(io)?;
            }
            ["sizes", until] => {
                let mut stdout = stdout.unwrap();
                while let Some(size) = sizes.next().await {
                    let line = format!("{}x{}", size.width, size.height);
                    stdout.write_all(format!("{line}\n").as_bytes()).await.map_err(io)?;
                    if line == *until {
                        break;
                    }
                }
            }
            // A process that neither reads nor ends.
            ["wait"] => {
                stdout.unwrap().write_all(b"ready").await.map_err(io)?;
                gone.wait().await;
                self.left.fetch_add(1, Ordering::SeqCst);
                let end = stdin.unwrap().read_to_end(&mut Vec::new()).await;
                assert!(end.is_err(), "the input of a peer that vanished has no proper end");
            }
            // Output without end.
            ["yes"] => {
                let mut stdout = stdout.unwrap();
                while stdout.write_all(&[b'y'; 4096]).await.is_ok() {}
                self.left.fetch_add(1, Ordering::SeqCst);
            }
            other => panic!("no such command: {other:?}"),
        }
        Ok(0)
    }
}

#[async_trait::async_trait]
impl Sessions for Bench {
    async fn exec(&self, request: ExecRequest, streams: ProcessStreams) -> Result<i32> {
        let _running = self.begin();
        assert_eq!(request.container.as_str(), "container");
        let words: Vec<_> = request.command.iter().map(String::as_str).collect();
        self.process(&words, streams).await
    }

    async fn attach(&self, request: AttachRequest, streams: ProcessStreams) -> Result<()> {
        let _running = self.begin();
        assert_eq!(request.container.as_str(), "container");
        self.process(&["cat"], streams).await.map(|_| ())
    }

    /// Port 8080 and those above echo; the others are closed.
    async fn port_forward(&self, pod: SandboxId, port: u16, mut stream: PortStream) -> Result<()> {
        let _running = self.begin();
        assert_eq!(pod.as_str(), "pod");
        if port < 8080 {
            return Err(Error::unavailable(format!("nobody listens on port {port}")));
        }
        copy(&mut stream.reader, &mut stream.writer).await.map(|_| ()).map_err(|error| {
            self.left.fetch_add(1, Ordering::SeqCst);
            Error::io("a connection broke", error)
        })
    }
}

/// A running server.
pub(crate) struct Host {
    pub(crate) bench: Arc<Bench>,
    pub(crate) urls: Urls,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
}

impl Host {
    pub(crate) async fn start(config: Config) -> Self {
        let bench = Arc::new(Bench::default());
        let server = Server::open(&config, bench.clone()).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let urls = server.urls();
        let served = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self { bench, urls, stop: Some(stop), served }
    }

    pub(crate) fn exec(&self, command: &str, wanted: Wanted) -> String {
        let command = command.split(' ').map(str::to_owned).collect();
        self.urls.exec(ExecRequest { container: "container".parse().unwrap(), command, wanted }).unwrap()
    }

    pub(crate) fn attach(&self, wanted: Wanted) -> String {
        self.urls.attach(AttachRequest { container: "container".parse().unwrap(), wanted }).unwrap()
    }

    pub(crate) fn ports(&self, ports: &[u16]) -> String {
        let request = PortForwardRequest { pod: "pod".parse().unwrap(), ports: ports.to_vec() };
        self.urls.port_forward(request).unwrap()
    }

    /// Ends it; every session has to end with it.
    pub(crate) async fn stop(mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.served.await.unwrap();
        assert_eq!(self.bench.running.load(Ordering::SeqCst), 0);
    }
}

pub(crate) const ALL: Wanted = Wanted { tty: false, stdin: true, stdout: true, stderr: true };
pub(crate) const TERMINAL: Wanted = Wanted { tty: true, stdin: true, stdout: true, stderr: false };
pub(crate) const IN_OUT: Wanted = Wanted { tty: false, stdin: true, stdout: true, stderr: false };
pub(crate) const OUT: Wanted = Wanted { tty: false, stdin: false, stdout: true, stderr: false };

/// Waits for what another task brings about, letting it run meanwhile.
pub(crate) async fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(testkit::wait::SOON, async {
        while !holds() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited for {what}");
}
