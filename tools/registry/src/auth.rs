//! Answers to a registry's challenges: names and passwords, and tokens from token services (Docker's token
//! specification).
//!
//! Credentials go to the registry that asks in its own name, and to a token service in the registry's own domain
//! (or one that the configuration names), over TLS unless the registry itself has none. Any other service is asked
//! without them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use berth_types::{Error, ErrorKind, Result};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, Url};
use serde::Deserialize;

use crate::challenge::{self, Challenge};
use crate::config::Config;
use crate::credentials::{self, Credentials, Secret};
use crate::exchange::{self, same_origin};
use crate::hosts::{Host, is_loopback};
use crate::pace::Pace;
use crate::registries::{Shared, Waits};
use crate::transcript::{self, Bodies};

/// A token that does not say so is good for a minute, as the specification has it.
const SHORT: Duration = Duration::from_mins(1);

/// A token is not used in its last seconds.
const MARGIN: Duration = Duration::from_secs(5);

/// Bytes of a token service's answer.
const ANSWER: usize = 1 << 20;

/// What a token is for: the host and the scope.
type Key = (String, String);

/// The headers that were good last.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<HashMap<Key, Arc<tokio::sync::Mutex<Option<Held>>>>>);

#[derive(Clone)]
struct Held {
    header: HeaderValue,
    until: Option<Instant>,
}

/// Whom requests are for.
#[derive(Clone, Copy)]
pub(crate) struct Party<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) host: &'a Host,
    /// The registry as references name it, or the mirror's own name: where credentials are looked up.
    pub(crate) account: &'a str,
    /// Such as `repository:library/busybox:pull`.
    pub(crate) scope: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expires_in: u64,
}

