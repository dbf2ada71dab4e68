//! `manifest`: documents of images, and lists of them.

use berth_registry::Access;
use berth_transfer::{Amend, PlatformChange, Push, annotate_list, create_list};
use berth_types::{ErrorKind, ImageName, ImageRef};
use clap::{Args, Subcommand};

use super::pull::registries;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{self, progress::Bars};

/// Commands about manifests.
#[derive(Debug, Subcommand)]
pub(crate) enum Manifest {
    /// Show the document of an image: the one that is here, else its registry's
    Inspect(Inspect),
    /// Make a list of images that are here
    Create(Create),
    /// Change what a list says of one of its images
    Annotate(Annotate),
    /// Send a list and its images to its registry
    Push(PushList),
    /// List what refers to an image in its registry: signatures, attestations, lists of contents
    Referrers(Referrers),
    /// Forget lists
    Rm {
        /// The lists
        #[arg(required = true)]
        lists: Vec<String>,
    },
}

/// Flags of `manifest inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Ask the registry even if the image is here
    #[arg(long)]
    remote: bool,
    /// The image
    image: String,
}

/// Flags of `manifest create`.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Add to a list that is there
    #[arg(short, long)]
    amend: bool,
    /// The list
    list: String,
    /// Its images
    #[arg(required = true)]
    images: Vec<String>,
}

/// Flags of `manifest annotate`.
#[derive(Debug, Args)]
pub(crate) struct Annotate {
    /// Operating system
    #[arg(long)]
    os: Option<String>,
    /// Architecture
    #[arg(long)]
    arch: Option<String>,
    /// Variant of the architecture
    #[arg(long)]
    variant: Option<String>,
    /// Version of the operating system
    #[arg(long)]
    os_version: Option<String>,
    /// The list
    list: String,
    /// The image
    image: String,
}

/// Flags of `manifest push`.
#[derive(Debug, Args)]
pub(crate) struct PushList {
    /// Forget the list afterwards
    #[arg(short, long)]
    purge: bool,
    /// The list
    list: String,
}

/// Flags of `manifest referrers`.
#[derive(Debug, Args)]
pub(crate) struct Referrers {
    /// Only those of one type, such as application/spdx+json
    #[arg(long)]
    artifact_type: Option<String>,
    /// The image
    image: String,
}

impl Referrers {
    async fn run(self) -> Outcome {
        let reference: ImageRef = self.image.parse()?;
        let repository = registries().repository(&reference, Access::Pull)?;
        let target = repository.resolve(&reference).await?;
        for one in repository.referrers(&target.digest, self.artifact_type.as_deref()).await? {
            let kind = one.artifact_type.as_deref().unwrap_or(&one.media_type);
            // The type is the registry's word.
            let kind: String = kind.chars().filter(|character| !character.is_control()).collect();
            output::line(&format!("{}  {}  {kind}", one.digest, one.size))?;
        }
        Ok(0)
    }
}

impl Manifest {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Inspect(inspect) => inspect.run(context).await,
            Self::Create(create) => create.run(context).await,
            Self::Annotate(annotate) => annotate.run(context).await,
            Self::Push(push) => push.run(context).await,
            Self::Referrers(referrers) => referrers.run().await,
            Self::Rm { lists } => {
                for list in lists {
                    forget(context, &name(&list)?).await?;
                }
                Ok(0)
            }
        }
    }
}

/// The full name of an image.
pub(super) fn name(text: &str) -> Result<ImageName, Failure> {
    Ok(text.parse::<ImageRef>()?.to_string().parse()?)
}

async fn forget(context: &Context, name: &ImageName) -> Result<(), Failure> {
    let deletion = berth_core::Deletion::Synchronous;
    Ok(berth_transfer::delete(&*context.client, context.scope(), name, deletion).await?)
}

impl Inspect {
    async fn run(self, context: &Context) -> Outcome {
        let here = if self.remote { None } else { found(context, &self.image).await? };
        let bytes = if let Some(image) = here {
            berth_transfer::document(&*context.client, context.scope(), &image.target).await?
        } else {
            let reference: ImageRef = self.image.parse()?;
            let repository = registries().repository(&reference, Access::Pull)?;
            let target = repository.resolve(&reference).await?;
            repository.manifest(&target).await?.to_vec()
        };
        let document: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|error| Failure::new(format!("the document is no JSON: {error}")))?;
        let text = serde_json::to_string_pretty(&document)
            .map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
        output::line(&text)?;
        Ok(0)
    }
}

async fn found(context: &Context, text: &str) -> Result<Option<berth_types::Image>, Failure> {
    match context.image(text).await {
        Ok(image) => Ok(Some(image)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Create {
    async fn run(self, context: &Context) -> Outcome {
        let list = name(&self.list)?;
        let mut members = Vec::with_capacity(self.images.len());
        for image in &self.images {
            members.push(context.image(image).await?.name);
        }
        let amend = if self.amend { Amend::Yes } else { Amend::No };
        let made = create_list(&*context.client, context.scope(), &list, &members, amend).await?;
        output::line(&format!("Created manifest list {}", made.name))?;
        Ok(0)
    }
}

impl Annotate {
    async fn run(self, context: &Context) -> Outcome {
        let Self { os, arch, variant, os_version, list, image } = self;
        let member = context.image(&image).await?.name;
        let change = PlatformChange { os, architecture: arch, variant, os_version };
        annotate_list(&*context.client, context.scope(), &name(&list)?, &member, &change).await?;
        Ok(0)
    }
}

impl PushList {
    async fn run(self, context: &Context) -> Outcome {
        let list = name(&self.list)?;
        let image = context.client.images(context.scope()).image(&list).await?;
        let reference: ImageRef = list.as_str().parse()?;
        let bars = Bars::new(false);
        let request = Push { progress: bars.reporter(), ..Push::new(image.target, reference) };
        let pushed = berth_transfer::push(&*context.client, context.scope(), &registries(), &request).await;
        bars.finish();
        output::line(pushed?.digest.as_str())?;
        if self.purge {
            forget(context, &list).await?;
        }
        Ok(0)
    }
}
