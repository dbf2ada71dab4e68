//! Who we are to a registry: Docker's `config.json`, and the helper programs that it names.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use berth_types::{Error, Result};
use futures::future::BoxFuture;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::config::Config;
pub(crate) use crate::docker::{erase, store};

/// A text that is never shown: neither `Debug` nor `Display` exist.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for a request.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

/// Who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token that a token service takes for new ones.
    Identity(Secret),
    /// A token that the registry itself takes.
    Bearer(Secret),
}

/// Knows credentials by host (with its port, if it has one); Docker's registry is `registry-1.docker.io`.
pub type Ask = Arc<dyn Fn(String) -> BoxFuture<'static, Result<Option<Credentials>>> + Send + Sync>;

/// Bytes of `config.json`, and of a helper's answer.
pub(crate) const LIMIT: u64 = 1 << 20;

/// A helper may ask its user's keyring, but not for ever.
const HELPER: Duration = Duration::from_secs(30);

/// The key under which Docker keeps a registry's credentials.
pub(crate) fn key(registry: &str) -> &str {
    if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default)]
    creds_store: String,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Auth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
    #[serde(default)]
    registrytoken: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Credentials, and where they are from.
pub(crate) struct Found {
    pub(crate) credentials: Credentials,
    pub(crate) from: String,
}

impl Found {
    /// In words without a secret.
    pub(crate) fn shown(&self) -> String {
        let what = match &self.credentials {
            Credentials::Password { user, .. } => format!("user {user}"),
            Credentials::Identity(_) => "an identity token".to_owned(),
            Credentials::Bearer(_) => "a registry token".to_owned(),
        };
        format!("{what}, from {}", self.from)
    }
}

/// The credentials for a registry as references name it, if there are any: those of the client, those given, those of
/// the helper that the host's settings name, those of Docker's configuration.
pub(crate) async fn find(config: &Config, host: &str, helper: Option<&str>) -> Result<Option<Found>> {
    let found = |from: String| move |credentials| Found { credentials, from };
    if let Some(ask) = &config.ask {
        let asked = if host == "docker.io" { "registry-1.docker.io" } else { host };
        if let Some(credentials) = ask(asked.to_owned()).await? {
            return Ok(Some(found("the client".to_owned())(credentials)));
        }
    }
    if let Some(credentials) = config.credentials.get(host) {
        return Ok(Some(found("the command".to_owned())(credentials.clone())));
    }
    if let Some(helper) = helper {
        return Ok(ask(helper, host).await?.map(found(program(helper))));
    }
    let Some(path) = &config.docker else { return Ok(None) };
    let Some(file) = read(path).await? else { return Ok(None) };
    if let Some(helper) = file.cred_helpers.get(host) {
        return Ok(ask(helper, host).await?.map(found(program(helper))));
    }
    let key = key(host);
    if !file.creds_store.is_empty()
        && let Some(credentials) = ask(&file.creds_store, key).await?
    {
        return Ok(Some(found(program(&file.creds_store))(credentials)));
    }
    Ok(stored(&file, host, path)?.map(found(path.display().to_string())))
}

/// The program that is a helper.
pub(crate) fn program(helper: &str) -> String {
    format!("docker-credential-{helper}")
}

async fn read(path: &Path) -> Result<Option<File>> {
    let failed = |source| Error::io(format!("cannot read {}", path.display()), source);
    let file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = Vec::new();
    file.take(LIMIT).read_to_end(&mut text).await.map_err(failed)?;
    serde_json::from_slice(&text).map(Some).map_err(|source| {
        Error::invalid_argument(format!("{} is not a Docker configuration", path.display())).caused_by(source)
    })
}

