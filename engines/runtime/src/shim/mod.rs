//! Shims: programs that other people write, found by a runtime's name, started in a bundle, and spoken to
//! over ttrpc or gRPC. Whatever they answer is input, and every call has a deadline.

mod answer;
mod command;
mod connection;
mod dialect;
mod direct;
mod grpc;
mod launch;
mod log;
mod program;
pub(crate) mod stray;

pub(crate) use answer::{Answer, Socket};
pub(crate) use connection::{CallError, ConnectError, Connections, Shim};
pub(crate) use launch::{Launcher, StartError};
pub(crate) use log::follow;
pub(crate) use program::Programs;
