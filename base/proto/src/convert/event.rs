//! Events to and from their topic and typed message.
//!
//! What is told under a topic of ours but does not read as its message stays a foreign event: it is passed on
//! as it came and never lost. Each type has its one topic, so a known message under another topic is foreign too.

use berth_types::{Any, Envelope, Error, Event, Exit, Result, RuntimeInfo, Stdio, Topic};
use prost::Name;

use super::{
    any, from_any, from_labels, labels, mounts, mounts_from, pack, signed, time, timestamp, unpack, unsigned,
};
use crate::containerd::{events as wire, services::images::v1 as images, types};

/// An event as its topic and its message.
pub fn event(event: Event) -> (Topic, Any) {
    let topic = event.topic().to_owned();
    let message = match event {
        Event::Foreign { event, .. } => event,
        Event::ContainerCreate { id, image, runtime } => {
            let RuntimeInfo { name, options } = runtime;
            let runtime = wire::container_create::Runtime { name, options: options.map(any) };
            pack(&wire::ContainerCreate { id, image, runtime: Some(runtime) })
        }
        Event::ContainerUpdate { id, image, labels: marks, snapshot_key } => {
            pack(&wire::ContainerUpdate { id, image, labels: labels(marks), snapshot_key })
        }
        Event::ContainerDelete { id } => pack(&wire::ContainerDelete { id }),
        Event::ContentCreate { digest, size } => {
            pack(&wire::ContentCreate { digest: digest.into(), size: signed(size) })
        }
        Event::ContentDelete { digest } => pack(&wire::ContentDelete { digest: digest.into() }),
        Event::ImageCreate { name, labels: marks } => {
            pack(&images::ImageCreate { name, labels: labels(marks) })
        }
        Event::ImageUpdate { name, labels: marks } => {
            pack(&images::ImageUpdate { name, labels: labels(marks) })
        }
        Event::ImageDelete { name } => pack(&images::ImageDelete { name }),
        Event::NamespaceCreate { name, labels: marks } => {
            pack(&wire::NamespaceCreate { name, labels: labels(marks) })
        }
        Event::NamespaceUpdate { name, labels: marks } => {
            pack(&wire::NamespaceUpdate { name, labels: labels(marks) })
        }
        Event::NamespaceDelete { name } => pack(&wire::NamespaceDelete { name }),
        Event::SnapshotPrepare { key, parent, snapshotter } => {
            pack(&wire::SnapshotPrepare { key, parent, snapshotter })
        }
        Event::SnapshotCommit { key, name, snapshotter } => {
            pack(&wire::SnapshotCommit { key, name, snapshotter })
        }
        Event::SnapshotRemove { key, snapshotter } => pack(&wire::SnapshotRemove { key, snapshotter }),
        Event::TaskCreate { container_id, bundle, rootfs, io, checkpoint, pid } => {
            let Stdio { stdin, stdout, stderr, terminal } = io;
            let io = Some(wire::TaskIo { stdin, stdout, stderr, terminal });
            pack(&wire::TaskCreate { container_id, bundle, rootfs: mounts(rootfs), io, checkpoint, pid })
        }
        Event::TaskStart { container_id, pid } => pack(&wire::TaskStart { container_id, pid }),
        Event::TaskDelete { container_id, exec_id, exit } => pack(&task_delete(container_id, exec_id, exit)),
        Event::TaskExit { container_id, exec_id, exit } => pack(&task_exit(container_id, exec_id, exit)),
        Event::TaskOom { container_id } => pack(&wire::TaskOom { container_id }),
        Event::TaskExecAdded { container_id, exec_id } => {
            pack(&wire::TaskExecAdded { container_id, exec_id })
        }
        Event::TaskExecStarted { container_id, exec_id, pid } => {
            pack(&wire::TaskExecStarted { container_id, exec_id, pid })
        }
        Event::TaskPaused { container_id } => pack(&wire::TaskPaused { container_id }),
        Event::TaskResumed { container_id } => pack(&wire::TaskResumed { container_id }),
        Event::TaskCheckpointed { container_id, checkpoint } => {
            pack(&wire::TaskCheckpointed { container_id, checkpoint })
        }
    };
    (topic, message)
}

