//! One command to one plugin (specification 1.1, sections 2 and 3).

use std::ffi::CString;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_sys::launch::{Ended, c_string};
use berth_types::{Error, ErrorKind, Result};
use serde_json::{Map, Value};

use crate::error::PluginError;
use crate::process;

/// How much of what a plugin wrote is told.
const EXCERPT: usize = 2000;

/// What plugins are asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Command {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }
}

/// Where plugins are and how long they may take.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) folders: Vec<PathBuf>,
    pub(crate) deadline: Duration,
    /// Plugins call iptables, nft, ip and others by name.
    pub(crate) search_path: String,
}

/// For whom: what the variables of the specification say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Target<'a> {
    pub(crate) container: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) arguments: &'a [(String, String)],
}

impl Programs {
    /// The program of a plugin.
    pub(crate) fn find(&self, kind: &str) -> Result<PathBuf> {
        let runs = |path: &PathBuf| {
            std::fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
        };
        self.folders.iter().map(|folder| folder.join(kind)).find(runs).ok_or_else(|| {
            let folders: Vec<String> =
                self.folders.iter().map(|folder| folder.display().to_string()).collect();
            Error::not_found(format!("there is no CNI plugin {kind} in {}: install it", folders.join(", ")))
        })
    }

    /// Asks a plugin, and gives what it answered.
    pub(crate) fn ask(
        &self,
        (kind, network): (&str, &str),
        command: Command,
        target: Target<'_>,
        input: &Map<String, Value>,
    ) -> Result<Vec<u8>> {
        let program = self.find(kind)?;
        let wrong = |what: String| format!("CNI plugin {kind} of network {network} {what}");
        let environment = self
            .environment(command, target)
            .map_err(|error| Error::io(wrong("cannot be asked".into()), error))?;
        let input = serde_json::to_vec(input)
            .map_err(|error| Error::internal(wrong("has no configuration".into())).caused_by(error))?;
        let name = command.as_str();
        let ran = match process::run(&program, &environment, &input, self.deadline) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(Error::deadline_exceeded(wrong(format!(
                    "did not answer {name} within {} s and was killed",
                    self.deadline.as_secs_f64()
                ))));
            }
            Err(error) => {
                return Err(Error::io(wrong(format!("({}) failed at {name}", program.display())), error));
            }
            Ok(ran) => ran,
        };
        match ran.ended {
            Ended::Status(0) => Ok(ran.output),
            ended => Err(failure(ended, &ran).of(kind, name, network)),
        }
    }

    /// The variables that a plugin gets, and no other of this process.
    fn environment(&self, command: Command, target: Target<'_>) -> io::Result<Vec<CString>> {
        let folders = std::env::join_paths(&self.folders).unwrap_or_default();
        let arguments: Vec<String> =
            target.arguments.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let variables = [
            ("PATH", self.search_path.clone()),
            ("CNI_COMMAND", command.as_str().to_owned()),
            ("CNI_CONTAINERID", target.container.to_owned()),
            ("CNI_NETNS", target.namespace.to_owned()),
            ("CNI_IFNAME", target.interface.to_owned()),
            ("CNI_ARGS", arguments.join(";")),
        ];
        let mut all = Vec::new();
        for (name, value) in variables {
            all.push(c_string(format!("{name}={value}"))?);
        }
        let mut path = std::ffi::OsString::from("CNI_PATH=");
        path.push(folders);
        all.push(c_string(path)?);
        Ok(all)
    }
}

/// Why a plugin failed: its own words, or else what can be said from outside.
fn failure(ended: Ended, ran: &process::Ran) -> PluginError {
    let how = match ended {
        Ended::Status(code) => format!("it ended with status {code}"),
        Ended::Signal(signal) => format!("it was killed by signal {signal}"),
    };
    let own = serde_json::from_slice::<Value>(&ran.output)
        .ok()
        .filter(|value| value.get("code").is_some() || value.get("msg").is_some())
        .and_then(|value| serde_json::from_value::<PluginError>(value).ok());
    own.unwrap_or_else(|| PluginError {
        code: 0,
        message: match (excerpt(&ran.complaints), excerpt(&ran.output)) {
            (text, _) if !text.is_empty() => format!("{how}: {text}"),
            (_, text) if !text.is_empty() => format!("{how} and answered {text:?}"),
            _ => format!("{how} without a word"),
        },
        details: String::new(),
    })
}

/// The end of what a program wrote, as one line.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(EXCERPT)..]);
    text.trim().chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// The names of interfaces that the kernel takes.
pub(crate) fn check_interface(name: &str) -> Result<()> {
    let bad = |letter: char| letter == '/' || letter == ':' || letter.is_whitespace() || letter == '\0';
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(bad) {
        return Err(Error::new(ErrorKind::InvalidArgument, format!("{name:?} cannot name a network device")));
    }
    Ok(())
}

/// Whether a namespace's file is still there.
pub(crate) fn is_there(namespace: &Path) -> bool {
    !namespace.as_os_str().is_empty() && namespace.exists()
}
