//! Flatbuffers, without generated code: the few shapes that a zTOC has.
//!
//! ```text
//!   root ─▶ table ─ distance ─▶ vtable: length, length of the table, place of each field in it or 0
//!             ├ numbers, as they are
//!             ╰ u32 distances forward ─▶ string: length, bytes, 0 · vector: length, elements · table
//! ```
//! All is little endian. Source: flatbuffers.dev/internals.

mod read;
mod write;

pub(super) use self::read::{Buffer, Table};
pub(super) use self::write::{Field, Slot, Writer};

#[cfg(test)]
mod tests;
