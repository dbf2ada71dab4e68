//! The Container Runtime Interface of Kubernetes, in namespace `k8s.io` of a daemon's catalog.
//!
//! | module | what |
//! |---|---|
//! | [`service`] | the two gRPC services: translation and dispatch |
//! | [`image`] | images as a kubelet knows them: by the digest of their configuration, with all their names |
//! | [`pod`] | what containers share: namespaces, files, addresses |
//! | [`container`] | containers of pods, and commands in them |
//! | [`spec`] | from what was asked for to what the low-level runtime does |
//! | [`session`] | commands, first processes and ports that are streamed to somebody |
//! | [`cdi`] | devices by their vendors' names |
//! | [`nri`] | plugins that see pods and containers come and go |
//! | [`diary`] | what is done for a pod, for people who ask where it hangs |
//! | [`stats`] | what containers and pods use |
//! | [`ability`] | what runtimes can do |
//! | [`config`] | what of containerd's CRI tables is heeded |
//!
//! Everything goes through the core traits: a pull is the pull of everybody else, a container is a record and a task
//! like any other, and what `ctr -n k8s.io` does is seen here at once. Whatever changes something runs to its end
//! whoever waits for it, and a request that comes again joins the first ([`nursery`]).

mod ability;
mod blocking;
mod cdi;
mod config;
mod container;
mod cri;
mod diary;
mod events;
mod image;
mod names;
mod nri;
mod nursery;
mod pod;
mod service;
mod session;
mod spec;
mod stats;
mod status;
mod table;
mod time;

pub use config::{AddressPreference, Config, Handler, Network, Pods};
pub use cri::Cri;
