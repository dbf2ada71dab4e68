//! Connections to ports of a pod.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as Blocking};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use berth_streaming::PortStream;
use berth_types::{Error, Result, SandboxId};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::Cri;
use crate::blocking::blocking;

/// How long a port may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cri {
    /// Connects to a port of a pod until both directions are over, or the peer leaves.
    pub(super) async fn forward_session(&self, pod: &SandboxId, port: u16, stream: PortStream) -> Result<()> {
        let namespace = self.pod(pod.as_str())?.facts().network;
        let failed = move |error| Error::io(format!("cannot connect to port {port} of the pod"), error);
        let socket = blocking(move || connect(namespace.as_deref(), port).map_err(failed)).await?;
        let (mut from, mut to) = TcpStream::from_std(socket).map_err(failed)?.into_split();
        let PortStream { mut reader, mut writer, mut gone } = stream;
        let sent = async {
            let copied = tokio::io::copy(&mut reader, &mut to).await;
            // Half closed: the pod may have more to say.
            let _ = to.shutdown().await;
            copied.map(drop)
        };
        let received = async {
            let copied = tokio::io::copy(&mut from, &mut writer).await;
            let _ = writer.shutdown().await;
            copied.map(drop)
        };
        tokio::select! {
            (sent, received) = async { tokio::join!(sent, received) } => sent.and(received).map_err(failed),
            () = gone.wait() => Ok(()),
        }
    }
}

/// Connects to the port on the loopback device of a network namespace, or of the host's.
fn connect(namespace: Option<&Path>, port: u16) -> io::Result<Blocking> {
    let work = || {
        let four = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let six = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        let socket = Blocking::connect_timeout(&four, PATIENCE)
            // The first error is the one to tell.
            .or_else(|error| Blocking::connect_timeout(&six, PATIENCE).map_err(|_| error))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    match namespace {
        None => work(),
        Some(path) => {
            let file = File::open(path)?;
            berth_sys::thread::in_network(file.as_fd(), work)
        }
    }
}
