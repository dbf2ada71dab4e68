//! The log of a container, in the form in which its maker reads it.

use berth_types::{Error, Result};

use super::cri_log::CriLog;
use super::json_log::JsonLog;
use super::pump::Channel;

/// A log that is being written. Writing never fails: what a full disk refuses is lost and counted.
#[derive(Debug)]
pub(crate) enum Record {
    /// Docker's.
    Json(JsonLog),
    /// A kubelet's.
    Cri(CriLog),
}

impl Record {
    /// Takes in output.
    pub(super) fn write(&mut self, channel: Channel, bytes: &[u8]) {
        match self {
            Self::Json(log) => log.write(channel, bytes),
            Self::Cri(log) => log.write(channel, bytes),
        }
    }

    /// Writes what a stream left without an end of line.
    pub(super) fn end(&mut self, channel: Channel) {
        match self {
            Self::Json(log) => log.end(channel),
            Self::Cri(log) => log.end(channel),
        }
    }

    /// Goes on in the file that has the log's name now.
    pub(super) fn reopen(&mut self) -> Result<()> {
        match self {
            Self::Json(_) => Err(Error::failed_precondition("this log rotates by itself")),
            Self::Cri(log) => log.reopen(),
        }
    }

    /// Bytes that could not be written.
    pub(super) fn lost(&self) -> u64 {
        match self {
            Self::Json(log) => log.lost(),
            Self::Cri(log) => log.lost(),
        }
    }
}