fn task_delete(container_id: String, exec_id: String, exit: Exit) -> wire::TaskDelete {
    let Exit { pid, status, at } = exit;
    wire::TaskDelete { container_id, pid, exit_status: status, exited_at: timestamp(at), id: exec_id }
}

/// On the wire a task's first process is called like its container.
fn task_exit(container_id: String, exec_id: String, exit: Exit) -> wire::TaskExit {
    let Exit { pid, status, at } = exit;
    let id = if exec_id.is_empty() { container_id.clone() } else { exec_id };
    wire::TaskExit { container_id, id, pid, exit_status: status, exited_at: timestamp(at) }
}

/// The event behind a topic and a message.
pub fn from_event(topic: Topic, event: Any) -> Event {
    match known(&event) {
        Ok(Some(known)) if known.topic() == topic => known,
        _ => Event::Foreign { topic, event },
    }
}

/// An envelope for the wire.
pub fn envelope(envelope: Envelope) -> types::Envelope {
    let Envelope { timestamp: at, namespace, event: inner } = envelope;
    let (topic, message) = event(inner);
    types::Envelope {
        timestamp: timestamp(at),
        namespace: namespace.into(),
        topic,
        event: Some(any(message)),
    }
}

/// An envelope from the wire. A missing namespace, topic or message is an error, as in containerd.
pub fn from_envelope(envelope: types::Envelope) -> Result<Envelope> {
    let types::Envelope { timestamp: at, namespace, topic, event } = envelope;
    check_topic(&topic)?;
    let event = super::required("the event of the envelope", event)?;
    Ok(Envelope {
        timestamp: time(at),
        namespace: namespace.parse()?,
        event: from_event(topic, from_any(event)),
    })
}

/// Checks a topic: a path of identifiers such as `/tasks/exit`.
pub fn check_topic(topic: &str) -> Result<()> {
    let wrong = |why: &str| Err(Error::invalid_argument(format!("topic {topic:?} {why}")));
    let Some(path) = topic.strip_prefix('/') else { return wrong("must start with '/'") };
    if path.is_empty() {
        return wrong("must have at least one component");
    }
    if path.split('/').any(|part| part.parse::<berth_types::Namespace>().is_err()) {
        return wrong("has a component that is no identifier");
    }
    Ok(())
}

/// The event of a message whose type is known. A field that a record cannot hold is an error.
fn known(any: &Any) -> Result<Option<Event>> {
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    if let Some(kind) = name.strip_prefix("containerd.events.") {
        return if kind.starts_with("Task") { task(kind, any) } else { record(kind, any) };
    }
    if name == images::ImageCreate::full_name() {
        let images::ImageCreate { name, labels } = unpack(any)?;
        return Ok(Some(Event::ImageCreate { name, labels: from_labels(labels) }));
    }
    if name == images::ImageUpdate::full_name() {
        let images::ImageUpdate { name, labels } = unpack(any)?;
        return Ok(Some(Event::ImageUpdate { name, labels: from_labels(labels) }));
    }
    if name == images::ImageDelete::full_name() {
        return Ok(Some(Event::ImageDelete { name: unpack::<images::ImageDelete>(any)?.name }));
    }
    Ok(None)
}

