//! Sandboxes.

use berth_types::{Result, RuntimeInfo, Sandbox, SandboxId};

use super::Record;
use crate::codec::{Damaged, Decoder, Encoder};
use crate::key::{Kind, key};

/// A sandbox as it is stored; its id is in the key, and a stand-in here after reading.
#[derive(Debug)]
pub(crate) struct SandboxRecord(Sandbox);

impl SandboxRecord {
    pub(crate) fn key(namespace: &str, id: &str) -> Vec<u8> {
        key(Kind::Sandbox, &[namespace, id])
    }

    pub(crate) fn new(sandbox: Sandbox) -> Self {
        Self(sandbox)
    }

    pub(crate) fn named(self, id: SandboxId) -> Sandbox {
        Sandbox { id, ..self.0 }
    }

    /// The record without its name.
    pub(crate) fn fields(&self) -> &Sandbox {
        &self.0
    }
}

impl Record for SandboxRecord {
    fn write(&self, to: Encoder) -> Encoder {
        let Sandbox { id: _, runtime, spec, labels, created_at, updated_at, extensions, sandboxer } = &self.0;
        to.text(&runtime.name)
            .any(runtime.options.as_ref())
            .any(spec.as_ref())
            .labels(labels)
            .time(*created_at)
            .time(*updated_at)
            .anys(extensions)
            .text(sandboxer)
    }

    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        let unnamed: SandboxId = "unnamed".parse().map_err(|_| Damaged("id"))?;
        let runtime = RuntimeInfo { name: from.text()?, options: from.any()? };
        let mut sandbox = Sandbox::new(unnamed, runtime);
        sandbox.spec = from.any()?;
        sandbox.labels = from.labels()?;
        sandbox.created_at = from.time()?;
        sandbox.updated_at = from.time()?;
        sandbox.extensions = from.anys()?;
        sandbox.sandboxer = from.text()?;
        Ok(Self(sandbox))
    }
}
