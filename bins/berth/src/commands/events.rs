//! `events`: what happens in the daemon.

use std::time::SystemTime;

use berth_types::filter::Filters;
use berth_types::{Envelope, Event};
use berth_workload::{human, labels, parse};
use clap::Args;
use futures::StreamExt;
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{self, format::Format};

/// Flags of `events`.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Show only what passes: type=, event=, container=, image=, label=
    #[arg(short, long)]
    filter: Vec<String>,
    /// A Go template, `json`, or `containerd` for the daemon's own form
    #[arg(long)]
    format: Option<String>,
    /// End at a time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Show those of every namespace
    #[arg(long)]
    all_namespaces: bool,
}

/// An event in Docker's words.
struct Told {
    kind: &'static str,
    action: String,
    id: String,
    attributes: Map<String, Value>,
}

impl Events {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        for text in &self.filter {
            let known = ["type", "event", "container", "image", "label"];
            if !text.split_once('=').is_some_and(|(key, _)| known.contains(&key)) {
                return Err(Failure::new(format!("invalid filter '{text}'")));
            }
        }
        let until = self.until.as_deref().map(|text| parse::instant(text, SystemTime::now())).transpose()?;
        let raw = self.format.as_deref() == Some("containerd");
        let format = match self.format.as_deref() {
            Some(format) if !raw => Some(Format::parse(format)?),
            _ => None,
        };
        let mut events = context.client.events().subscribe(Filters::default()).await?;
        loop {
            let left = until.map(|until| until.duration_since(SystemTime::now()).unwrap_or_default());
            let next = match left {
                Some(left) => match tokio::time::timeout(left, events.next()).await {
                    Ok(next) => next,
                    Err(_) => return Ok(0),
                },
                None => events.next().await,
            };
            let Some(envelope) = next else { return Ok(0) };
            let envelope = envelope?;
            if !self.all_namespaces && envelope.namespace != context.place.namespace {
                continue;
            }
            if raw {
                output::line(&containerd_line(&envelope))?;
                continue;
            }
            let Some(mut told) = told(&envelope.event) else { continue };
            decorate(context, &mut told).await;
            if self.passes(&told) {
                output::line(&shown(&envelope, &told, format.as_ref())?)?;
            }
        }
    }

    fn passes(&self, told: &Told) -> bool {
        let attribute = |key: &str| told.attributes.get(key).and_then(Value::as_str).unwrap_or_default();
        self.filter.iter().filter_map(|text| text.split_once('=')).all(|(key, value)| match key {
            "type" => told.kind == value,
            "event" => told.action == value || told.action.split(':').next() == Some(value),
            "container" => {
                told.kind == "container" && (told.id.starts_with(value) || attribute("name") == value)
            }
            "image" => told.id == value || attribute("image") == value,
            _ => {
                let (key, wanted) = value.split_once('=').map_or((value, None), |(k, v)| (k, Some(v)));
                told.attributes.get(key).is_some_and(|own| wanted.is_none_or(|wanted| own == wanted))
            }
        })
    }
}

/// The daemon's own form, as `ctr events` has it.
fn containerd_line(envelope: &Envelope) -> String {
    let body = format!("{:?}", envelope.event);
    format!(
        "{} {} {} {}",
        human::timestamp(envelope.timestamp),
        envelope.namespace,
        envelope.event.topic(),
        body.split_once(' ').map_or("{}", |(_, fields)| fields)
    )
}

fn told(event: &Event) -> Option<Told> {
    let container = |action: &str, id: &str, attributes: Value| Told {
        kind: "container",
        action: action.to_owned(),
        id: id.to_owned(),
        attributes: attributes.as_object().cloned().unwrap_or_default(),
    };
    Some(match event {
        Event::ContainerCreate { id, image, .. } => container("create", id, json!({ "image": image })),
        Event::ContainerUpdate { id, .. } => container("update", id, json!({})),
        Event::ContainerDelete { id } => container("destroy", id, json!({})),
        Event::TaskStart { container_id, .. } => container("start", container_id, json!({})),
        Event::TaskExit { container_id, exec_id, exit } if exec_id.is_empty() || exec_id == container_id => {
            container("die", container_id, json!({ "exitCode": exit.status.to_string() }))
        }
        Event::TaskExit { container_id, exec_id, exit } => container(
            "exec_die",
            container_id,
            json!({ "execID": exec_id, "exitCode": exit.status.to_string() }),
        ),
        Event::TaskOom { container_id } => container("oom", container_id, json!({})),
        Event::TaskExecAdded { container_id, exec_id } => {
            container("exec_create", container_id, json!({ "execID": exec_id }))
        }
        Event::TaskExecStarted { container_id, exec_id, .. } => {
            container("exec_start", container_id, json!({ "execID": exec_id }))
        }
        Event::TaskPaused { container_id } => container("pause", container_id, json!({})),
        Event::TaskResumed { container_id } => container("unpause", container_id, json!({})),
        Event::TaskCheckpointed { container_id, .. } => container("checkpoint", container_id, json!({})),
        Event::ImageCreate { name, .. } => {
            Told { kind: "image", ..container("tag", name, json!({ "name": name })) }
        }
        Event::ImageUpdate { name, .. } => {
            Told { kind: "image", ..container("tag", name, json!({ "name": name })) }
        }
        Event::ImageDelete { name } => {
            Told { kind: "image", ..container("untag", name, json!({ "name": name })) }
        }
        _ => return None,
    })
}

/// What Docker tells along with a container's event: its name, image and labels.
async fn decorate(context: &Context, told: &mut Told) {
    if told.kind != "container" || told.action == "destroy" {
        return;
    }
    let Ok(id) = told.id.parse() else { return };
    // One that has gone meanwhile is told by its id alone.
    let Ok(container) = context.client.containers(context.scope()).container(&id).await else { return };
    for (key, value) in &container.labels {
        if !labels::is_reserved(key) {
            told.attributes.insert(key.clone(), value.clone().into());
        }
    }
    told.attributes.insert("image".to_owned(), container.image.clone().into());
    let found = berth_workload::Found { container };
    told.attributes.insert("name".to_owned(), found.name().into());
}

fn shown(envelope: &Envelope, told: &Told, format: Option<&Format>) -> Result<String, Failure> {
    let since = envelope.timestamp.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let Some(format) = format else {
        let attributes: Vec<String> = told
            .attributes
            .iter()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect();
        let attributes =
            if attributes.is_empty() { String::new() } else { format!(" ({})", attributes.join(", ")) };
        let time = human::timestamp(envelope.timestamp);
        return Ok(format!("{time} {} {} {}{attributes}", told.kind, told.action, told.id));
    };
    format.apply(&json!({
        "status": told.action,
        "id": told.id,
        "ID": told.id,
        "Status": told.action,
        "Type": told.kind,
        "Action": told.action,
        "Actor": { "ID": told.id, "Attributes": told.attributes },
        "scope": "local",
        "time": since.as_secs(),
        "timeNano": since.as_nanos() as u64,
    }))
}
