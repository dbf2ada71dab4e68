//! The services of containerd 2.3's API that berth does not serve yet. Their definitions are in berth-proto; each
//! gets a file beside the others and a line in `serve`. Until then the router answers them with Unimplemented,
//! which clients take as "this daemon is older".

/// Their full names.
pub const SERVICES: [&str; 1] = ["containerd.services.mounts.v1.Mounts"];
