//! What only the daemon knows: pods that are being made, and the last that failed.

use berth_client::Pods as Remote;
use serde::Deserialize;

use super::Found;
use crate::failure::Failure;

/// The document `pods` of the runtime's status. A containerd has none.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Underway {
    /// The oldest first.
    pub(super) making: Vec<Found>,
    /// The oldest first.
    pub(super) failures: Vec<Failed>,
}

/// A call that failed, and of which pod.
#[derive(Debug, Deserialize)]
pub(super) struct Failed {
    #[serde(flatten)]
    pub(super) pod: Found,
    pub(super) failed: Call,
}

/// A call of the kubelet's.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Call {
    pub(super) call: String,
    #[serde(flatten)]
    pub(super) span: Span,
    #[serde(default)]
    pub(super) steps: Vec<Step>,
}

/// A part of one.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Step {
    pub(super) step: String,
    #[serde(flatten)]
    pub(super) span: Span,
}

/// When, how long, and how it ended.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Span {
    /// Nanoseconds since 1970.
    pub(super) began: i64,
    pub(super) seconds: f64,
    pub(super) is_over: bool,
    #[serde(default)]
    pub(super) error: Option<String>,
}

impl Underway {
    pub(super) async fn of(pods: &Remote) -> Result<Self, Failure> {
        let info = pods.info().await?;
        let Some(text) = info.get("pods") else { return Ok(Self::default()) };
        serde_json::from_str(text).map_err(|error| {
            Failure::new(format!("the daemon's account of its pods cannot be read: {error}"))
        })
    }
}
