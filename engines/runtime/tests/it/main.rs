//! The engine with shims that behave, and shims that do not.

#![expect(clippy::unwrap_used, reason = "a test fails where it fails")]

mod foreign;
mod lifecycle;
mod misbehaviour;
mod recovery;
mod restarts;
mod world;
