//! Images by what somebody types: a name, a folder, an archive, the built-in one.

use std::fs::File;
use std::path::{Path, PathBuf};

use berth_transfer::{Import, Names, Platforms, Source, import};
use berth_types::{ErrorKind, Image, ImageName};

use super::options::ContainerOptions;
use super::pull;
use crate::context::Context;
use crate::failure::Failure;
use crate::hello;
use crate::output::progress::Bars;

/// Finds an image, fetching it if it is missing and may be fetched.
pub(crate) async fn resolve(
    context: &Context,
    text: &str,
    options: &ContainerOptions,
) -> Result<Image, Failure> {
    if hello::is_meant(text) {
        return hello::image(context).await;
    }
    if let Some(source) = archive(text)? {
        return take_in(context, text, source, options.quiet).await;
    }
    let pull = || pull::fetch(context, text, options.platform.as_deref(), options.quiet);
    if options.pull == "always" {
        return pull().await;
    }
    match context.image(text).await {
        Ok(image) => Ok(image),
        Err(error) if error.kind() == ErrorKind::NotFound && options.pull == "missing" => {
            if !options.quiet {
                eprintln!("Unable to find image '{text}' locally");
            }
            pull().await
        }
        Err(error) => Err(error.into()),
    }
}

/// `oci:FOLDER[:TAG]`, `oci-archive:FILE`, `docker-archive:FILE`.
fn archive(text: &str) -> Result<Option<(Source, Option<String>, PathBuf)>, Failure> {
    if let Some(folder) = text.strip_prefix("oci:") {
        let (folder, pick) = match folder.rsplit_once(':') {
            Some((path, tag)) if !Path::new(folder).exists() && !tag.contains('/') => {
                (path, Some(tag.to_owned()))
            }
            _ => (folder, None),
        };
        let folder = PathBuf::from(folder);
        if !folder.is_dir() {
            return Err(Failure::new(format!("{} is no folder with an OCI image layout", folder.display())));
        }
        return Ok(Some((Source::Layout(folder.clone()), pick, folder)));
    }
    let Some(file) = text.strip_prefix("oci-archive:").or_else(|| text.strip_prefix("docker-archive:"))
    else {
        return Ok(None);
    };
    let path = PathBuf::from(file);
    let file =
        File::open(&path).map_err(|error| Failure::new(format!("open {}: {error}", path.display())))?;
    Ok(Some((Source::Archive(Box::new(file)), None, path)))
}

async fn take_in(
    context: &Context,
    text: &str,
    (source, pick, path): (Source, Option<String>, PathBuf),
    quiet: bool,
) -> Result<Image, Failure> {
    let bars = Bars::new(quiet);
    let names = Names { fallback: Some(fallback(&path)?), pick, ..Names::default() };
    let options =
        Import { names, platforms: Platforms::host(), progress: bars.reporter(), ..Import::default() };
    let imported = import(&*context.client, context.scope(), source, &options).await;
    bars.finish();
    let imported = imported?;
    imported
        .images
        .into_iter()
        .next()
        .ok_or_else(|| Failure::new(format!("{text} holds no image for this machine that has a name")))
}

/// The name of an image that has none: after its file.
fn fallback(path: &Path) -> Result<ImageName, Failure> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let mut name: String =
        stem.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
    name = name.trim_matches(['-', '_']).to_owned();
    if name.is_empty() || name.contains("___") {
        "image".clone_into(&mut name);
    }
    Ok(format!("localhost/{name}:latest").parse()?)
}
