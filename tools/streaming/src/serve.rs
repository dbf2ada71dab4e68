//! From an agreed protocol to a session.

use std::time::Duration;

use crate::http::Plan;
use crate::mux::{Driver, Mux, Protocol, Transport};
use crate::negotiate::{Agreed, Carrier};
use crate::ports;
use crate::process::{self, Streams};
use crate::request::Request;
use crate::session::Shared;
use crate::socket::Socket;
use crate::spdy::Peer;
use crate::websocket::{Channels, Tunnel};

/// Serves a connection to its end. `first` came together with the request.
pub(crate) async fn serve(socket: Socket, first: &[u8], plan: Plan, sessions: &Shared, idle: Duration) {
    let Plan { request, agreed } = plan;
    match agreed.carrier {
        Carrier::Spdy => spdy(socket, first, request, &agreed, sessions, idle).await,
        Carrier::Tunnel => spdy(Tunnel::new(socket, first), &[], request, &agreed, sessions, idle).await,
        Carrier::Channels(codec) => {
            let protocol = Box::new(Channels::new(codec));
            channels(socket, first, protocol, request, &agreed, sessions, idle).await;
        }
    }
}

async fn spdy(
    transport: impl Transport,
    first: &[u8],
    request: Request,
    agreed: &Agreed,
    sessions: &Shared,
    idle: Duration,
) {
    let most = match &request {
        Request::Process(_) => process::MOST,
        Request::PortForward(_) => ports::MOST,
    };
    let mux = Mux::new(Box::new(Peer::new()), most);
    let driver = Driver::new(transport, mux.clone(), idle).run(first);
    let work = async {
        match request {
            Request::Process(process) => {
                match Streams::opened(&mux, process.wanted(), agreed.version).await {
                    Some(streams) => process::run(sessions, process, streams, agreed.version, &mux).await,
                    None => mux.finish(),
                }
            }
            Request::PortForward(forward) => ports::pairs(sessions, &forward.pod, &mux).await,
        }
    };
    tokio::join!(driver, Box::pin(work));
}

async fn channels(
    transport: impl Transport,
    first: &[u8],
    protocol: Box<dyn Protocol>,
    request: Request,
    agreed: &Agreed,
    sessions: &Shared,
    idle: Duration,
) {
    let mux = Mux::new(protocol, 0);
    let driver = Driver::new(transport, mux.clone(), idle).run(first);
    // The channels are there before the first byte is looked at.
    match request {
        Request::Process(process) => {
            let streams = Streams::channels(&mux, process.wanted());
            let work = process::run(sessions, process, streams, agreed.version, &mux);
            tokio::join!(driver, Box::pin(work));
        }
        Request::PortForward(forward) => {
            let connections = ports::Channels::new(&mux, &forward.ports);
            tokio::join!(driver, Box::pin(connections.run(sessions, &forward.pod, &mux)));
        }
    }
}
