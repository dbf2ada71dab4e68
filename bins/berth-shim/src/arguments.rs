//! The command line and environment with which every containerd since 1.6 starts a shim.
//!
//! Flags are Go's: one dash or two, value after a blank or `=`, and the first word that is no flag is the action.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Action {
    /// Serve on a socket that was given, until told to shut down.
    #[default]
    Serve,
    /// Make or find the shim that serves a container, and tell its address.
    Start,
    /// Clear away what a dead shim left.
    Delete,
    /// Describe the runtime.
    Info,
    /// Tell the version.
    Version,
}

/// The flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) action: Action,
    pub(crate) namespace: String,
    pub(crate) id: String,
    /// The daemon's gRPC socket.
    pub(crate) address: String,
    /// The program that publishes an event when there is no ttrpc socket.
    pub(crate) publish_binary: String,
    pub(crate) bundle: Option<PathBuf>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) debug: bool,
}

/// What the daemon says through the environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// The daemon's ttrpc socket.
    pub(crate) ttrpc_address: Option<String>,
    /// The newest form of the answer that the daemon understands; containerd 1.6 does not say.
    pub(crate) max_version: Option<i32>,
    /// Whether the shim and its containers are to be a core scheduling group of their own.
    pub(crate) sched_core: bool,
}

impl Arguments {
    /// Reads the words after the program's name.
    pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut arguments = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                arguments.action = match word.as_str() {
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    other => bail!("unknown action {other:?}: a shim can start or delete"),
                };
                return Ok(arguments);
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            if arguments.switch(name, value.as_deref())? {
                continue;
            }
            let Some(value) = value.or_else(|| words.next()) else { bail!("flag -{name} needs a value") };
            arguments.set(name, value)?;
        }
        Ok(arguments)
    }

    /// Takes a flag that is on or off; false when it is one with a value.
    fn switch(&mut self, name: &str, value: Option<&str>) -> Result<bool> {
        let on = match value {
            None | Some("true" | "1" | "t") => true,
            Some("false" | "0" | "f") => false,
            Some(_) if !matches!(name, "debug" | "v" | "version" | "info") => false,
            Some(other) => bail!("invalid boolean value {other:?} for -{name}"),
        };
        match name {
            "debug" => self.debug = on,
            "v" | "version" if on => self.action = Action::Version,
            "info" if on => self.action = Action::Info,
            "v" | "version" | "info" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn set(&mut self, name: &str, value: String) -> Result<()> {
        match name {
            "namespace" => self.namespace = value,
            "id" => self.id = value,
            "address" => self.address = value,
            "publish-binary" => self.publish_binary = value,
            "bundle" => self.bundle = Some(value.into()),
            "socket" => self.socket = Some(value.into()),
            // containerd's shim serves Go's profiler there.
            "debug-socket" => {}
            other => bail!("flag provided but not defined: -{other}"),
        }
        Ok(())
    }
}

impl Environment {
    /// Reads the process' environment.
    pub(crate) fn read() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            ttrpc_address: text("TTRPC_ADDRESS"),
            max_version: text("MAX_SHIM_VERSION").and_then(|value| value.parse().ok()),
            sched_core: text("SCHED_CORE").is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_line_that_containerd_sends_is_understood() {
        let line =
            "-namespace ns -address /run/c.sock -publish-binary /usr/bin/containerd -id a -debug start";
        let arguments = parse(line).unwrap();
        assert_eq!(arguments.action, Action::Start);
        assert_eq!((arguments.namespace.as_str(), arguments.id.as_str()), ("ns", "a"));
        assert_eq!(arguments.address, "/run/c.sock");
        assert!(arguments.debug);
    }

    #[test]
    fn dashes_and_equal_signs_are_as_free_as_in_go() {
        let arguments = parse("--namespace=ns --id=a -bundle=/b --debug=false delete -x").unwrap();
        assert_eq!(arguments.action, Action::Delete);
        assert_eq!(arguments.bundle.as_deref(), Some(std::path::Path::new("/b")));
        assert!(!arguments.debug);
        assert_eq!(parse("-v").unwrap().action, Action::Version);
        assert_eq!(parse("--info").unwrap().action, Action::Info);
    }

    #[test]
    fn what_nobody_knows_is_refused() {
        assert!(parse("-frobnicate x start").is_err());
        assert!(parse("stop").is_err());
        assert!(parse("-id").is_err());
        assert!(parse("-debug=perhaps start").is_err());
    }
}
