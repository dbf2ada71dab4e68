//! What people write on a command line, as values: sizes, durations, mounts, devices, limits.
//!
//! Pure functions over text in Docker's forms. Every error names the text and the form it should
//! have had.

mod block;
mod device;
mod environment;
mod keys;
mod mount;
mod number;
mod restart;
mod time;
mod ulimit;

pub use berth_oci::runtime::{signal, signal_name};
pub use block::{Throttle, Weight, throttle, weight};
pub use device::{CdiRequest, DeviceRequest, DeviceRule, device, device_rule, devices};
pub use environment::{env_file, label_file, with_inherited};
pub use keys::{DetachKeys, Typed, detach_keys};
pub use mount::{BindOptions, MountKind, MountRequest, mount, tmpfs, volume};
pub(crate) use mount::{check_volume_name, clean};
pub use number::{bytes, cpus, memory};
pub use restart::{RestartName, RestartPolicy, restart_policy};
pub use time::{duration, instant};
pub use ulimit::{Ulimit, ulimit};
