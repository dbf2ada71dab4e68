//! What the daemon tells of itself: its parts under containerd's plugin URIs, its identity, its version.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use berth_core::Introspection;
use berth_types::filter::{Fields, Filters};
use berth_types::{Any, Error, PluginInfo, PluginState, ServerInfo};

use crate::identity;

/// The folder in which containerd keeps the daemon's identity.
const FOLDER: &str = "io.containerd.grpc.v1.introspection";

/// What a part can answer beyond its record.
#[async_trait]
pub(crate) trait Details: Send + Sync {
    /// The answer to options of the part's own.
    async fn details(&self, options: Any) -> berth_types::Result<Any>;
}

/// The parts of this daemon.
pub(crate) struct Parts {
    plugins: Vec<PluginInfo>,
    uuid: String,
    runtime: Box<dyn Details>,
}

impl Parts {
    /// The parts, of a daemon with the identity that its root keeps.
    pub(crate) fn new(root: &Path, plugins: Vec<PluginInfo>, runtime: Box<dyn Details>) -> Result<Self> {
        Ok(Self { plugins, uuid: uuid(&root.join(FOLDER))?, runtime })
    }

    /// Refuses to run without what the configuration demands.
    pub(crate) fn require(&self, wanted: &[String]) -> Result<()> {
        for uri in wanted {
            match self.plugins.iter().find(|plugin| plugin_uri(plugin) == *uri).map(|plugin| &plugin.state) {
                Some(PluginState::Ready) => {}
                Some(PluginState::Skipped(why) | PluginState::Failed(why)) => {
                    bail!("load required plugin {uri}: {why}")
                }
                None => bail!("required plugin {uri} not included"),
            }
        }
        Ok(())
    }
}

/// `KIND.ID`, as `disabled_plugins` and `required_plugins` name it.
pub(crate) fn plugin_uri(plugin: &PluginInfo) -> String {
    format!("{}.{}", plugin.kind, plugin.id)
}

/// The identity of this daemon: made once, the same over restarts.
fn uuid(folder: &Path) -> Result<String> {
    let path = folder.join("uuid");
    if let Ok(found) = fs::read_to_string(&path)
        && is_uuid(found.trim())
    {
        return Ok(found.trim().to_owned());
    }
    let mut bytes = [0_u8; 16];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    // Version 4, variant 1 (RFC 9562, section 5.4).
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    let made = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
    let write = || -> std::io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(made.as_bytes())
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(made)
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &&str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(hex)
}

/// A part as filters see it.
struct Filtered<'a>(&'a PluginInfo);

impl Fields for Filtered<'_> {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["type"] => Some(self.0.kind.clone()),
            ["id"] => Some(self.0.id.clone()),
            _ => None,
        }
    }
}

#[async_trait]
impl Introspection for Parts {
    async fn server(&self) -> berth_types::Result<ServerInfo> {
        let namespace = fs::metadata("/proc/self/ns/pid")
            .map_err(|source| Error::io("cannot look at the daemon's pid namespace", source))?;
        Ok(ServerInfo {
            uuid: self.uuid.clone(),
            pid: u64::from(std::process::id()),
            pidns: namespace.ino(),
            deprecations: Vec::new(),
        })
    }

    async fn plugins(&self, filters: &[String]) -> berth_types::Result<Vec<PluginInfo>> {
        let filters = Filters::parse(filters)?;
        Ok(self.plugins.iter().filter(|plugin| filters.matches(&Filtered(plugin))).cloned().collect())
    }

