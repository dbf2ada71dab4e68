//! The real program, driven over ttrpc as a daemon drives it, with our runtime and with runc.

#![expect(clippy::unwrap_used, reason = "a test may")]

mod daemon;
mod daemons;
mod figures;
mod lifecycle;
mod pod;
mod stdio;
