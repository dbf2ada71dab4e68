//! Pods as a kubelet runs them, over the CRI with one client of ours on both: containerd with runc and the reference
//! CNI plugins, berth once with the same plugins' programs and once without.

mod fleet;
mod life;
mod memory;
mod node;
mod probes;
mod restart;

pub(super) use fleet::run as fleet;
pub(super) use life::run as life;
pub(super) use memory::run as memory;
pub(super) use probes::run as probes;
pub(super) use restart::run as restart;