impl Party<'_> {
    fn slot(&self) -> Arc<tokio::sync::Mutex<Option<Held>>> {
        let key = (self.host.base.to_string(), self.scope.to_owned());
        let mut slots = self.shared.tokens.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(key).or_default())
    }

    /// The header that was good last, if it still is.
    pub(crate) async fn header(&self) -> Option<HeaderValue> {
        let slot = self.slot();
        let held = slot.lock().await.clone()?;
        held.until.is_none_or(|until| Instant::now() < until).then_some(held.header)
    }

    /// Answers the challenge of a response to a request that had `stale`. Whoever comes second takes the first
    /// one's answer.
    pub(crate) async fn answer(
        &self,
        response: &HeaderMap,
        stale: Option<&HeaderValue>,
    ) -> Result<HeaderValue> {
        let slot = self.slot();
        let mut held = slot.lock().await;
        if let Some(other) = &*held
            && stale != Some(&other.header)
        {
            return Ok(other.header.clone());
        }
        let headers = response.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<Challenge> = headers.flat_map(challenge::parse).collect();
        let found = credentials::find(&self.shared.config, self.account, self.host.helper.as_deref()).await?;
        let credentials = found.map(|found| found.credentials);
        let fresh = self.meet(&challenges, credentials, stale.is_some()).await?;
        let header = fresh.header.clone();
        *held = Some(fresh);
        Ok(header)
    }

    async fn meet(
        &self,
        challenges: &[Challenge],
        credentials: Option<Credentials>,
        refused: bool,
    ) -> Result<Held> {
        if let Some(Credentials::Bearer(token)) = &credentials
            && !refused
        {
            return Ok(Held { header: bearer(token.expose())?, until: None });
        }
        let bearers = challenges.iter().filter(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        for challenge in bearers.chain(challenges) {
            match challenge {
                Challenge::Bearer { realm, service, scope } => {
                    let scope = if scope.is_empty() { self.scope } else { scope };
                    return self.token(realm, service, scope, credentials).await;
                }
                Challenge::Basic => {
                    if let Some(Credentials::Password { user, password }) = &credentials
                        && !refused
                    {
                        return Ok(Held { header: basic(user, password)?, until: None });
                    }
                }
            }
        }
        Err(Error::unauthenticated(match (credentials.is_some(), challenges.is_empty()) {
            (true, false) => format!("{} does not accept the stored credentials", self.account),
            (false, false) => {
                format!("{} wants credentials; give them with `berth login {0}`", self.account)
            }
            (_, true) => format!("{} refuses without saying what it wants", self.account),
        }))
    }

    async fn token(
        &self,
        realm: &str,
        service: &str,
        scope: &str,
        credentials: Option<Credentials>,
    ) -> Result<Held> {
        let bad = |why: &str| {
            Error::permission_denied(format!("{} names the token service {realm:?}, {why}", self.account))
        };
        let mut url = Url::parse(realm).map_err(|_| bad("which is no address"))?;
        if !is_safe(&url, &self.host.base) {
            return Err(bad("which has no TLS"));
        }
        let trusted = is_trusted(&self.shared.config, &url, &self.host.base);
        let withheld = credentials.is_some() && !trusted;
        let credentials = credentials.filter(|_| trusted);
        let asked = Instant::now();
        let response = if let Some(Credentials::Identity(token)) = &credentials {
            let form = [
                ("grant_type", "refresh_token"),
                ("service", service),
                ("client_id", "berth"),
                ("scope", scope),
                ("refresh_token", token.expose()),
            ];
            self.ask(Method::POST, url, None, Some(encode(&form))).await
        } else {
            let header = match &credentials {
                Some(Credentials::Password { user, password }) => {
                    url.query_pairs_mut().append_pair("account", user);
                    Some(basic(user, password)?)
                }
                _ => None,
            };
            if !service.is_empty() {
                url.query_pairs_mut().append_pair("service", service);
            }
            for one in scope.split(' ').filter(|one| !one.is_empty()) {
                url.query_pairs_mut().append_pair("scope", one);
            }
            self.ask(Method::GET, url, header, None).await
        };
        let answer = response.map_err(|error| {
            if !withheld {
                return error;
            }
            error.context(format!(
                "the token service {realm} is not in the domain of {} and was not given its credentials; if it is to have them, name it in the configuration",
                self.account
            ))
        })?;
        let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
        if token.is_empty() {
            return Err(Error::unauthenticated(format!("the token service {realm} gave no token")));
        }
        let good =
            if answer.expires_in == 0 { SHORT } else { Duration::from_secs(answer.expires_in.min(86_400)) };
        Ok(Held { header: bearer(&token)?, until: Some(asked + good.saturating_sub(MARGIN)) })
    }

    async fn ask(
        &self,
        method: Method,
        url: Url,
        authorization: Option<HeaderValue>,
        form: Option<String>,
    ) -> Result<Answer> {
        let shown = format!("{}{}", url.origin().ascii_serialization(), url.path());
        let own = same_origin(&url, &self.host.base);
        let waits = Waits::ForAnswers;
        let client =
            if own { self.shared.client(self.host, waits)? } else { self.shared.foreign_client(waits)? };
        let mut request = client.request(method, url);
        if let Some(header) = authorization {
            request = request.header(AUTHORIZATION, header);
        }
        if let Some(form) = form {
            let kind = "application/x-www-form-urlencoded";
            request = request.header(reqwest::header::CONTENT_TYPE, kind).body(form);
        }
        let unreachable =
            |source| Error::unavailable(format!("cannot reach the token service {shown}")).caused_by(source);
        let request = request.build().map_err(|source| unreachable(exchange::unreachable(source)))?;
        let sent = transcript::execute(&self.shared.config, &client, request, Bodies::Hidden).await;
        let mut response = sent.map_err(unreachable)?;
        let status = response.status();
        let body =
            exchange::bounded(&mut response, ANSWER, Pace::of(&self.shared.config)).await.unwrap_or_default();
        if !status.is_success() {
            let kind = match crate::attempt::kind(status) {
                ErrorKind::Unknown | ErrorKind::InvalidArgument => ErrorKind::Unauthenticated,
                kind => kind,
            };
            let outcome = crate::attempt::outcome(status, &body);
            return Err(Error::new(kind, format!("the token service {shown} answered {outcome}")));
        }
        // The cause of a failure would show a part of the token.
        serde_json::from_slice(&body)
            .map_err(|_| Error::unknown(format!("the answer of the token service {shown} is not valid")))
    }
}

