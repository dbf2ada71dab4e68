//! One plugin that has registered: its connection, and its process if it is ours.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use berth_proto::status;
use berth_ttrpc::tokio::Client;
use berth_ttrpc::{Code, Error as CallFailure};
use berth_types::{Error, ErrorKind};
use prost::Message;
use tokio::process::Child;
use tokio::task::AbortHandle;

use crate::events::Events;
use crate::mux::Mux;
use crate::name::PluginName;
use crate::proto;
use crate::requests::{PLUGIN_SERVICE, Request};

/// How long a plugin has to say goodbye.
const GOODBYE: Duration = Duration::from_millis(500);

/// A plugin. Dropping it closes its connection, and ends its process if the daemon started it.
#[derive(Debug)]
pub(crate) struct Plugin {
    pub(crate) name: PluginName,
    pub(crate) events: Events,
    pub(crate) wire: Wire,
    pub(crate) limit: Duration,
    /// Set when it turned out to know `StateChange` only.
    pub(crate) is_old: AtomicBool,
}

/// What holds a plugin's connection together.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) client: Client,
    pub(crate) server: AbortHandle,
    pub(crate) _mux: Mux,
    /// Killed when dropped.
    pub(crate) _process: Option<Child>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Why a plugin's answer is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// It answered that it will not. It stays.
    #[error("NRI plugin {plugin} failed {method}: {message}")]
    Refused { plugin: PluginName, method: &'static str, kind: ErrorKind, message: String },
    /// It is late, gone or talks nonsense, and is to be cut off.
    #[error("NRI plugin {plugin} is cut off in {method}")]
    Lost { plugin: PluginName, method: &'static str, source: CallFailure },
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        let kind = match &error {
            // The plugin's own kind says nothing about the request: its `NotFound` is no missing pod.
            CallError::Refused { .. } => ErrorKind::Unknown,
            CallError::Lost { source: CallFailure::Timeout, .. } => ErrorKind::DeadlineExceeded,
            CallError::Lost { .. } => ErrorKind::Unavailable,
        };
        let text = error.to_string();
        match error {
            CallError::Refused { .. } => Self::new(kind, text),
            CallError::Lost { source, .. } => Self::new(kind, text).caused_by(source),
        }
    }
}

impl Plugin {
    /// Asks the plugin, if it subscribed to the request's event.
    pub(crate) async fn ask<R: Request>(&self, request: &R) -> Result<Option<R::Answer>, CallError> {
        if !self.events.has(R::EVENT) {
            return Ok(None);
        }
        let event = request.as_state_change().filter(|_| self.is_old.load(Ordering::Relaxed));
        if let Some(event) = event {
            return self.change_state(&event).await.map(|()| Some(R::Answer::default()));
        }
        match (self.call(R::METHOD, request).await, request.as_state_change()) {
            (Err(CallError::Refused { kind: ErrorKind::NotImplemented, .. }), Some(event)) => {
                tracing::warn!(plugin = %self.name, "the NRI plugin has no {}; events reach it as StateChange", R::METHOD);
                self.is_old.store(true, Ordering::Relaxed);
                self.change_state(&event).await.map(|()| Some(R::Answer::default()))
            }
            (answer, _) => answer.map(Some),
        }
    }

    async fn change_state(&self, event: &proto::StateChangeEvent) -> Result<(), CallError> {
        let proto::Empty {} = self.call("StateChange", event).await?;
        Ok(())
    }

    /// Calls a method of the plugin, whatever it subscribed to.
    pub(crate) async fn call<A: Message + Default>(
        &self,
        method: &'static str,
        request: &impl Message,
    ) -> Result<A, CallError> {
        call(&self.wire.client, &self.name, method, request, self.limit).await
    }

    /// Says goodbye.
    pub(crate) async fn shut_down(self) {
        let Self { name, wire, .. } = self;
        let parted: Result<proto::Empty, _> =
            call(&wire.client, &name, "Shutdown", &proto::Empty {}, GOODBYE).await;
        if let Err(error) = parted {
            tracing::debug!(plugin = %name, "no goodbye: {error}");
        }
    }

    /// Whether its connection has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.wire.client.is_closed()
    }
}

/// Calls a method of the plugin's service.
pub(crate) async fn call<A: Message + Default>(
    client: &Client,
    plugin: &PluginName,
    method: &'static str,
    request: &impl Message,
    limit: Duration,
) -> Result<A, CallError> {
    let plugin = || plugin.clone();
    match client.call(PLUGIN_SERVICE, method, request, Some(limit)).await {
        Ok(answer) => Ok(answer),
        Err(CallFailure::Status(answer)) => {
            let kind = match answer.code {
                Code::Ok => ErrorKind::Unknown,
                code => status::kind(code.into()),
            };
            Err(CallError::Refused { plugin: plugin(), method, kind, message: answer.message })
        }
        Err(source) => Err(CallError::Lost { plugin: plugin(), method, source }),
    }
}
