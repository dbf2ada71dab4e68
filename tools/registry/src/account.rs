//! Logging in and out, and what a registry can be asked for as a whole.

use berth_types::{Error, ErrorKind, Result};
use reqwest::header::LINK;
use reqwest::{Method, Response, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::attempt::failed;
use crate::auth::Party;
use crate::credentials::{self, Credentials};
use crate::exchange::{self, Call};
use crate::hosts::{Capability, Host};
use crate::pace::Pace;
use crate::registries::{Registries, Waits};

/// Bytes of a page of results.
const PAGE: usize = 8 << 20;

/// Pages of a catalog that are read for a search.
const PAGES: usize = 100;

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Hit {
    /// The repository, without the registry.
    pub name: String,
    /// What its owner says of it; registries other than Docker's say nothing.
    #[serde(default)]
    pub description: String,
    /// How many like it.
    #[serde(default, rename = "star_count")]
    pub stars: u64,
    /// Whether Docker itself looks after it.
    #[serde(default, rename = "is_official")]
    pub official: bool,
}

#[derive(Deserialize)]
struct Hits {
    results: Vec<Hit>,
}

#[derive(Deserialize)]
struct Catalog {
    #[serde(default)]
    repositories: Vec<String>,
}

/// A registry as references name it, from what somebody types: `https://index.docker.io/v1/` is `docker.io`.
pub fn registry_name(typed: &str) -> Result<String> {
    let bare = typed.split_once("://").map_or(typed, |(_, behind)| behind);
    let bare = bare.split('/').next().unwrap_or(bare);
    let parsed = Url::parse(&format!("https://{bare}")).ok();
    let plain = parsed.is_some_and(|url| url.host_str().is_some() && url.username().is_empty());
    if bare.is_empty() || !plain {
        return Err(Error::invalid_argument(format!(
            "{typed:?} is not a registry such as registry.example:5000"
        )));
    }
    Ok(match bare {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        bare => bare.to_ascii_lowercase(),
    })
}

impl Registries {
    /// Shows credentials to a registry and, if it takes them, stores them as Docker does: with the helper that the
    /// user's Docker configuration names, else in that file. Answers where they are now.
    pub async fn login(&self, registry: &str, given: Credentials) -> Result<String> {
        let mut config = self.shared.config.clone();
        config.credentials.insert(registry.to_owned(), given.clone());
        let path = config.docker.clone();
        Registries::new(config).call(registry, "cannot log in to", "", "").await?;
        let path = path
            .ok_or_else(|| Error::failed_precondition("there is no Docker configuration to store them in"))?;
        credentials::store(&path, registry, &given).await
    }

    /// Forgets a registry's credentials; answers whether there were any.
    pub async fn logout(&self, registry: &str) -> Result<bool> {
        match &self.shared.config.docker {
            Some(path) => credentials::erase(path, registry).await,
            None => Ok(false),
        }
    }

    /// Repositories of a registry that have `term` in their name: by the search of Docker's, by the catalog of any
    /// other one.
    pub async fn search(&self, registry: &str, term: &str, limit: usize) -> Result<Vec<Hit>> {
        if registry == "docker.io" {
            return self.search_hub(term, limit).await;
        }
        let mut hits = Vec::new();
        let mut rest = "_catalog?n=1000".to_owned();
        for _ in 0..PAGES {
            let what = "cannot search";
            let mut response = self.call(registry, what, &rest, "registry:catalog:*").await?;
            let next = next_page(&response);
            let page: Catalog = self.json(registry, &mut response).await?;
            let found = page.repositories.into_iter().filter(|name| name.contains(term));
            hits.extend(found.map(|name| Hit { name, ..Hit::default() }));
            match next {
                Some(next) if hits.len() < limit => rest = next,
                _ => break,
            }
        }
        hits.truncate(limit);
        Ok(hits)
    }

    async fn search_hub(&self, term: &str, limit: usize) -> Result<Vec<Hit>> {
        let url = Url::parse_with_params(
            "https://index.docker.io/v1/search",
            [("q", term), ("n", &limit.to_string())],
        );
        let url =
            url.map_err(|source| Error::invalid_argument("a term that cannot be sent").caused_by(source))?;
        let sent = self.shared.foreign_client(Waits::ForAnswers)?.get(url).send().await;
        let mut response =
            sent.map_err(|error| exchange::unreachable(error).context("cannot search docker.io"))?;
        if !response.status().is_success() {
            let text = crate::attempt::outcome(response.status(), b"");
            let kind = crate::attempt::kind(response.status());
            return Err(Error::new(kind, format!("cannot search docker.io: {text}")));
        }
        Ok(self.json::<Hits>("docker.io", &mut response).await?.results)
    }

    async fn json<T: DeserializeOwned>(&self, registry: &str, response: &mut Response) -> Result<T> {
        let body = exchange::bounded(response, PAGE, Pace::of(&self.shared.config)).await;
        let body = body.map_err(|error| error.context(format!("cannot search {registry}")))?;
        serde_json::from_slice(&body).map_err(|source| {
            Error::unknown(format!("the answer of {registry} is not valid")).caused_by(source)
        })
    }

    /// Asks the registry itself, not its mirrors, for something below `/v2/`.
    async fn call(&self, registry: &str, what: &str, rest: &str, scope: &str) -> Result<Response> {
        let hosts = self.hosts(registry)?;
        let own = |host: &&Host| !host.mirror && host.capabilities.contains(&Capability::Resolve);
        let mut asked: Vec<&Host> = hosts.iter().filter(own).collect();
        if asked.is_empty() {
            asked = hosts.iter().collect();
        }
        let mut failures = Vec::new();
        for host in asked {
            let base = format!("{}{}/{rest}", host.base.origin().ascii_serialization(), host.path);
            let url = Url::parse(&base).map_err(|source| {
                Error::invalid_argument(format!("{base} is no address")).caused_by(source)
            })?;
            let party = Party { shared: &self.shared, host, account: registry, scope };
            match exchange::send(party, &Call::new(Method::GET, url)).await {
                Ok(response) => return Ok(response),
                Err(failure) => failures.push(failure),
            }
        }
        let error = failed(&format!("{what} {registry}"), failures);
        if error.kind() == ErrorKind::NotFound {
            return Err(
                Error::not_implemented(format!("{registry} cannot be asked for that")).caused_by(error)
            );
        }
        Err(error)
    }
}

/// What comes after `/v2/` in the address of the next page.
fn next_page(response: &Response) -> Option<String> {
    let link = response.headers().get(LINK)?.to_str().ok()?;
    let (address, attributes) = link.strip_prefix('<')?.split_once('>')?;
    let next = attributes.contains("rel=\"next\"") || attributes.contains("rel=next");
    let rest = address.rsplit_once("/v2/").map_or(address, |(_, rest)| rest);
    (next && rest.starts_with("_catalog?")).then(|| rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_named_as_references_name_them() {
        for (typed, name) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
            ("http://R.test:5000/x", "r.test:5000"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
        ] {
            assert_eq!(registry_name(typed).unwrap(), name);
        }
        for bad in ["", "https://", "a b", "user@host"] {
            assert!(registry_name(bad).is_err(), "{bad}");
        }
    }
}
