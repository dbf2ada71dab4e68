//! The requests of the plugin service: for each its method, its answer and the event that asks for it.

use prost::Message;

use crate::proto::{self, Event};

/// The service that plugins serve.
pub(crate) const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";

/// A request that plugins get when they subscribed to its event.
pub(crate) trait Request: Message {
    /// What a plugin answers.
    type Answer: Message + Default;
    /// The method of the service.
    const METHOD: &'static str;
    /// The event that plugins subscribe to.
    const EVENT: Event;

    /// The same as an event of `StateChange`, which is all that plugins older than NRI 0.10 have for it.
    fn as_state_change(&self) -> Option<proto::StateChangeEvent> {
        None
    }
}

macro_rules! request {
    ($($method:ident => $request:ident, $answer:ident, $($state:ident)?;)*) => {$(
        impl Request for proto::$request {
            type Answer = proto::$answer;
            const METHOD: &'static str = stringify!($method);
            const EVENT: Event = Event::$method;
            $(request!(@$state);)?
        }
    )*};
    (@pod) => {
        fn as_state_change(&self) -> Option<proto::StateChangeEvent> {
            let pod = self.pod.clone();
            Some(proto::StateChangeEvent { event: Self::EVENT.into(), pod, container: None })
        }
    };
    (@container) => {
        fn as_state_change(&self) -> Option<proto::StateChangeEvent> {
            let (pod, container) = (self.pod.clone(), self.container.clone());
            Some(proto::StateChangeEvent { event: Self::EVENT.into(), pod, container })
        }
    };
}

request! {
    RunPodSandbox => RunPodSandboxRequest, RunPodSandboxResponse, pod;
    UpdatePodSandbox => UpdatePodSandboxRequest, UpdatePodSandboxResponse, ;
    PostUpdatePodSandbox => PostUpdatePodSandboxRequest, PostUpdatePodSandboxResponse, pod;
    StopPodSandbox => StopPodSandboxRequest, StopPodSandboxResponse, pod;
    RemovePodSandbox => RemovePodSandboxRequest, RemovePodSandboxResponse, pod;
    CreateContainer => CreateContainerRequest, CreateContainerResponse, ;
    PostCreateContainer => PostCreateContainerRequest, PostCreateContainerResponse, container;
    StartContainer => StartContainerRequest, StartContainerResponse, container;
    PostStartContainer => PostStartContainerRequest, PostStartContainerResponse, container;
    UpdateContainer => UpdateContainerRequest, UpdateContainerResponse, ;
    PostUpdateContainer => PostUpdateContainerRequest, PostUpdateContainerResponse, container;
    StopContainer => StopContainerRequest, StopContainerResponse, ;
    RemoveContainer => RemoveContainerRequest, RemoveContainerResponse, container;
    ValidateContainerAdjustment => ValidateContainerAdjustmentRequest, ValidateContainerAdjustmentResponse, ;
}
