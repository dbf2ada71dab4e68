//! Network configurations: lists of plugins, as operators and network providers write them (specification 1.1,
//! section 1).

use std::path::Path;

use berth_types::{Error, Result};
use serde_json::{Map, Value, json};

use crate::version::Version;

/// A network: plugins that run one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkList {
    /// The network's name.
    pub name: String,
    /// The version that its plugins are spoken to in.
    pub version: Version,
    /// CHECK is not asked for.
    pub disable_check: bool,
    /// GC is not asked for.
    pub disable_gc: bool,
    /// The plugins, in the order of ADD.
    pub plugins: Vec<Plugin>,
    /// The file's text, as it is kept with a result.
    pub source: String,
}

/// One plugin of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Plugin {
    /// The name of its program.
    pub kind: String,
    /// Its whole configuration.
    pub config: Map<String, Value>,
}

impl NetworkList {
    /// Reads the text of a list.
    pub fn parse(text: &str) -> Result<Self> {
        let config: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
            Error::invalid_argument("a network configuration must be JSON").caused_by(error)
        })?;
        let name = text_of(&config, "name")?.unwrap_or_default().to_owned();
        check_name(&name)?;
        let mut plugins = Vec::new();
        match config.get("plugins") {
            None => {}
            Some(Value::Array(list)) => {
                for plugin in list {
                    plugins.push(Plugin::read(plugin)?);
                }
            }
            Some(_) => return Err(Error::invalid_argument("plugins must be a list")),
        }
        Ok(Self {
            name,
            version: version(&config)?,
            disable_check: flag(&config, "disableCheck")?,
            disable_gc: flag(&config, "disableGC")?,
            plugins,
            source: text.to_owned(),
        })
    }

    /// Reads a file: a list for `.conflist`, else one plugin, which is a list of itself.
    ///
    /// A list also takes the `*.conf` of the folder with the network's name beside it, unless it says
    /// `loadOnlyInlinedPlugins`.
    pub fn open(path: &Path) -> Result<Self> {
        let wrong = |error: Error| {
            Error::invalid_argument(format!("cannot load the network configuration {}", path.display()))
                .caused_by(error)
        };
        Self::load(path).map_err(wrong)
    }

    fn load(path: &Path) -> Result<Self> {
        let text = read(path)?;
        if path.extension().is_none_or(|kind| kind != "conflist") {
            return Self::of_one(&text);
        }
        let mut list = Self::parse(&text)?;
        let config: Map<String, Value> = serde_json::from_str(&text).unwrap_or_default();
        if !flag(&config, "loadOnlyInlinedPlugins")? {
            let folder = path.with_file_name(&list.name);
            let more = crate::folder::files(&folder, &["conf"])?;
            for file in &more {
                list.plugins.push(Plugin::parse(&read(file)?)?);
            }
            if !more.is_empty() {
                // What is kept with a result must hold them too.
                let mut config = config;
                let plugins =
                    list.plugins.iter().map(|plugin| Value::Object(plugin.config.clone())).collect();
                config.insert("plugins".into(), Value::Array(plugins));
                config.insert("loadOnlyInlinedPlugins".into(), Value::Bool(true));
                list.source = Value::Object(config).to_string();
            }
        }
        if list.plugins.is_empty() {
            return Err(Error::invalid_argument(format!("network {} has no plugins", list.name)));
        }
        Ok(list)
    }

    /// A single plugin's configuration as a list.
    pub fn of_one(text: &str) -> Result<Self> {
        let plugin = Plugin::parse(text)?;
        let mut list = json!({"name": plugin.config.get("name"), "plugins": [plugin.config]});
        if let Some(version) = plugin.config.get("cniVersion") {
            list["cniVersion"] = version.clone();
        }
        Self::parse(&list.to_string())
    }
}

impl Plugin {
    fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).map_err(|error| {
            Error::invalid_argument("a plugin's configuration must be JSON").caused_by(error)
        })?;
        Self::read(&value)
    }

    fn read(value: &Value) -> Result<Self> {
        let Value::Object(config) = value else {
            return Err(Error::invalid_argument("a plugin's configuration must be an object"));
        };
        let kind = text_of(config, "type")?.unwrap_or_default();
        if kind.is_empty() {
            return Err(Error::invalid_argument(
                "a plugin's configuration lacks its type (a list of plugins belongs in a .conflist)",
            ));
        }
        // A path would run any program of the host (CVE-2021-20206).
        if kind.contains('/') || kind.contains('\0') || kind == "." || kind == ".." {
            return Err(Error::invalid_argument(format!(
                "plugin type {kind:?} is a path: it must be the name of a program in the plugin folders"
            )));
        }
        Ok(Self { kind: kind.to_owned(), config: config.clone() })
    }

    /// Whether it says that it takes what the runtime has under this name.
    pub fn takes(&self, capability: &str) -> bool {
        self.config.get("capabilities").and_then(|all| all.get(capability)) == Some(&Value::Bool(true))
    }

    /// The names of what it takes.
    pub fn capabilities(&self) -> impl Iterator<Item = &str> {
        let all = self.config.get("capabilities").and_then(Value::as_object);
        all.into_iter().flatten().filter(|(_, on)| **on == Value::Bool(true)).map(|(name, _)| name.as_str())
    }

    /// What it reads for one command: its configuration with the network's name and version, what the runtime has
    /// for it, and what came before.
    pub(crate) fn input(
        &self,
        list: &NetworkList,
        capabilities: Option<&Map<String, Value>>,
        before: Option<Value>,
    ) -> Map<String, Value> {
        let mut config = self.config.clone();
        config.insert("name".into(), list.name.clone().into());
        config.insert("cniVersion".into(), list.version.as_str().into());
        if let Some(before) = before {
            config.insert("prevResult".into(), before);
        }
        let taken: Map<String, Value> = capabilities
            .into_iter()
            .flatten()
            .filter(|(name, _)| self.takes(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !taken.is_empty() {
            config.insert("runtimeConfig".into(), taken.into());
        }
        config
    }
}

/// The newest version that both sides know, of `cniVersions` and `cniVersion`.
fn version(config: &Map<String, Value>) -> Result<Version> {
    let one = text_of(config, "cniVersion")?;
    let Some(several) = config.get("cniVersions") else {
        return one.filter(|text| !text.is_empty()).map_or(Ok(Version::V0_1_0), str::parse);
    };
    let several =
        several.as_array().and_then(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
    let several = several.ok_or_else(|| Error::invalid_argument("cniVersions must be a list of texts"))?;
    Version::newest(several.iter().copied().chain(one)).ok_or_else(|| {
        Error::invalid_argument(format!(
            "none of the versions {several:?} is known; {} is the newest",
            Version::CURRENT
        ))
    })
}

fn text_of<'a>(config: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Error::invalid_argument(format!("{key} must be a text"))),
    }
}

/// A flag, which may also be written as a text.
fn flag(config: &Map<String, Value>, key: &str) -> Result<bool> {
    match config.get(key) {
        None => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(other) => Err(Error::invalid_argument(format!("{key} must be true or false, not {other}"))),
    }
}

/// The names that the specification allows for networks and containers. They become names of files.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if !first || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
        return Err(Error::invalid_argument(format!(
            "{name:?} cannot name a network or a container of one: a letter or digit, then letters, digits, _ . and -"
        )));
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| Error::io(format!("cannot read {}", path.display()), error))
}
