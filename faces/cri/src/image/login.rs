//! Credentials that come with a request.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_core::{Login, Logins};
use berth_proto::runtime::v1 as proto;
use berth_types::{Error, Result};

/// A request's credentials, for the one host that they name or, without a name, for whichever is asked. Never shown.
pub(super) struct Given(pub(super) proto::AuthConfig);

#[async_trait]
impl Logins for Given {
    async fn login(&self, host: &str) -> Result<Option<Login>> {
        let proto::AuthConfig { username, password, auth, server_address, identity_token, registry_token } =
            &self.0;
        if !server_address.is_empty() && of_address(server_address) != host {
            return Ok(None);
        }
        if !username.is_empty() {
            return Ok(Some(Login::Password { user: username.clone(), password: password.clone() }));
        }
        if !identity_token.is_empty() {
            return Ok(Some(Login::Refresh(identity_token.clone())));
        }
        if !auth.is_empty() {
            return decode(auth).map(Some);
        }
        if !registry_token.is_empty() {
            return Ok(Some(Login::Bearer(registry_token.clone())));
        }
        Ok(None)
    }
}

/// The host, with its port, of an address such as `https://registry.example:5000/v1/`.
fn of_address(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

/// Docker's `USER:PASSWORD` in base64. What is wrong with it is said without showing it.
fn decode(auth: &str) -> Result<Login> {
    let invalid = || Error::invalid_argument("the request's auth is not USER:PASSWORD in base64");
    let text = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or_else(invalid)?;
    let (user, password) = text.split_once(':').ok_or_else(invalid)?;
    Ok(Login::Password { user: user.to_owned(), password: password.trim_matches('\0').to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn login(auth: proto::AuthConfig, host: &str) -> Option<String> {
        match Given(auth).login(host).await.unwrap() {
            Some(Login::Password { user, password }) => Some(format!("{user}/{password}")),
            Some(Login::Refresh(token)) => Some(format!("refresh {token}")),
            Some(Login::Bearer(token)) => Some(format!("bearer {token}")),
            None => None,
        }
    }

    #[tokio::test]
    async fn credentials_are_told_to_the_host_that_they_are_for_and_to_no_other() {
        let auth = proto::AuthConfig {
            username: "u".to_owned(),
            password: "p".to_owned(),
            server_address: "https://one.example:5000/v1/".to_owned(),
            ..Default::default()
        };
        assert_eq!(login(auth.clone(), "one.example:5000").await.as_deref(), Some("u/p"));
        for other in ["one.example", "two.example:5000", "one.example:5000.evil.example"] {
            assert_eq!(login(auth.clone(), other).await, None, "{other}");
        }
    }

    #[tokio::test]
    async fn every_form_of_credentials_is_understood() {
        let none = proto::AuthConfig::default();
        assert_eq!(login(none.clone(), "h").await, None);
        let auth = proto::AuthConfig { auth: STANDARD.encode("u:p:q"), ..none.clone() };
        assert_eq!(login(auth, "h").await.as_deref(), Some("u/p:q"));
        let token = proto::AuthConfig { identity_token: "t".to_owned(), ..none.clone() };
        assert_eq!(login(token, "h").await.as_deref(), Some("refresh t"));
        let bearer = proto::AuthConfig { registry_token: "b".to_owned(), ..none };
        assert_eq!(login(bearer, "h").await.as_deref(), Some("bearer b"));
    }

    #[tokio::test]
    async fn credentials_that_are_none_are_an_error_that_does_not_show_them() {
        let auth = proto::AuthConfig { auth: "c2VjcmV0".to_owned(), ..Default::default() };
        let error = Given(auth).login("h").await.err().unwrap().to_string();
        assert!(
            error.contains("USER:PASSWORD") && !error.contains("secret") && !error.contains("c2VjcmV0"),
            "{error}"
        );
    }
}
