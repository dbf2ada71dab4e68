//! `login`, `logout`, `search`: who we are to registries, and what they have.

use std::io::{BufRead, Read, Write};

use berth_registry::{Credentials, Secret, registry_name};
use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, isatty, tcgetattr, tcsetattr};
use serde_json::json;

use super::pull::registries;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::output::table::{self, Heads};

/// The registry where none is named.
const DEFAULT: &str = "docker.io";

const TABLE: &str = "table {{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}";
const HEADS: Heads<'_> =
    &[("Name", "NAME"), ("Description", "DESCRIPTION"), ("StarCount", "STARS"), ("IsOfficial", "OFFICIAL")];

/// Bytes of a password.
const LIMIT: u64 = 64 << 10;

/// Flags of `login`.
#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The name
    #[arg(short, long)]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Refused: every process of the machine could read it
    #[arg(short, long, hide = true)]
    password: Option<String>,
    /// The registry [default: docker.io]
    registry: Option<String>,
}

/// Flags of `logout`.
#[derive(Debug, Args)]
pub(crate) struct Logout {
    /// The registry [default: docker.io]
    registry: Option<String>,
}

/// Flags of `search`.
#[derive(Debug, Args)]
pub(crate) struct Search {
    /// How many at most
    #[arg(long, default_value_t = 25)]
    limit: usize,
    /// A template, or json
    #[arg(long)]
    format: Option<String>,
    /// Do not shorten descriptions
    #[arg(long)]
    no_trunc: bool,
    /// A part of a name; REGISTRY/PART asks another registry than Docker's
    term: String,
}

impl Login {
    pub(crate) async fn run(self) -> Outcome {
        if self.password.is_some() {
            return Err(Failure::new(
                "a password on the command line can be read by every process of this machine: use --password-stdin",
            ));
        }
        let registry = registry_name(self.registry.as_deref().unwrap_or(DEFAULT))?;
        let user = match self.username {
            Some(user) => user,
            None if self.password_stdin => return Err(Failure::new("--password-stdin needs --username")),
            None => ask("Username: ")?,
        };
        let password = if self.password_stdin { from_stdin()? } else { ask_hidden("Password: ")? };
        if user.is_empty() || password.is_empty() {
            return Err(Failure::new("a name and a password are needed"));
        }
        let credentials = Credentials::Password { user, password: Secret::new(password) };
        let place = registries().login(&registry, credentials).await?;
        eprintln!("The credentials are kept in {place}.");
        output::line("Login Succeeded")?;
        Ok(0)
    }
}

impl Logout {
    pub(crate) async fn run(self) -> Outcome {
        let registry = registry_name(self.registry.as_deref().unwrap_or(DEFAULT))?;
        if registries().logout(&registry).await? {
            output::line(&format!("Removing login credentials for {registry}"))?;
        } else {
            output::line(&format!("Not logged in to {registry}"))?;
        }
        Ok(0)
    }
}

impl Search {
    pub(crate) async fn run(self) -> Outcome {
        let (registry, term) = match self.term.split_once('/') {
            Some((host, term)) if host.contains(['.', ':']) || host == "localhost" => {
                (registry_name(host)?, term)
            }
            _ => (DEFAULT.to_owned(), self.term.as_str()),
        };
        let hits = registries().search(&registry, term, self.limit).await?;
        let mut rows = Vec::with_capacity(hits.len());
        for hit in hits {
            let name = shown(&hit.name);
            let name = if registry == DEFAULT { name } else { format!("{registry}/{name}") };
            let mut description = shown(&hit.description);
            if !self.no_trunc && description.chars().count() > 45 {
                description = description.chars().take(44).chain(['…']).collect();
            }
            let official = if hit.official { "[OK]" } else { "" };
            let stars = hit.stars.to_string();
            rows.push(json!({ "Name": name, "Description": description, "StarCount": stars, "IsOfficial": official }));
        }
        table::print(&rows, self.format.as_deref(), TABLE, HEADS)?;
        Ok(0)
    }
}

/// What a registry says, without what a terminal would obey.
fn shown(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).collect()
}

fn from_stdin() -> Result<String, Failure> {
    let mut password = String::new();
    std::io::stdin().lock().take(LIMIT).read_to_string(&mut password)?;
    Ok(password.trim_end_matches(['\n', '\r']).to_owned())
}

fn ask(question: &str) -> Result<String, Failure> {
    if !isatty(std::io::stdin()) {
        return Err(Failure::new("this is no terminal: use --username and --password-stdin"));
    }
    eprint!("{question}");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim_end_matches(['\n', '\r']).to_owned())
}

/// The same without showing what is typed. Ctrl-C ends the line instead of this program, which could not bring the
/// echo back any more.
fn ask_hidden(question: &str) -> Result<String, Failure> {
    const CTRL_C: u8 = 3;
    if !isatty(std::io::stdin()) {
        return Err(Failure::new("this is no terminal: use --username and --password-stdin"));
    }
    let before = tcgetattr(std::io::stdin()).map_err(std::io::Error::from)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
    hidden.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
    tcsetattr(std::io::stdin(), OptionalActions::Drain, &hidden).map_err(std::io::Error::from)?;
    eprint!("{question}");
    // A terminal gives a whole line at once, and none is longer.
    let mut line = [0; 4096];
    let read = rustix::io::read(std::io::stdin(), &mut line);
    tcsetattr(std::io::stdin(), OptionalActions::Drain, &before).map_err(std::io::Error::from)?;
    eprintln!();
    let line = &line[..read.map_err(std::io::Error::from)?];
    if line.contains(&CTRL_C) {
        return Err(Failure::new("no password was given"));
    }
    Ok(String::from_utf8_lossy(line).trim_end_matches(['\n', '\r']).to_owned())
}
