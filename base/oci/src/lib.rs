//! The documents of the Open Container Initiative as data: images, and what a runtime is told.
//!
//! Pure: no I/O and no clock. Reading one is tolerant where its specification asks for it (unknown
//! fields are passed over), writing one gives the form that containerd and Docker write.

pub mod image;
pub mod runtime;