    async fn plugin(
        &self,
        kind: &str,
        id: &str,
        options: Option<Any>,
    ) -> berth_types::Result<(PluginInfo, Option<Any>)> {
        let plugin = self
            .plugins
            .iter()
            .find(|plugin| plugin.kind == kind && plugin.id == id)
            .ok_or_else(|| Error::not_found(format!("plugin {kind}.{id} not found: not found")))?;
        let Some(options) = options else { return Ok((plugin.clone(), None)) };
        if let PluginState::Skipped(_) | PluginState::Failed(_) = plugin.state {
            return Err(Error::failed_precondition(
                "cannot get extra info, plugin not successfully loaded: failed precondition",
            ));
        }
        if plugin_uri(plugin) != "io.containerd.runtime.v2.task" {
            return Err(Error::not_implemented(
                "plugin does not provided extra information: not implemented",
            ));
        }
        Ok((plugin.clone(), Some(self.runtime.details(options).await?)))
    }

    async fn version(&self) -> berth_types::Result<(String, String)> {
        Ok((identity::version(), identity::revision().to_owned()))
    }
}

/// A part that works, without more to say of it.
pub(crate) fn ready(kind: &str, id: &str, requires: &[&str]) -> PluginInfo {
    PluginInfo {
        kind: kind.to_owned(),
        id: id.to_owned(),
        requires: requires.iter().map(|&kind| kind.to_owned()).collect(),
        platforms: Vec::new(),
        exports: BTreeMap::new(),
        capabilities: Vec::new(),
        state: PluginState::Ready,
    }
}

#[cfg(test)]
mod tests {
    use testkit::Scratch;

    use super::*;

    struct Nothing;

    #[async_trait]
    impl Details for Nothing {
        async fn details(&self, options: Any) -> berth_types::Result<Any> {
            Ok(options)
        }
    }

    fn parts(scratch: &Scratch) -> Parts {
        let mut skipped = ready("io.containerd.snapshotter.v1", "zfs", &[]);
        skipped.state = PluginState::Skipped("no zfs here".to_owned());
        let plugins = vec![
            ready("io.containerd.snapshotter.v1", "native", &[]),
            skipped,
            ready("io.containerd.runtime.v2", "task", &[]),
        ];
        Parts::new(scratch.folder(), plugins, Box::new(Nothing)).unwrap()
    }

    #[test]
    fn the_identity_outlives_the_daemon() {
        let scratch = Scratch::new();
        let first = parts(&scratch).uuid;
        assert!(is_uuid(&first), "{first}");
        assert_eq!(parts(&scratch).uuid, first);
        scratch.file(&format!("{FOLDER}/uuid"), "broken");
        assert_ne!(parts(&scratch).uuid, first);
    }

    #[test]
    fn a_required_part_has_to_work() {
        let scratch = Scratch::new();
        let parts = parts(&scratch);
        let require = |uri: &str| parts.require(&[uri.to_owned()]).map_err(|error| error.to_string());
        assert_eq!(require("io.containerd.snapshotter.v1.native"), Ok(()));
        assert!(require("io.containerd.snapshotter.v1.zfs").unwrap_err().contains("no zfs here"));
        assert!(require("io.containerd.grpc.v1.cri").unwrap_err().contains("not included"));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn parts_are_found_by_kind_and_id() {
        let scratch = Scratch::new();
        let parts = parts(&scratch);
        let found = parts.plugins(&["type==io.containerd.snapshotter.v1,id==zfs".to_owned()]).await.unwrap();
        assert_eq!(found.len(), 1);
        let options = Any::new("x", *b"y");
        let (_, extra) =
            parts.plugin("io.containerd.runtime.v2", "task", Some(options.clone())).await.unwrap();
        assert_eq!(extra, Some(options.clone()));
        let kind = |result: berth_types::Result<_>| result.map(|_| ()).unwrap_err().kind();
        use berth_types::ErrorKind::{FailedPrecondition, NotFound, NotImplemented};
        let snapshotter = "io.containerd.snapshotter.v1";
        assert_eq!(kind(parts.plugin(snapshotter, "zfs", Some(options.clone())).await), FailedPrecondition);
        assert_eq!(kind(parts.plugin(snapshotter, "native", Some(options)).await), NotImplemented);
        assert_eq!(kind(parts.plugin(snapshotter, "none", None).await), NotFound);
    }
}
