//! Docker's `config.json`, written: credentials come and go, everything else in it stays as it is.

use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine;
use berth_types::{Error, Result};
use serde_json::{Map, Value, json};

use crate::credentials::{Credentials, LIMIT, key, program, run};

/// Stores credentials where the file says that they are kept: with a helper, else in it. Answers where.
pub(crate) async fn store(path: &Path, registry: &str, credentials: &Credentials) -> Result<String> {
    let mut file = read(path)?;
    let key = key(registry);
    let (user, secret) = match credentials {
        Credentials::Password { user, password } => (user.as_str(), password),
        Credentials::Identity(token) => ("<token>", token),
        Credentials::Bearer(_) => {
            return Err(Error::invalid_argument("a registry's own token is not stored"));
        }
    };
    if let Some(helper) = helper(&file, registry) {
        let input = json!({ "ServerURL": key, "Username": user, "Secret": secret.expose() }).to_string();
        run(&helper, "store", key, &input).await?;
        // So that Docker knows that there are some.
        auths(&mut file).insert(key.to_owned(), json!({}));
        write(path, &file)?;
        return Ok(program(&helper));
    }
    let entry = if matches!(credentials, Credentials::Identity(_)) {
        json!({ "identitytoken": secret.expose() })
    } else {
        let plain = format!("{user}:{}", secret.expose());
        json!({ "auth": base64::engine::general_purpose::STANDARD.encode(plain) })
    };
    auths(&mut file).insert(key.to_owned(), entry);
    write(path, &file)?;
    Ok(path.display().to_string())
}

/// Forgets credentials; answers whether there were any.
pub(crate) async fn erase(path: &Path, registry: &str) -> Result<bool> {
    let mut file = read(path)?;
    let key = key(registry);
    let helper = helper(&file, registry);
    let mut found = false;
    if let Some(helper) = helper {
        found = run(&helper, "get", key, key).await?.is_some();
        if found {
            run(&helper, "erase", key, key).await?;
        }
    }
    let present = file.contains_key("auths");
    let auths = auths(&mut file);
    let removed = [key, registry, &format!("https://{registry}"), &format!("http://{registry}")]
        .iter()
        .filter(|key| auths.remove(**key).is_some())
        .count();
    if present && removed > 0 {
        write(path, &file)?;
    }
    Ok(found || removed > 0)
}

fn helper(file: &Map<String, Value>, registry: &str) -> Option<String> {
    let own = file.get("credHelpers").and_then(|helpers| helpers.get(registry));
    let named = own.or_else(|| file.get("credsStore")).and_then(Value::as_str)?;
    (!named.is_empty()).then(|| named.to_owned())
}

fn auths(file: &mut Map<String, Value>) -> &mut Map<String, Value> {
    let entry = file.entry("auths").or_insert_with(|| json!({}));
    if !entry.is_object() {
        *entry = json!({});
    }
    entry.as_object_mut().expect("it was made an object just now")
}

fn read(path: &Path) -> Result<Map<String, Value>> {
    let failed = |error| Error::io(format!("cannot read {}", path.display()), error);
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut text = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > LIMIT {
        let text = format!("{} has more than {LIMIT} bytes and is not rewritten", path.display());
        return Err(Error::resource_exhausted(text));
    }
    serde_json::from_slice(&text).map_err(|source| {
        Error::invalid_argument(format!("{} is not a Docker configuration", path.display())).caused_by(source)
    })
}

/// Puts a new file in the place of the old one, whole or not at all; nobody else may read it.
fn write(path: &Path, file: &Map<String, Value>) -> Result<()> {
    let failed = |error| Error::io(format!("cannot write {}", path.display()), error);
    let text = serde_json::to_vec_pretty(file)
        .map_err(|source| Error::internal("cannot write JSON").caused_by(source))?;
    // The file may be a link to where it really is.
    let place = match std::fs::read_link(path) {
        Ok(target) => path.parent().unwrap_or(Path::new(".")).join(target),
        Err(_) => path.to_owned(),
    };
    let folder = place.parent().unwrap_or(Path::new("."));
    let new = place.with_extension(format!("json-{}", std::process::id()));
    let put = || {
        if !folder.exists() {
            std::fs::create_dir_all(folder)?;
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
        }
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&new, &place)
    };
    put().inspect_err(|_| drop(std::fs::remove_file(&new))).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::{Secret, find};
    use crate::{Config, registry_name};

    fn password(user: &str, text: &str) -> Credentials {
        Credentials::Password { user: user.into(), password: Secret::new(text) }
    }

    #[tokio::test]
    async fn a_file_without_end_is_neither_read_nor_written() {
        let scratch = testkit::Scratch::new();
        let path = scratch.file("config.json", "{}");
        std::fs::File::options().write(true).open(&path).unwrap().set_len(LIMIT + 1).unwrap();
        let error = store(&path, "r.test", &password("me", "word")).await.unwrap_err();
        assert_eq!(error.kind(), berth_types::ErrorKind::ResourceExhausted);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), LIMIT + 1);
    }

    #[tokio::test]
    async fn credentials_come_and_go_and_everything_else_stays() {
        let scratch = testkit::Scratch::new();
        let path =
            scratch.file("config.json", r#"{"HttpHeaders":{"a":"b"},"auths":{"x.test":{"auth":"eDp5"}}}"#);
        let config = Config { docker: Some(path.clone()), ..Config::default() };
        for typed in ["r.test:5000", "https://index.docker.io/v1/"] {
            let registry = registry_name(typed).unwrap();
            assert!(!erase(&path, &registry).await.unwrap());
            store(&path, &registry, &password("me", "pass:word")).await.unwrap();
            let found = find(&config, &registry, None).await.unwrap().unwrap();
            assert!(found.credentials == password("me", "pass:word"));
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(erase(&path, &registry).await.unwrap());
            assert!(find(&config, &registry, None).await.unwrap().is_none());
        }
        let left: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(left, json!({ "HttpHeaders": { "a": "b" }, "auths": { "x.test": { "auth": "eDp5" } } }));
    }
}
