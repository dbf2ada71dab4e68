//! What refers to an image, on registries that know the question and on those that do not.

#![expect(clippy::unwrap_used, reason = "a test fails with what it did not expect")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
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

/// Manifests by the path under which they were put.
type Kept = BTreeMap<String, Vec<u8>>;

/// A registry that keeps manifests, and may keep lists of referrers.
fn keeping(kept: Arc<Mutex<Kept>>, lists: bool) -> impl Fn(&Request) -> Reply {
    move |request| {
        let mut kept = kept.lock().unwrap();
        match request.method.as_str() {
            "PUT" => {
                kept.insert(request.path().to_owned(), request.body.clone());
                let created = Reply::new(201, "");
                if lists { created.header("OCI-Subject", subject().as_str()) } else { created }
            }
            _ => kept
                .get(request.path())
                .map_or_else(|| Reply::new(404, ""), |body| Reply::new(200, body.clone())),
        }
    }
}

async fn push(lists: bool, numbers: &[u8]) -> Kept {
    let kept = Arc::new(Mutex::new(Kept::new()));
    let standin = Standin::start(keeping(Arc::clone(&kept), lists));
    let reference: ImageRef = format!("{}/a/b:1", standin.address()).parse().unwrap();
    let config = Config { pause: Duration::from_millis(1), retries: 1, ..Config::default() };
    let repository = Registries::new(config).repository(&reference, Access::Push).unwrap();
    for number in numbers {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let mut descriptor = Descriptor::new(kind, format!("sha256:{number:064}").parse().unwrap(), 2);
        descriptor.artifact_type = Some("a/index".to_owned());
        repository.push_referrer(&subject(), &descriptor, "{}".into()).await.unwrap();
    }
    if !lists {
        let listed = repository.referrers(&subject(), Some("a/index")).await.unwrap();
        assert_eq!(listed.len(), 2, "each is listed once");
    }
    let kept = kept.lock().unwrap();
    kept.clone()
}

#[tokio::test]
async fn what_refers_to_an_image_is_listed_by_the_registry_or_under_a_tag() {
    let tag = format!("/v2/a/b/manifests/sha256-{:064}", 1);
    let kept = push(true, &[5]).await;
    assert_eq!(kept.len(), 1, "nothing but the manifest: {kept:?}");
    let kept = push(false, &[5, 6, 5]).await;
    assert_eq!(kept.len(), 3);
    let list = String::from_utf8(kept[&tag].clone()).unwrap();
    assert!(list.contains(r#""schemaVersion":2"#) && list.contains(r#""artifactType":"a/index""#), "{list}");
}
