//! A typed message that the daemon stores or passes on without reading it.

use serde::{Deserialize, Serialize};

/// `google.protobuf.Any` as containerd uses it: the type URL is compared exactly and has no
/// `type.googleapis.com/` in front.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Any {
    /// The registered name of the type of `value`.
    pub type_url: String,
    /// Protobuf or JSON, as the type says.
    pub value: Vec<u8>,
}

impl Any {
    /// Puts a name on bytes.
    pub fn new(type_url: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self { type_url: type_url.into(), value: value.into() }
    }
}
