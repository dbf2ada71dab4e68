//! What `build.rs` generated, as it is.

#![expect(
    missing_docs,
    clippy::pedantic,
    reason = "generated; the definitions below proto/ are what a reader should open"
)]

include!(concat!(env!("OUT_DIR"), "/wire.rs"));