fn record(kind: &str, any: &Any) -> Result<Option<Event>> {
    Ok(Some(match kind {
        "ContainerCreate" => {
            let wire::ContainerCreate { id, image, runtime } = unpack(any)?;
            let runtime = runtime.unwrap_or_default();
            let runtime = RuntimeInfo { name: runtime.name, options: runtime.options.map(from_any) };
            Event::ContainerCreate { id, image, runtime }
        }
        "ContainerUpdate" => {
            let wire::ContainerUpdate { id, image, labels, snapshot_key } = unpack(any)?;
            Event::ContainerUpdate { id, image, labels: from_labels(labels), snapshot_key }
        }
        "ContainerDelete" => Event::ContainerDelete { id: unpack::<wire::ContainerDelete>(any)?.id },
        "ContentCreate" => {
            let wire::ContentCreate { digest, size } = unpack(any)?;
            Event::ContentCreate { digest: digest.parse()?, size: unsigned("size of a blob", size)? }
        }
        "ContentDelete" => {
            Event::ContentDelete { digest: unpack::<wire::ContentDelete>(any)?.digest.parse()? }
        }
        "NamespaceCreate" => {
            let wire::NamespaceCreate { name, labels } = unpack(any)?;
            Event::NamespaceCreate { name, labels: from_labels(labels) }
        }
        "NamespaceUpdate" => {
            let wire::NamespaceUpdate { name, labels } = unpack(any)?;
            Event::NamespaceUpdate { name, labels: from_labels(labels) }
        }
        "NamespaceDelete" => Event::NamespaceDelete { name: unpack::<wire::NamespaceDelete>(any)?.name },
        "SnapshotPrepare" => {
            let wire::SnapshotPrepare { key, parent, snapshotter } = unpack(any)?;
            Event::SnapshotPrepare { key, parent, snapshotter }
        }
        "SnapshotCommit" => {
            let wire::SnapshotCommit { key, name, snapshotter } = unpack(any)?;
            Event::SnapshotCommit { key, name, snapshotter }
        }
        "SnapshotRemove" => {
            let wire::SnapshotRemove { key, snapshotter } = unpack(any)?;
            Event::SnapshotRemove { key, snapshotter }
        }
        _ => return Ok(None),
    }))
}

fn task(kind: &str, any: &Any) -> Result<Option<Event>> {
    Ok(Some(match kind {
        "TaskCreate" => {
            let wire::TaskCreate { container_id, bundle, rootfs, io, checkpoint, pid } = unpack(any)?;
            let wire::TaskIo { stdin, stdout, stderr, terminal } = io.unwrap_or_default();
            let io = Stdio { stdin, stdout, stderr, terminal };
            Event::TaskCreate { container_id, bundle, rootfs: mounts_from(rootfs), io, checkpoint, pid }
        }
        "TaskStart" => {
            let wire::TaskStart { container_id, pid } = unpack(any)?;
            Event::TaskStart { container_id, pid }
        }
        "TaskDelete" => {
            let wire::TaskDelete { container_id, pid, exit_status, exited_at, id } = unpack(any)?;
            let exit = Exit { pid, status: exit_status, at: time(exited_at) };
            Event::TaskDelete { container_id, exec_id: id, exit }
        }
        "TaskExit" => {
            let wire::TaskExit { container_id, id, pid, exit_status, exited_at } = unpack(any)?;
            let exec_id = if id == container_id { String::new() } else { id };
            Event::TaskExit {
                container_id,
                exec_id,
                exit: Exit { pid, status: exit_status, at: time(exited_at) },
            }
        }
        "TaskOOM" => Event::TaskOom { container_id: unpack::<wire::TaskOom>(any)?.container_id },
        "TaskExecAdded" => {
            let wire::TaskExecAdded { container_id, exec_id } = unpack(any)?;
            Event::TaskExecAdded { container_id, exec_id }
        }
        "TaskExecStarted" => {
            let wire::TaskExecStarted { container_id, exec_id, pid } = unpack(any)?;
            Event::TaskExecStarted { container_id, exec_id, pid }
        }
        "TaskPaused" => Event::TaskPaused { container_id: unpack::<wire::TaskPaused>(any)?.container_id },
        "TaskResumed" => Event::TaskResumed { container_id: unpack::<wire::TaskResumed>(any)?.container_id },
        "TaskCheckpointed" => {
            let wire::TaskCheckpointed { container_id, checkpoint } = unpack(any)?;
            Event::TaskCheckpointed { container_id, checkpoint }
        }
        _ => return Ok(None),
    }))
}
