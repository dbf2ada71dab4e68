//! The protocols in which a kubelet's exec, attach and port-forward travel.
//!
//! Here are the frames of SPDY/3.1 as values: what comes from a peer is cut into them, and what goes is made of
//! them. Nothing here reads or writes a socket.

pub mod spdy;