fn encode(form: &[(&str, &str)]) -> String {
    let mut url = Url::parse("form:///").expect("a constant address");
    url.query_pairs_mut().extend_pairs(form);
    url.query().unwrap_or_default().to_owned()
}

fn basic(user: &str, password: &Secret) -> Result<HeaderValue> {
    let plain = format!("{user}:{}", password.expose());
    sensitive(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(plain)))
}

fn bearer(token: &str) -> Result<HeaderValue> {
    sensitive(format!("Bearer {token}"))
}

fn sensitive(text: String) -> Result<HeaderValue> {
    let mut header = HeaderValue::try_from(text)
        .map_err(|_| Error::unauthenticated("the token or password has characters that cannot be sent"))?;
    header.set_sensitive(true);
    Ok(header)
}

/// A registry with TLS has a token service with TLS; one on this machine may do without.
fn is_safe(realm: &Url, registry: &Url) -> bool {
    match realm.scheme() {
        "https" => true,
        "http" => {
            let Some(host) = realm.host_str() else { return false };
            registry.scheme() == "http" && (is_loopback(host) || registry.host_str() == Some(host))
        }
        _ => false,
    }
}

/// Whether a token service may be given a registry's credentials.
fn is_trusted(config: &Config, realm: &Url, registry: &Url) -> bool {
    let (Some(realm), Some(registry)) = (realm.host_str(), registry.host_str()) else { return false };
    if realm == registry || config.realms.iter().any(|trusted| trusted == realm) {
        return true;
    }
    let domain = |host: &str| {
        let is_name =
            host.rsplit('.').next().is_some_and(|last| last.bytes().any(|byte| byte.is_ascii_alphabetic()));
        let mut labels = host.rsplit('.');
        match (labels.next(), labels.next()) {
            (Some(top), Some(second)) if is_name && !host.starts_with('[') => Some(format!("{second}.{top}")),
            _ => None,
        }
    };
    domain(realm).is_some_and(|found| domain(registry) == Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_token_service_of_the_registrys_domain_is_given_credentials() {
        let trusted = |realm: &str, registry: &str| {
            is_trusted(&Config::default(), &Url::parse(realm).unwrap(), &Url::parse(registry).unwrap())
        };
        assert!(trusted("https://auth.docker.io/token", "https://registry-1.docker.io"));
        assert!(trusted("https://gitlab.com/jwt/auth", "https://registry.gitlab.com"));
        assert!(trusted("http://127.0.0.1:1/token", "http://127.0.0.1:2"));
        assert!(!trusted("https://docker.io.evil.test/token", "https://registry-1.docker.io"));
        assert!(!trusted("https://10.0.0.1/token", "https://10.1.0.1"));
        assert!(!trusted("https://evil/token", "https://registry"));
    }

    #[test]
    fn a_token_service_without_tls_is_only_for_a_registry_without() {
        let safe = |realm: &str, registry: &str| {
            is_safe(&Url::parse(realm).unwrap(), &Url::parse(registry).unwrap())
        };
        assert!(safe("https://a.test", "https://b.test"));
        assert!(safe("http://127.0.0.1:1", "http://127.0.0.1:2"));
        assert!(!safe("http://a.test", "https://a.test"));
        assert!(!safe("http://a.test", "http://127.0.0.1"));
        assert!(!safe("file:///etc/passwd", "http://127.0.0.1"));
    }
}
