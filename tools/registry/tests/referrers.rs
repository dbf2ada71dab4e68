//! What refers to an image, on registries that know the question and on those that do not.

#![expect(clippy::unwrap_used, reason = "a test fails with what it did not expect")]

use std::time::Duration;

use berth_registry::{Access, Config, Registries};
use berth_types::{Descriptor, Digest, Error, ImageRef};
use testkit::registry::{Reply, Request, Standin};

fn subject() -> Digest {
    format!("sha256:{:064}", 1).parse().unwrap()
}

fn list() -> String {
    let one = |number: u8, kind: &str| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{number:064}","size":7,"artifactType":"{kind}"}}"#
        )
    };
    format!(r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#, one(2, "a/signature"), one(3, "a/sbom"))
}

async fn ask(
    script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    kind: Option<&str>,
) -> (Result<Vec<Descriptor>, Error>, Vec<String>) {
    let standin = Standin::start(script);
    let reference: ImageRef = format!("{}/a/b:1", standin.address()).parse().unwrap();
    let config = Config { pause: Duration::from_millis(1), retries: 1, ..Config::default() };
    let repository = Registries::new(config).repository(&reference, Access::Pull).unwrap();
    let found = repository.referrers(&subject(), kind).await;
    (found, standin.requests().into_iter().map(|request| request.target).collect())
}

#[tokio::test]
async fn a_registry_that_knows_referrers_is_asked_once_and_its_answer_filtered() {
    let (found, asked) = ask(|_| Reply::new(200, list()), None).await;
    assert_eq!(found.unwrap().len(), 2);
    assert_eq!(asked, [format!("/v2/a/b/referrers/{}", subject())]);
    let (found, asked) = ask(|_| Reply::new(200, list()), Some("a/sbom")).await;
    let found = found.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].artifact_type.as_deref(), Some("a/sbom"));
    assert_eq!(asked, [format!("/v2/a/b/referrers/{}?artifactType=a%2Fsbom", subject())]);
}

#[tokio::test]
async fn one_that_does_not_is_asked_for_the_tag_of_the_list() {
    let tag = format!("/v2/a/b/manifests/sha256-{:064}", 1);
    let known = tag.clone();
    let script = move |request: &Request| {
        if request.path() == known { Reply::new(200, list()) } else { Reply::new(404, "") }
    };
    let (found, asked) = ask(script, Some("a/signature")).await;
    assert_eq!(found.unwrap().len(), 1);
    assert_eq!(asked.last(), Some(&tag));
    let (found, _) = ask(|_| Reply::new(404, ""), None).await;
    assert!(found.unwrap().is_empty());
}

#[tokio::test]
async fn a_registry_that_fails_or_answers_nonsense_is_an_error() {
    let (found, _) = ask(|_| Reply::new(500, ""), None).await;
    assert!(found.unwrap_err().message().contains("500"));
    for nonsense in ["", "[1]", r#"{"manifests":[{"digest":"x"}]}"#] {
        let (found, _) = ask(move |_| Reply::new(200, nonsense), None).await;
        assert!(found.is_err(), "{nonsense}");
    }
    let (found, _) = ask(|_| Reply::new(200, vec![b' '; 5 << 20]), None).await;
    assert!(found.unwrap_err().chain().contains("more than"));
}
