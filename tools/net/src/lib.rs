//! Container networking in process: what the CNI plugins bridge, host-local, loopback, portmap and firewall do,
//! over netlink. No program is started and nothing else has to be installed.
//!
//! [`Networks`] holds the networks of a host and the [`Endpoint`]s on them, as small files. All functions block,
//! for a few milliseconds; they work in the network namespace of the calling thread. Interfaces, addresses and
//! rules of others are never changed; the packet filter's rules lie in one table, `inet berth`.
//!
//! Called by the command line's engine when it makes and removes containers, and by the restart monitor before
//! it starts one again.

pub mod conntrack;
pub mod lease;
pub mod link;
pub mod netlink;
pub mod nft;
pub mod route;

mod endpoint;
mod filter;
mod namespace;
mod network;
mod port;
mod removal;
mod subnet;

pub use berth_sys::held::is_held;
pub use endpoint::{Endpoint, INTERFACE};
pub use namespace::set_loopback_up;
pub use network::{DEFAULT, Network, Networks};
pub use port::{PortMapping, Protocol};
pub use removal::remove_link;
pub use subnet::Subnet;

/// Whether `text` is a hardware address that a device may have.
pub fn is_hardware_address(text: &str) -> bool {
    link::parse_mac(text).is_some()
}
