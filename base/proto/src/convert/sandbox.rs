//! Sandbox records.

use berth_types::{Error, RuntimeInfo, Sandbox, SandboxId};

use super::{any, from_any, from_labels, labels, time, timestamp};
use crate::containerd::types as wire;

impl From<Sandbox> for wire::Sandbox {
    fn from(sandbox: Sandbox) -> Self {
        let Sandbox { id, runtime, spec, labels: marks, created_at, updated_at, extensions, sandboxer } =
            sandbox;
        Self {
            sandbox_id: id.into(),
            runtime: Some(wire::sandbox::Runtime { name: runtime.name, options: runtime.options.map(any) }),
            spec: spec.map(any),
            labels: labels(marks),
            created_at: timestamp(created_at),
            updated_at: timestamp(updated_at),
            extensions: extensions.into_iter().map(|(name, value)| (name, any(value))).collect(),
            sandboxer,
        }
    }
}

impl TryFrom<wire::Sandbox> for Sandbox {
    type Error = Error;

    fn try_from(sandbox: wire::Sandbox) -> Result<Self, Error> {
        let wire::Sandbox {
            sandbox_id,
            runtime,
            spec,
            labels: marks,
            created_at,
            updated_at,
            extensions,
            sandboxer,
        } = sandbox;
        let runtime = runtime.unwrap_or_default();
        Ok(Self {
            id: SandboxId::try_from(sandbox_id)?,
            runtime: RuntimeInfo { name: runtime.name, options: runtime.options.map(from_any) },
            spec: spec.map(from_any),
            labels: from_labels(marks),
            created_at: time(created_at),
            updated_at: time(updated_at),
            extensions: extensions.into_iter().map(|(name, value)| (name, from_any(value))).collect(),
            sandboxer,
        })
    }
}
