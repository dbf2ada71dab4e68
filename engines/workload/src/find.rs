//! Containers by what somebody typed: an id, its beginning, or a name.

use berth_oci::runtime::Spec;
use berth_types::filter::Filters;
use berth_types::{Container, Error, Result};

use crate::{Config, Definition, HostConfig, Workload, labels};

/// A container that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its record.
    pub container: Container,
}

impl Found {
    /// The name that people use; the beginning of the id if it has none.
    pub fn name(&self) -> &str {
        name_of(&self.container)
    }

    /// What it was made from. For a container that another tool made it is read off its specification.
    pub fn definition(&self) -> Result<Definition> {
        definition_of(&self.container)
    }

    /// Its specification.
    pub fn spec(&self) -> Result<Spec> {
        spec_of(&self.container)
    }
}

pub(crate) fn name_of(container: &Container) -> &str {
    container.labels.get(labels::NAME).map_or_else(|| short(container.id.as_str()), String::as_str)
}

/// The beginning of an id, as long as Docker shows it.
pub(crate) fn short(id: &str) -> &str {
    if id.len() == 64 { &id[..12] } else { id }
}

pub(crate) fn spec_of(container: &Container) -> Result<Spec> {
    let any = container.spec.as_ref().ok_or_else(|| {
        Error::failed_precondition(format!("container {} has no specification", container.id))
    })?;
    Spec::from_slice(&any.value).map_err(|source| {
        Error::data_loss(format!("the specification of container {} cannot be read", container.id))
            .caused_by(source)
    })
}

pub(crate) fn definition_of(container: &Container) -> Result<Definition> {
    if let Some(definition) = Definition::of(container)? {
        return Ok(definition);
    }
    let spec = spec_of(container).unwrap_or_default();
    let process = spec.process.unwrap_or_default();
    Ok(Definition {
        config: Config {
            hostname: spec.hostname,
            tty: process.terminal,
            env: process.env,
            cmd: Some(process.args),
            image: container.image.clone(),
            working_dir: process.cwd,
            labels: container.labels.clone(),
            ..Config::default()
        },
        host: HostConfig {
            runtime: container.runtime.name.clone(),
            log_config: crate::LogConfig { kind: String::new(), ..crate::LogConfig::default() },
            ..HostConfig::default()
        },
        user: crate::Identity {
            uid: process.user.uid,
            gid: process.user.gid,
            groups: process.user.additional_gids,
            home: String::new(),
        },
        ..Definition::default()
    })
}

impl Workload {
    /// Finds one container.
    pub async fn find(&self, text: &str) -> Result<Found> {
        let missing = || Error::not_found(format!("No such container: {text}"));
        let wanted = text.strip_prefix('/').unwrap_or(text);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        if wanted.is_empty() || !wanted.bytes().all(plain) {
            return Err(missing());
        }
        let pattern = wanted.replace('.', "\\\\.");
        let filters = Filters::parse(&[
            format!("id~=\"^{pattern}\""),
            format!("labels.\"{}\"==\"{wanted}\"", labels::NAME),
        ])?;
        let found = self.catalog.containers(&self.scope).list(&filters).await?;
        if let Some(exact) = found.iter().find(|container| container.id.as_str() == wanted) {
            return Ok(Found { container: exact.clone() });
        }
        if let Some(named) = found.iter().find(|container| name_of(container) == wanted) {
            return Ok(Found { container: named.clone() });
        }
        match &found[..] {
            [] => Err(missing()),
            [one] => Ok(Found { container: one.clone() }),
            many => Err(Error::invalid_argument(format!(
                "{text} is ambiguous: {} containers begin like that",
                many.len()
            ))),
        }
    }

    /// The container that has a name, if any.
    pub(crate) async fn by_name(&self, name: &str) -> Result<Option<Container>> {
        let filters = Filters::parse(&[format!("labels.\"{}\"==\"{name}\"", labels::NAME)])?;
        Ok(self.catalog.containers(&self.scope).list(&filters).await?.into_iter().next())
    }
}
