//! What a runtime is told about a container, and what it says: the runtime specification 1.2 (and
//! the fields that 1.3 adds).
//!
//! Names follow the specification's documents, without the `Linux` that its Go types carry. Every
//! field may be absent or `null`; unknown ones are passed over; what is empty is not written, as
//! containerd and runc write it. [`default`] and [`seccomp_default`] are containerd's defaults.

pub mod default;
mod hooks;
mod linux;
mod process;
mod resources;
mod seccomp;
mod seccomp_default;
mod seccomp_names;
mod signal;
mod spec;
mod state;
mod sysctl;

pub use hooks::*;
pub use linux::*;
pub use process::*;
pub use resources::*;
pub use seccomp::*;
pub use seccomp_default::default_seccomp;
pub use signal::{signal, signal_name};
pub use spec::*;
pub use state::*;
pub use sysctl::sysctl_home;

use serde::{Deserialize, Deserializer};

/// The version of the specification that berth writes.
pub const OCI_VERSION: &str = "1.2.1";

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Go's decoder leaves a field alone that is `null`; so does this.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
