//! SIGHUP: what of a configuration that was read again can change while the daemon runs.

use anyhow::Result;
use toml::{Table, Value};

use crate::command::Source;
use crate::config::Config;
use crate::log;

/// Reads the configuration again: takes up what can change, and says of the rest that it needs a new start. One
/// that cannot be read changes nothing.
pub(crate) fn reload(source: &Source, running: &mut Config, log: &log::Handle) -> Result<()> {
    let wanted = source.config()?;
    for warning in &wanted.warnings {
        tracing::warn!("{warning}");
    }
    let changes = changes(running, &wanted);
    for path in &changes {
        if path == "debug.level" {
            log.set(&wanted.debug.level)?;
            running.debug.level.clone_from(&wanted.debug.level);
            tracing::info!(key = path, value = wanted.debug.level, "changed");
        } else {
            tracing::warn!(
                key = path,
                "changed in the config, and takes effect when the daemon is started again"
            );
        }
    }
    if changes.is_empty() {
        tracing::info!("the config has not changed");
    }
    Ok(())
}

/// The paths of all values that differ.
fn changes(running: &Config, wanted: &Config) -> Vec<String> {
    let table = |config: &Config| Table::try_from(config).unwrap_or_default();
    let mut paths = Vec::new();
    compare(&table(running), &table(wanted), "", &mut paths);
    paths
}

fn compare(from: &Table, to: &Table, place: &str, paths: &mut Vec<String>) {
    let mut keys: Vec<&String> = from.keys().chain(to.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let path = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
        match (from.get(key), to.get(key)) {
            (Some(Value::Table(from)), Some(Value::Table(to))) => compare(from, to, &path, paths),
            (from, to) if from != to => paths.push(path),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::identity::Identity;

    #[test]
    fn what_differs_is_named_by_its_path() {
        let running = Config::defaults(Identity::of(Path::new("berthd")));
        let mut wanted = running.clone();
        assert!(changes(&running, &wanted).is_empty());
        wanted.debug.level = "debug".into();
        wanted.plugins.grpc.gid = 5;
        wanted.plugins.others.insert("org.x".into(), 1.into());
        assert_eq!(
            changes(&running, &wanted),
            ["debug.level", "plugins.io.containerd.server.v1.grpc.gid", "plugins.org.x"]
        );
    }
}
