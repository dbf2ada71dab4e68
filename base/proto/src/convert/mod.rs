//! Wire messages to and from the records of `berth_types`.
//!
//! Records to messages never fail; messages to records check what a record promises (a digest is well-formed, a
//! size is not negative) and answer `InvalidArgument`. Types that belong to neither side (`Any`, `Timestamp`,
//! `FieldMask`) have functions here, the others `From` and `TryFrom`.

mod activation;
mod any;
mod container;
mod content;
mod event;
mod image;
mod introspection;
mod layer;
mod lease;
mod parts;
mod sandbox;
mod snapshot;
mod task;
mod time;

pub use any::{any, from_any, pack, unpack};
pub use event::{check_topic, envelope, event, from_envelope, from_event};
pub use layer::{ARRIVING, arriving, from_arriving};
pub use parts::{field_mask, from_field_mask, from_labels, labels, mounts, mounts_from};
pub use snapshot::{snapshot_kind, snapshot_kind_from};
pub use time::{time, timestamp};

use berth_types::{Error, Result};

/// A size or an offset of the wire, which is signed and must not be negative.
pub fn unsigned(what: &str, value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| Error::invalid_argument(format!("{what} is negative: {value}")))
}

/// A size or an offset for the wire; what does not fit is its largest number.
pub fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The part of a request that must be there.
pub fn required<T>(what: &str, part: Option<T>) -> Result<T> {
    part.ok_or_else(|| Error::invalid_argument(format!("{what} is missing")))
}
