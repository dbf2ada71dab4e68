//! The daemon's face: containerd's gRPC API on one unix socket, and on another the ttrpc endpoint to which shims
//! forward their events.
//!
//! One file a service, translation only: a message becomes the values of a core trait, the answer becomes a
//! message, an error its code. What a service does stands behind [`berth_core::Catalog`], so this crate serves a
//! daemon's own stores and a remote daemon's alike.
//!
//! - [`Socket`] takes an address: removes what a dead daemon left, refuses one that is alive, sets mode and owner.
//! - [`serve`] answers until it is told to stop, then lets the mutations under way come to their end.
//! - [`serve_snapshotter`] does so for one snapshotter alone, on a socket of its own.
//!
//! A mutation runs in a task of its own ([`mutations`]): a client that goes away cannot leave it half done. A
//! panic ends one request and never the daemon ([`guard`]).

mod bytes;
mod containers;
mod content;
mod controllers;
mod diff;
mod ends;
mod events;
mod guard;
mod headers;
mod health;
mod images;
mod introspection;
mod leases;
mod mounts;
mod mutations;
mod namespaces;
mod requester;
mod sandboxes;
mod serve;
mod shared;
mod snapshots;
mod socket;
mod streaming;
mod tasks;
mod transcript;
mod transfer;
mod ttrpc;
mod version;
mod write;

pub use serve::{Limits, Listeners, MoreServices, serve, serve_snapshotter};
pub use socket::{Owner, Socket, SocketError};