/// An entry of `auths`, whose keys are hosts or old URLs.
fn stored(file: &File, host: &str, path: &Path) -> Result<Option<Credentials>> {
    let names = |key: &str| {
        let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
        let bare = bare.split('/').next().unwrap_or(bare);
        bare == host || (host == "docker.io" && matches!(bare, "index.docker.io" | "registry-1.docker.io"))
    };
    let exact = file.auths.get(host);
    let Some(auth) = exact.or_else(|| file.auths.iter().find(|(key, _)| names(key)).map(|(_, auth)| auth))
    else {
        return Ok(None);
    };
    if !auth.identitytoken.is_empty() {
        return Ok(Some(Credentials::Identity(Secret::new(&auth.identitytoken))));
    }
    if !auth.registrytoken.is_empty() {
        return Ok(Some(Credentials::Bearer(Secret::new(&auth.registrytoken))));
    }
    if !auth.auth.is_empty() {
        // The cause of a failure would show a part of the secret.
        let bad =
            || Error::invalid_argument(format!("the entry of {host} in {} is not valid", path.display()));
        let plain = base64::engine::general_purpose::STANDARD.decode(auth.auth.trim()).map_err(|_| bad())?;
        let plain = String::from_utf8(plain).map_err(|_| bad())?;
        let (user, password) = plain.split_once(':').ok_or_else(bad)?;
        let password = Secret::new(password.trim_end_matches('\0'));
        return Ok(Some(Credentials::Password { user: user.to_owned(), password }));
    }
    if auth.username.is_empty() {
        return Ok(None);
    }
    let password = Secret::new(&auth.password);
    Ok(Some(Credentials::Password { user: auth.username.clone(), password }))
}

/// Runs `docker-credential-NAME get`. A helper that knows nothing says so and fails; that is no error.
async fn ask(name: &str, server: &str) -> Result<Option<Credentials>> {
    let Some(answer) = run(name, "get", server, server).await? else { return Ok(None) };
    let answer: Answer = serde_json::from_slice(&answer)
        .map_err(|_| Error::unknown(format!("the answer of {} for {server} is not valid", program(name))))?;
    Ok(match (answer.username.as_str(), answer.secret) {
        (_, secret) if secret.is_empty() => None,
        ("<token>", secret) => Some(Credentials::Identity(Secret(secret))),
        (user, secret) => Some(Credentials::Password { user: user.to_owned(), password: Secret(secret) }),
    })
}

/// Runs a helper with `input`; nothing if it says that it knows no such credentials.
pub(crate) async fn run(name: &str, action: &str, server: &str, input: &str) -> Result<Option<Vec<u8>>> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(Error::invalid_argument(format!("{name:?} is not the name of a credential helper")));
    }
    let program = program(name);
    let running = async {
        let mut child = Command::new(&program)
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that does not read has its reasons; its answer tells.
            drop(stdin.write_all(input.as_bytes()).await);
        }
        let mut answer = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(LIMIT).read_to_end(&mut answer).await?;
        }
        std::io::Result::Ok((child.wait().await?, answer))
    };
    let (status, answer) = tokio::time::timeout(HELPER, running)
        .await
        .map_err(|_| Error::deadline_exceeded(format!("{program} did not answer in time")))?
        .map_err(|source| Error::io(format!("cannot run {program}"), source))?;
    if !status.success() {
        let text = String::from_utf8_lossy(&answer);
        if text.contains("credentials not found") {
            return Ok(None);
        }
        return Err(Error::unknown(format!("{program} failed for {server}")));
    }
    Ok(Some(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored_as(json: &str, host: &str) -> Option<(String, String)> {
        let file: File = serde_json::from_str(json).unwrap();
        match stored(&file, host, Path::new("config.json")).unwrap()? {
            Credentials::Password { user, password } => Some((user, password.expose().to_owned())),
            Credentials::Identity(secret) | Credentials::Bearer(secret) => {
                Some((String::new(), secret.expose().to_owned()))
            }
        }
    }

    #[test]
    fn dockers_entries_are_found_by_host_and_by_old_url() {
        let json = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6cGFzczp3b3Jk"},
            "r.test:5000":{"username":"u","password":"p"},"https://old.test/v1/":{"identitytoken":"t"}}}"#;
        assert_eq!(stored_as(json, "docker.io"), Some(("me".into(), "pass:word".into())));
        assert_eq!(stored_as(json, "r.test:5000"), Some(("u".into(), "p".into())));
        assert_eq!(stored_as(json, "old.test"), Some((String::new(), "t".into())));
        assert_eq!(stored_as(json, "r.test"), None);
    }

    #[test]
    fn a_broken_entry_is_named_without_its_secret() {
        let file: File = serde_json::from_str(r#"{"auths":{"r.test":{"auth":"c2VjcmV0!"}}}"#).unwrap();
        let Err(error) = stored(&file, "r.test", Path::new("config.json")) else { panic!("it is broken") };
        assert!(!error.chain().contains("c2Vj"));
    }
}
