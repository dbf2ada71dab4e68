//! What a plugin says went wrong.

use std::fmt;

use berth_types::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

/// A plugin's own error (specification 1.1, section 5, "Error"): it reaches the caller as it was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PluginError {
    /// The number: below 100 of the specification, from there on the plugin's.
    pub code: u64,
    /// A short text.
    #[serde(rename = "msg")]
    pub message: String,
    /// A longer one.
    pub details: String,
}

/// The plugin cannot do ADD now (STATUS).
const NOT_AVAILABLE: u64 = 50;
/// The same, and containers that are there may have no network.
const LIMITED: u64 = 51;

impl PluginError {
    /// The kind that callers act on.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self.code {
            1 | 2 | 4 | 7 => ErrorKind::InvalidArgument,
            3 => ErrorKind::NotFound,
            11 | NOT_AVAILABLE | LIMITED => ErrorKind::Unavailable,
            _ => ErrorKind::Unknown,
        }
    }

    /// The same as an error of the plugin `kind` at `network`.
    pub(crate) fn of(self, plugin: &str, command: &str, network: &str) -> Error {
        let text = format!("CNI plugin {plugin} of network {network} failed ({command})");
        Error::new(self.kind(), text).caused_by(self)
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)?;
        if !self.details.is_empty() {
            write!(formatter, "; {}", self.details)?;
        }
        if self.code != 0 {
            write!(formatter, " (code {})", self.code)?;
        }
        Ok(())
    }
}

impl std::error::Error for PluginError {}
