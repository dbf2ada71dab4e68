//! `pods`: what a kubelet has this machine run, and where it hangs.

mod explain;
mod inspect;
mod ps;
mod pull;
mod underway;

use berth_client::{Client, Pods as Remote};
use berth_proto::runtime::v1 as proto;
use clap::{Args, Subcommand};
use serde::Deserialize;

use self::underway::Underway;
use crate::address::Place;
use crate::cli::Global;
use crate::failure::{Failure, Outcome};

/// Commands about pods.
#[derive(Debug, Subcommand)]
pub(crate) enum Pods {
    /// List pods, also those that are being made
    #[command(visible_aliases = ["ls", "list"])]
    Ps(ps::Ps),
    /// Show what is known of pods
    Inspect(inspect::Inspect),
    /// Say where a pod hangs, or what failed last
    Explain(explain::Explain),
    /// Fetch an image as a kubelet does
    Pull(pull::Pull),
}

/// One pod, as a user names it.
#[derive(Debug, Args)]
struct Name {
    /// NAMESPACE/NAME, NAME, or the beginning of an id
    #[arg(value_name = "POD")]
    pod: String,
}

impl Pods {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let place = Place::of(global)?;
        let client = Client::connect(&place.address);
        if !client.is_listening() {
            return Err(Failure::new(format!(
                "no daemon listens at {}: `berth system start` starts one, `--address SOCKET` names another",
                place.address.display()
            )));
        }
        let pods = client.pods();
        match self {
            Self::Ps(ps) => ps.run(&pods).await,
            Self::Inspect(inspect) => inspect.run(&pods).await,
            Self::Explain(explain) => explain.run(&pods).await,
            Self::Pull(pull) => pull.run(&client).await,
        }
    }
}

/// What a pod is known by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Found {
    id: String,
    namespace: String,
    name: String,
    attempt: u32,
}

impl Found {
    fn of(pod: &proto::PodSandbox) -> Self {
        let metadata = pod.metadata.clone().unwrap_or_default();
        Self {
            id: pod.id.clone(),
            namespace: metadata.namespace,
            name: metadata.name,
            attempt: metadata.attempt,
        }
    }

    /// Whether it is what a user means.
    fn is(&self, text: &str) -> bool {
        match text.split_once('/') {
            Some((namespace, name)) => namespace == self.namespace && name == self.name,
            None => self.name == text || (text.len() >= 4 && self.id.starts_with(text)),
        }
    }
}

/// The pod that a user means: the newest of those with a name in one namespace, for a kubelet keeps some that have ended.
async fn find(pods: &Remote, underway: &Underway, text: &str) -> Result<Option<Found>, Failure> {
    let mut listed = pods.list().await?;
    listed.sort_by_key(|pod| pod.created_at);
    let whole: Vec<Found> = listed.iter().map(Found::of).collect();
    choose(whole.into_iter().chain(underway.making.iter().cloned()), text)
}

/// The last of those that are meant.
fn choose(pods: impl Iterator<Item = Found>, text: &str) -> Result<Option<Found>, Failure> {
    let meant: Vec<Found> = pods.filter(|pod| pod.is(text)).collect();
    let Some(last) = meant.last().cloned() else { return Ok(None) };
    let other = meant.iter().find(|pod| (&pod.namespace, &pod.name) != (&last.namespace, &last.name));
    match other {
        Some(other) => Err(Failure::new(format!(
            "{text} is several pods, among them {}/{} and {}/{}: give NAMESPACE/NAME",
            other.namespace, other.name, last.namespace, last.name
        ))),
        None => Ok(Some(last)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(id: &str, namespace: &str, name: &str) -> Found {
        Found { id: id.to_owned(), namespace: namespace.to_owned(), name: name.to_owned(), attempt: 0 }
    }

    #[test]
    fn a_pod_is_found_by_its_name_with_or_without_namespace_and_by_its_id() {
        let all =
            [pod("abcd1", "default", "web"), pod("abcd2", "default", "web"), pod("ffff3", "kube", "dns")];
        let found = |text: &str| choose(all.iter().cloned(), text).unwrap().map(|pod| pod.id);
        assert_eq!(found("default/web").as_deref(), Some("abcd2"));
        assert_eq!(found("web").as_deref(), Some("abcd2"));
        assert_eq!(found("ffff").as_deref(), Some("ffff3"));
        assert_eq!(found("kube/web"), None);
        assert_eq!(found("fff"), None);
    }

    #[test]
    fn a_name_in_two_namespaces_is_ambiguous() {
        let all = [pod("abcd1", "default", "web"), pod("abcd2", "test", "web")];
        let failure = choose(all.into_iter(), "web").unwrap_err();
        assert!(failure.text.contains("default/web") && failure.text.contains("test/web"), "{failure}");
    }
}
