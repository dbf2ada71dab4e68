//! The ends of a transfer, from the wire to what an engine is asked for.

use std::path::PathBuf;
use std::sync::Arc;

use berth_core::{
    ExportPlatforms, ImageStore, Logins, NamedByDigest, OtherNames, PlainLayers, Reference, RegistryEnd,
    Scope, UnpackInto, UnpackedBlobs,
};
use berth_proto as proto;
use berth_types::{Error, Platform, Result};
use proto::containerd::types::transfer as wire;
use proto::convert::from_labels;
use proto::prost_types::Any;

use crate::requester::Client;
use crate::streaming::{Pipe, Pipes, unpacked};
use crate::transcript::{self, Bringing};

/// One end of a transfer.
pub(crate) enum End {
    /// An archive that the client sends.
    Import { pipe: Pipe, plain: PlainLayers },
    /// An archive that the client gets.
    Export { pipe: Pipe, form: Form },
    /// The image records.
    Store(ImageStore),
    /// A registry, and what brings its transcript to the client.
    Registry(Box<RegistryEnd>, Option<Bringing>),
    /// Something that nothing is transferred from or to.
    Other,
}

/// How an archive is to be made.
pub(crate) struct Form {
    pub(crate) platforms: ExportPlatforms,
    pub(crate) without_manifest_json: bool,
    pub(crate) without_foreign_layers: bool,
}

impl End {
    /// Reads an end and takes the streams that it names.
    pub(crate) fn read(end: Any, pipes: &Pipes, scope: &Scope) -> Result<Self> {
        let name = end.type_url.rsplit('/').next().unwrap_or_default().to_owned();
        match name.strip_prefix("containerd.types.transfer.").unwrap_or_default() {
            "ImageImportStream" => {
                let wire::ImageImportStream { stream, force_compress, .. } = unpacked(end)?;
                let plain = if force_compress { PlainLayers::Compressed } else { PlainLayers::Kept };
                Ok(Self::Import { pipe: pipes.take(&scope.namespace, &stream)?, plain })
            }
            "ImageExportStream" => {
                let message: wire::ImageExportStream = unpacked(end)?;
                let pipe = pipes.take(&scope.namespace, &message.stream)?;
                Ok(Self::Export { pipe, form: form(message) })
            }
            "ImageStore" => store(unpacked(end)?).map(Self::Store),
            "OCIRegistry" => {
                let (registry, bringing) = registry(unpacked(end)?, pipes, scope)?;
                Ok(Self::Registry(Box::new(registry), bringing))
            }
            // What containerd knows by name, although it transfers nothing there.
            _ if name.starts_with("containerd.") || name.starts_with("google.protobuf.") => Ok(Self::Other),
            _ => Err(Error::not_found(format!("type with url {}", end.type_url))),
        }
    }
}

fn form(message: wire::ImageExportStream) -> Form {
    let platforms: Vec<Platform> = message.platforms.into_iter().map(Platform::from).collect();
    Form {
        platforms: if message.all_platforms {
            ExportPlatforms::All(platforms)
        } else {
            ExportPlatforms::Only(platforms)
        },
        without_manifest_json: message.skip_compatibility_manifest,
        without_foreign_layers: message.skip_non_distributable,
    }
}

fn store(message: wire::ImageStore) -> Result<ImageStore> {
    let wire::ImageStore { name, labels, platforms, all_metadata, manifest_limit, extra_references, unpacks } =
        message;
    Ok(ImageStore {
        name: named(&name)?,
        labels: from_labels(labels),
        platforms: platforms.into_iter().map(Platform::from).collect(),
        all_metadata,
        manifest_limit: manifest_limit as usize,
        references: extra_references.into_iter().map(reference).collect::<Result<_>>()?,
        unpacks: unpacks.into_iter().map(unpack_into).collect::<Result<_>>()?,
        blobs: UnpackedBlobs::Kept,
    })
}

fn named<N: std::str::FromStr<Err = Error>>(name: &str) -> Result<Option<N>> {
    if name.is_empty() { Ok(None) } else { name.parse().map(Some) }
}

fn reference(message: wire::ImageReference) -> Result<Reference> {
    let wire::ImageReference { name, is_prefix, allow_overwrite, add_digest, skip_named_digest } = message;
    if !is_prefix {
        return name.parse().map(Reference::Exact);
    }
    Ok(Reference::Prefix {
        name,
        others: if allow_overwrite { OtherNames::Taken } else { OtherNames::LeftOut },
        digests: match (add_digest, skip_named_digest) {
            (false, _) => NamedByDigest::None,
            (true, true) => NamedByDigest::Unnamed,
            (true, false) => NamedByDigest::Every,
        },
    })
}

fn unpack_into(message: wire::UnpackConfiguration) -> Result<UnpackInto> {
    let wire::UnpackConfiguration { platform, snapshotter } = message;
    Ok(UnpackInto { platform: platform.map(Platform::from), snapshotter: named(&snapshotter)? })
}

fn registry(
    message: wire::OciRegistry,
    pipes: &Pipes,
    scope: &Scope,
) -> Result<(RegistryEnd, Option<Bringing>)> {
    let wire::OciRegistry { reference, resolver } = message;
    let wire::RegistryResolver { auth_stream, headers, host_dir, default_scheme, http_debug, logs_stream } =
        resolver.unwrap_or_default();
    let logins: Option<Arc<dyn Logins>> = if auth_stream.is_empty() {
        None
    } else {
        let pipe = pipes.take(&scope.namespace, &auth_stream)?;
        Some(Arc::new(Client::new(pipe, reference.clone())))
    };
    let (transcript, bringing) = transcript::wanted(http_debug, &logs_stream, pipes, scope)?;
    let end = RegistryEnd {
        reference: reference.parse()?,
        headers: headers.into_iter().collect(),
        hosts: Some(host_dir).filter(|folder| !folder.is_empty()).map(PathBuf::from).into_iter().collect(),
        plain_http: default_scheme == "http",
        logins,
        transcript,
    };
    Ok((end, bringing))
}
