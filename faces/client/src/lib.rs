//! A daemon of containerd's API from the outside: [`Client`] implements the traits of berth-core over one gRPC
//! channel on a unix socket.
//!
//! It speaks to berthd and to containerd 1.6 and later, and code above cannot tell which; where an older daemon
//! lacks a call, the client takes the way that it has. Nothing happens before the first request: making a client
//! or a handle costs no system call. Requests have deadlines, except those that wait for something to happen.
//!
//! Users: the command line, proxy plugins of the daemon, tests, and other people's programs.

mod bound;
mod channel;
mod client;
mod containers;
mod content;
mod controllers;
mod diff;
mod events;
mod images;
mod introspection;
mod leases;
mod mounts;
mod namespaces;
mod pods;
mod snapshots;
mod tasks;

pub use client::Client;
pub use pods::Pods;
