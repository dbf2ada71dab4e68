//! Reads a file and what it imports.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml::Table;
use toml::de::DeTable;

use super::keys::{Known, UnknownKey};
use super::merge::{merge, overlay};
use super::migrate::migrate;
use super::{Config, VERSION};
use crate::identity::Identity;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read the config {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is no TOML", path.display())]
    Syntax { path: PathBuf, source: toml::de::Error },
    #[error(transparent)]
    Key(#[from] UnknownKey),
    #[error(
        "{} is of version 1, which containerd 2 gave up: rename its plugins to their whole names \
         (\"cri\" is \"io.containerd.grpc.v1.cri\") and write `version = 2`; `containerd config migrate` \
         of containerd 1.7 does it", .0.display()
    )]
    VersionOne(PathBuf),
    #[error("{} is of version {version}; versions 2 to {VERSION} are known", path.display())]
    Version { path: PathBuf, version: i64 },
    #[error("{} is imported and is of version {version}, newer than the version {root} of the file that imports it", path.display())]
    ImportVersion { path: PathBuf, version: i64, root: i64 },
    #[error("{key} in {} names {id:?}, which is no whole plugin name such as io.containerd.grpc.v1.cri", path.display())]
    PluginName { path: PathBuf, key: &'static str, id: String },
    #[error("a value of {} has the wrong form", path.display())]
    Value { path: PathBuf, source: toml::de::Error },
    #[error("{} imports {pattern:?}: * and ? are understood in its last part only", path.display())]
    Pattern { path: PathBuf, pattern: String },
}

/// The configuration of a file and of what it imports, over the defaults.
pub(super) fn load(path: &Path, identity: &Identity) -> Result<Config, ConfigError> {
    let known = Known::new(identity);
    let mut whole = Table::new();
    let mut root_version = None;
    let mut seen = BTreeSet::new();
    let mut pending = VecDeque::from([path.to_owned()]);
    while let Some(next) = pending.pop_front() {
        if !seen.insert(next.clone()) {
            continue;
        }
        let (mut file, version) = read(&next, &known)?;
        let root = *root_version.get_or_insert(version);
        if version > root {
            return Err(ConfigError::ImportVersion { path: next, version, root });
        }
        pending.extend(imports(&next, &file)?);
        migrate(&mut file, version);
        merge(&mut whole, file);
    }
    finish(path, whole, identity, &known)
}

/// The typed values, with what is not there from the defaults.
fn finish(path: &Path, whole: Table, identity: &Identity, known: &Known) -> Result<Config, ConfigError> {
    let mut table = Table::try_from(Config::defaults(identity)).expect("the defaults have a form in TOML");
    overlay(&mut table, whole);
    let mut config: Config =
        table.try_into().map_err(|source| ConfigError::Value { path: path.to_owned(), source })?;
    for (key, ids) in
        [("disabled_plugins", &config.disabled_plugins), ("required_plugins", &config.required_plugins)]
    {
        if let Some(id) = ids.iter().find(|id| !id.contains('.')) {
            return Err(ConfigError::PluginName { path: path.to_owned(), key, id: id.clone() });
        }
    }
    for id in config.plugins.others.keys() {
        if let Some(meant) = known.meant(id) {
            config
                .warnings
                .push(format!("no part of the daemon reads [plugins.'{id}']; the nearest is '{meant}'"));
        }
    }
    Ok(config)
}

fn read(path: &Path, known: &Known) -> Result<(Table, i64), ConfigError> {
    let text =
        fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let syntax = |source| ConfigError::Syntax { path: path.to_owned(), source };
    let table: Table = text.parse().map_err(syntax)?;
    let version = version(path, &table)?;
    let spanned = DeTable::parse(&text).map_err(syntax)?;
    known.check(path, &text, spanned.get_ref(), version)?;
    Ok((table, version))
}

/// A file without a version is of version 2 if its plugins have whole names: then it means the same.
fn version(path: &Path, file: &Table) -> Result<i64, ConfigError> {
    match file.get("version").and_then(toml::Value::as_integer) {
        Some(version @ 2..=VERSION) => Ok(version),
        Some(0 | 1) => Err(ConfigError::VersionOne(path.to_owned())),
        Some(version) => Err(ConfigError::Version { path: path.to_owned(), version }),
        None => {
            let plugins = file.get("plugins").and_then(toml::Value::as_table);
            let short = plugins.is_some_and(|plugins| plugins.keys().any(|id| !id.contains('.')));
            if short { Err(ConfigError::VersionOne(path.to_owned())) } else { Ok(2) }
        }
    }
}

/// The files that a file imports: relative to its folder, `*` and `?` in the last part.
fn imports(path: &Path, file: &Table) -> Result<Vec<PathBuf>, ConfigError> {
    let patterns = file.get("imports").and_then(toml::Value::as_array).into_iter().flatten();
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut found = Vec::new();
    for pattern in patterns.filter_map(toml::Value::as_str) {
        let whole = folder.join(pattern);
        let bad = || ConfigError::Pattern { path: path.to_owned(), pattern: pattern.to_owned() };
        let name = whole.file_name().and_then(|name| name.to_str()).ok_or_else(bad)?.to_owned();
        let parent = whole.parent().unwrap_or(Path::new("/"));
        if parent.to_string_lossy().contains(['*', '?']) {
            return Err(bad());
        }
        if !name.contains(['*', '?']) {
            found.push(whole);
            continue;
        }
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let mut matching: Vec<PathBuf> = entries
            .filter(|entry| entry.file_name().to_str().is_some_and(|entry| matches(&name, entry)))
            .map(|entry| entry.path())
            .collect();
        matching.sort();
        found.extend(matching);
    }
    Ok(found)
}

/// Whether a name fits a pattern of `*` and `?`.
fn matches(pattern: &str, name: &str) -> bool {
    let mut rest = name.chars();
    let mut pattern = pattern.chars();
    while let Some(wanted) = pattern.next() {
        match wanted {
            '*' => {
                let tail = pattern.as_str();
                return (0..=rest.as_str().len())
                    .filter(|at| rest.as_str().is_char_boundary(*at))
                    .any(|at| matches(tail, &rest.as_str()[at..]));
            }
            '?' => {
                if rest.next().is_none() {
                    return false;
                }
            }
            wanted => {
                if rest.next() != Some(wanted) {
                    return false;
                }
            }
        }
    }
    rest.as_str().is_empty()
}
