//! The asynchronous client and server, for a process that runs tokio anyway.

mod client;
mod server;

pub use client::Client;
pub use server::{Handler, Server};
