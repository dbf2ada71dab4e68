//! The asynchronous client and server, for a process that runs tokio anyway.

mod client;
mod link;
mod server;

pub use client::Client;
pub use link::{Sink, Source};
pub use server::{Handler, Server};
