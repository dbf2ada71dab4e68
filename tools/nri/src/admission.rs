//! From a connected socket to a plugin that is configured: multiplexed, registered, subscribed.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_ttrpc::tokio::{Client, Handler, Server};
use berth_ttrpc::{Code, Metadata, Status};
use berth_types::Error;
use prost::Message;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{Notify, oneshot};

use crate::config::Config;
use crate::events::{Events, UnknownEvents};
use crate::host::Host;
use crate::mux::Mux;
use crate::name::{NameError, PluginName};
use crate::plugin::{CallError, Plugin, Wire, call};
use crate::proto;

/// The service that the runtime serves.
const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";
/// The version that plugins are told.
const NRI_VERSION: &str = "v0.12.0";
/// Calls that a plugin may have under way.
const IN_FLIGHT: usize = 8;

/// A plugin that the daemon started.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) name: PluginName,
    pub(crate) process: Child,
    /// What its configuration file says.
    pub(crate) config: String,
}

/// What an admission needs.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) config: Arc<Config>,
    pub(crate) host: Arc<dyn Host>,
    /// Told when a plugin's connection has ended.
    pub(crate) departures: Arc<Notify>,
}

/// Why a plugin was not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdmissionError {
    #[error("it did not register within {0:?}")]
    Late(Duration),
    #[error("it closed its connection before it registered")]
    Gone,
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Configure(#[from] CallError),
    #[error(transparent)]
    Events(#[from] UnknownEvents),
}

impl AdmissionError {
    /// The text with its causes, for the log.
    pub(crate) fn reason(self) -> String {
        match self {
            Self::Configure(error) => Error::from(error).chain(),
            other => other.to_string(),
        }
    }
}

impl Gate {
    /// Lets a plugin in. One that was started has its name already; another says it.
    pub(crate) async fn admit(
        &self,
        socket: UnixStream,
        launched: Option<Launched>,
    ) -> Result<Plugin, AdmissionError> {
        let (mux, (read, write), runtime) = Mux::open(socket);
        let client = Client::from_link(read, write);
        let (registration, registered) = oneshot::channel();
        let (given, process, config) = match launched {
            None => (None, None, String::new()),
            Some(Launched { name, process, config }) => (Some(name), Some(process), config),
        };
        let registration = Mutex::new(Some(registration));
        let desk = RuntimeDesk { registration, given, host: self.host.clone() };
        let departures = self.departures.clone();
        let server = tokio::spawn(async move {
            Server::new(desk).with_in_flight(IN_FLIGHT).serve_link(runtime.0, runtime.1).await;
            departures.notify_one();
        });
        let wire = Wire { client, server: server.abort_handle(), _mux: mux, _process: process };

        let limit = self.config.plugin_registration_timeout;
        let said = tokio::select! {
            said = tokio::time::timeout(limit, registered) => said.map_err(|_| AdmissionError::Late(limit))?,
            () = wire.client.closed() => return Err(AdmissionError::Gone),
        };
        let name = said.map_err(|_| AdmissionError::Gone)??;
        let events = self.configure(&wire.client, &name, config).await?;
        let limit = self.config.plugin_request_timeout;
        Ok(Plugin { name, events, wire, limit, is_old: AtomicBool::new(false) })
    }

    async fn configure(
        &self,
        client: &Client,
        name: &PluginName,
        config: String,
    ) -> Result<Events, AdmissionError> {
        let milliseconds = |limit: Duration| i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        let request = proto::ConfigureRequest {
            config,
            runtime_name: self.config.runtime_name.clone(),
            runtime_version: self.config.runtime_version.clone(),
            registration_timeout: milliseconds(self.config.plugin_registration_timeout),
            request_timeout: milliseconds(self.config.plugin_request_timeout),
            nri_version: NRI_VERSION.to_owned(),
        };
        let limit = self.config.plugin_request_timeout;
        let proto::ConfigureResponse { events } = call(client, name, "Configure", &request, limit).await?;
        Ok(Events::subscribed(events)?)
    }
}

/// The runtime's side of one plugin's connection.
struct RuntimeDesk {
    /// Taken by the first registration.
    registration: Mutex<Option<oneshot::Sender<Result<PluginName, NameError>>>>,
    given: Option<PluginName>,
    host: Arc<dyn Host>,
}

impl Handler for RuntimeDesk {
    async fn call(
        &self,
        service: &str,
        method: &str,
        _: Metadata,
        payload: Vec<u8>,
    ) -> Result<Vec<u8>, Status> {
        match (service, method) {
            (RUNTIME_SERVICE, "RegisterPlugin") => self.register(&read(&payload)?),
            (RUNTIME_SERVICE, "UpdateContainers") if self.is_registered() => {
                self.update(read(&payload)?).await
            }
            (RUNTIME_SERVICE, "UpdateContainers") => {
                Err(Status::new(Code::FailedPrecondition, "the plugin has not registered"))
            }
            _ => Err(Status::new(
                Code::Unimplemented,
                format!("{service}/{method} is not a method of NRI's runtime"),
            )),
        }
    }
}

impl RuntimeDesk {
    fn register(&self, request: &proto::RegisterPluginRequest) -> Result<Vec<u8>, Status> {
        let name = match &self.given {
            Some(name) => Ok(name.clone()),
            None => PluginName::new(&request.plugin_idx, &request.plugin_name),
        };
        let answer = match &name {
            Ok(_) => Ok(proto::Empty {}.encode_to_vec()),
            Err(error) => Err(Status::new(Code::InvalidArgument, error.to_string())),
        };
        let first = self.registration.lock().unwrap_or_else(PoisonError::into_inner).take();
        let again = || Status::new(Code::FailedPrecondition, "the plugin has registered already");
        // Nobody waits for the name of a plugin that was given up meanwhile.
        let _ = first.ok_or_else(again)?.send(name);
        answer
    }

    fn is_registered(&self) -> bool {
        self.registration.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    async fn update(&self, request: proto::UpdateContainersRequest) -> Result<Vec<u8>, Status> {
        let proto::UpdateContainersRequest { update, evict } = request;
        if !evict.is_empty() {
            self.host.evict(evict).await;
        }
        let failed = if update.is_empty() { update } else { self.host.update(update).await };
        Ok(proto::UpdateContainersResponse { failed }.encode_to_vec())
    }
}

fn read<M: Message + Default>(payload: &[u8]) -> Result<M, Status> {
    M::decode(payload)
        .map_err(|error| Status::new(Code::InvalidArgument, format!("cannot read the request: {error}")))
}
