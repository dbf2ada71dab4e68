//! Image records: a name for a descriptor.

use std::time::SystemTime;

use crate::{Descriptor, ImageName, Labels};

/// A named image. Its content may be complete or not; the record does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The name, unique in a namespace.
    pub name: ImageName,
    /// Labels; the garbage collector reads some.
    pub labels: Labels,
    /// Index or manifest.
    pub target: Descriptor,
    /// When the record was made.
    pub created_at: SystemTime,
    /// When it last changed.
    pub updated_at: SystemTime,
}

impl Image {
    /// A record that is yet to be stored; the store sets its times.
    pub fn new(name: ImageName, target: Descriptor) -> Self {
        let epoch = SystemTime::UNIX_EPOCH;
        Self { name, labels: Labels::new(), target, created_at: epoch, updated_at: epoch }
    }
}
