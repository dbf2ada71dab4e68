//! The streaming server of Kubernetes' runtime interface: exec, attach and port-forward.
//!
//! A kubelet asks the CRI for a URL, and hands it, or what it connects there, to `kubectl`. Whoever comes with the
//! URL gets the streams of a process, or connections to the ports of a pod, over one TCP connection:
//!
//! ```text
//!   kubectl ── apiserver ── kubelet ──TCP── Server: POST /exec/TOKEN, Upgrade: SPDY/3.1 or websocket
//!                                             │ 101, and from then on
//!                                           Driver ⇄ Mux (frames ⇄ lanes)
//!                                             ├── stdin  ──►┐
//!                                             ├── resize ──►│ Sessions::exec, attach
//!                                             ◄── stdout ───┤   (whoever implements it: the CRI's face)
//!                                             ◄── stderr ───┤
//!                                             ◄── error  ───┘ exit code, as a Status
//!                                             ├── data  ◄──►┐ Sessions::port_forward, once for
//!                                             ◄── error ────┘ each connection to a port
//! ```
//! | protocol | streams | end of stdin | exit code |
//! |---|---|---|---|
//! | SPDY/3.1, `channel.k8s.io`, `v2` | one each, by `streamType` | FIN | text |
//! | SPDY/3.1, `v3`, `v4` | and `resize` | FIN | text, Status since v4 |
//! | WebSocket, `channel.k8s.io`, `v4`, `base64.…` | channels 0–4 | none | text, Status since v4 |
//! | WebSocket, `v5` | channels 0–4 | 255 and the channel | Status |
//! | SPDY/3.1 or within a WebSocket, `portforward.k8s.io` | pairs `data`, `error` | FIN | |
//! | WebSocket, `v4.channel.k8s.io` | channels 2 n, 2 n + 1 | none | |
//!
//! A connection is one task: its driver and its session are polled together, so a session that is polled is not
//! to block. What it holds is bounded (see `mux`): a slow peer makes the process wait, a slow process makes the
//! peer wait, and other connections notice neither. Frames that are too long, that make no sense, or that carry
//! nothing without end, are the end of their connection.
//!
//! Nothing in here knows containers or pods; it never starts a process and never opens a port.

mod config;
mod http;
mod mux;
mod negotiate;
mod ports;
mod process;
mod request;
mod serve;
mod server;
mod session;
mod sizes;
mod socket;
pub mod spdy;
mod status;
mod tls;
mod tokens;
pub mod websocket;

pub use config::{Config, Tls, TlsKeys};
pub use request::{AttachRequest, ExecRequest, PortForwardRequest, Wanted};
pub use server::{Server, Urls};
pub use session::{Gone, Input, Output, PortStream, ProcessStreams, Sessions, Sizes, TerminalSize};
