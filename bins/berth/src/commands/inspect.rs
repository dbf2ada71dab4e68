//! `inspect`: everything about containers, images and volumes.

use berth_types::ErrorKind;
use berth_workload::{Found, Status};
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::metrics;
use crate::output::{self, format::Format};

/// Flags of `inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A Go template, or `json`
    #[arg(short, long)]
    format: Option<String>,
    /// What it is: container, image or volume
    #[arg(long = "type", value_parser = ["container", "image", "volume"])]
    pub(crate) kind: Option<String>,
    /// Show sizes
    #[arg(short, long)]
    size: bool,
    /// Names or ids
    #[arg(required = true)]
    names: Vec<String>,
}

impl Inspect {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let mut documents = Vec::new();
        let mut code = 0;
        for name in &self.names {
            match self.find(context, name).await {
                Ok(document) => documents.push(document),
                Err(failure) => {
                    eprintln!("berth: {failure}");
                    code = 1;
                }
            }
        }
        print(&documents, self.format.as_deref())?;
        Ok(code)
    }

    async fn find(&self, context: &Context, name: &str) -> Result<Document, Failure> {
        let wanted = |kind: &str| self.kind.as_deref().is_none_or(|wanted| wanted == kind);
        if wanted("container") {
            match context.workload.find(name).await {
                Ok(found) => {
                    let mut document = context.workload.describe(&found, self.size).await?;
                    if document.state.status == Status::Exited.word() {
                        document.state.oom_killed = was_killed_for_memory(context, &found).await?;
                    }
                    return Document::new(&document);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        if wanted("image") {
            match context.image(name).await {
                Ok(image) => return Document::new(&describe_image(context, image).await?),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        if wanted("volume")
            && let Ok(volume) = context.workload.volume(name)
        {
            return Document::new(&volume);
        }
        let what = self.kind.as_deref().unwrap_or("object");
        Err(Failure::new(format!("No such {what}: {name}")))
    }
}

/// Whether a container ended because its memory had run out. Its cgroup tells as long as its task is there.
async fn was_killed_for_memory(context: &Context, found: &Found) -> Result<bool, Failure> {
    let samples = context.workload.samples(&[&found.container.id], &metrics::decode).await?;
    Ok(samples.values().any(|(_, sample)| sample.oom_kills > 0))
}

/// A document, and its text with the fields in their order.
pub(crate) struct Document {
    value: Value,
    text: String,
}

impl Document {
    pub(crate) fn new(document: &impl Serialize) -> Result<Self, Failure> {
        let failed = |error: serde_json::Error| Failure::new(error.to_string());
        let mut bytes = Vec::new();
        let form = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        document.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, form)).map_err(failed)?;
        let text = String::from_utf8_lossy(&bytes).replace('\n', "\n    ");
        Ok(Self { value: serde_json::to_value(document).map_err(failed)?, text })
    }
}

/// Prints documents as a JSON list, or by a template a line each.
pub(crate) fn print(documents: &[Document], format: Option<&str>) -> Result<(), Failure> {
    if let Some(format) = format {
        let format = Format::parse(format)?;
        for document in documents {
            output::line(&format.apply(&document.value)?)?;
        }
        return Ok(());
    }
    if documents.is_empty() {
        return output::line("[]");
    }
    let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
    output::line(&format!("[\n    {}\n]", texts.join(",\n    ")))
}

/// An image in the form of Docker's API.
pub(crate) async fn describe_image(context: &Context, image: berth_types::Image) -> Result<Value, Failure> {
    let workload = &context.workload;
    let facts = workload.image_facts(&image, &workload.settings().platform).await?;
    let config = workload.image_config(&facts).await?;
    let row = workload.image_row(image).await;
    let names = workload.image_rows().await?;
    let same = names.iter().filter(|other| other.id() == row.id());
    let tags: Vec<String> = same
        .filter(|other| other.tag != "<none>")
        .map(|other| format!("{}:{}", other.repository, other.tag))
        .collect();
    let size = row.size.unwrap_or(0);
    Ok(json!({
        "Id": row.id().as_str(),
        "RepoTags": tags,
        "RepoDigests": [format!("{}@{}", row.repository, row.id())],
        "Parent": "",
        "Comment": config.history.last().and_then(|step| step.comment.clone()).unwrap_or_default(),
        "Created": config.created,
        "Author": config.author.unwrap_or_default(),
        "Config": config.config,
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "Size": size,
        "GraphDriver": { "Data": null, "Name": workload.settings().snapshotter.as_str() },
        "RootFS": { "Type": "layers", "Layers": config.rootfs.diff_ids },
        "Metadata": { "LastTagTime": berth_workload::human::timestamp(row.image.updated_at) },
        "Descriptor": row.image.target,
    }))
}
