//! What somebody who reads along is shown, and what not.

#![expect(clippy::unwrap_used, reason = "a test fails with what it did not expect")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_registry::{
    Access, Config, Credentials, Detail, HeaderMap, Listen, Registries, Secret, Transcript,
};
use berth_types::{Descriptor, ImageRef};
use futures::FutureExt;
use testkit::image::{Image, Layer};
use testkit::registry::{Reply, Standin, serve};

type Heard = Arc<Mutex<String>>;

fn listening(detail: Detail) -> (Transcript, Heard) {
    let heard = Heard::default();
    let listen: Listen = {
        let heard = Arc::clone(&heard);
        Arc::new(move |entry| {
            heard.lock().unwrap().push_str(&entry);
            std::future::ready(()).boxed()
        })
    };
    (Transcript { detail, listen }, heard)
}

fn image() -> Image {
    Image::new("a/b:1").layer(Layer::new().file("one", b"1", 0o644))
}

/// A registry with a token service beside it, whose blobs lie elsewhere, behind a signed address.
fn registry(image: &Image) -> (Standin, [Standin; 2]) {
    let tokens = Standin::start(|_| {
        Reply::new(200, r#"{"token":"secret-token"}"#).header("Content-Type", "application/json")
    });
    let elsewhere = Standin::start({
        let image = image.clone();
        move |request| serve(&image, "a/b", "1", request).header("Set-Cookie", "secret-cookie")
    });
    let (realm, signed) = (format!("http://{}/token", tokens.address()), elsewhere.address());
    let standin = Standin::start({
        let image = image.clone();
        move |request| match request.header("authorization") {
            Some("Bearer secret-token") if request.path().contains("/blobs/") => {
                let place = format!("http://u:secret-user@{signed}{}?sig=secret-sig&ns=x", request.path());
                Reply::new(307, "").header("Location", &place)
            }
            Some("Bearer secret-token") => serve(&image, "a/b", "1", request),
            _ => Reply::new(401, "").header("WWW-Authenticate", &format!(r#"Bearer realm="{realm}""#)),
        }
    });
    (standin, [tokens, elsewhere])
}

async fn pull(detail: Detail) -> (String, String) {
    let image = image();
    let (standin, _beside) = registry(&image);
    let host = standin.address();
    let (transcript, heard) = listening(detail);
    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", "secret-key".parse().unwrap());
    let credentials = Credentials::Password { user: "me".into(), password: Secret::new("secret-password") };
    let config = Config {
        credentials: [(host.clone(), credentials)].into(),
        headers,
        transcript: Some(transcript),
        pause: Duration::from_millis(1),
        ..Config::default()
    };
    let reference: ImageRef = format!("{host}/a/b:1").parse().unwrap();
    let repository = Registries::new(config).repository(&reference, Access::Pull).unwrap();
    let target = repository.resolve(&reference).await.unwrap();
    let manifest = repository.manifest(&target).await.unwrap();
    let parsed: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layer: Descriptor = serde_json::from_value(parsed["layers"][0].clone()).unwrap();
    let mut blob = repository.blob(&layer, 0).await.unwrap();
    while blob.next().await.unwrap().is_some() {}
    let heard = heard.lock().unwrap().clone();
    (heard, host)
}

#[tokio::test]
async fn requests_and_answers_are_shown_without_what_lets_somebody_in() {
    let (heard, host) = pull(Detail::Messages).await;
    let lines = [
        "HEAD /v2/a/b/manifests/1 HTTP/1.1",
        "HTTP/1.1 401 Unauthorized",
        "authorization: [hidden]",
        "x-api-key: [hidden]",
        "GET /token?account=%5Bhidden%5D&scope=repository%3Aa%2Fb%3Apull HTTP/1.1",
        "HTTP/1.1 307 Temporary Redirect",
        "set-cookie: [hidden]",
    ];
    for line in lines {
        assert!(heard.lines().any(|shown| shown == line), "no {line:?} in {heard}");
    }
    assert!(heard.contains(&format!("Host: {host}\r\n")), "{heard}");
    // The manifest's own text, a blob's length, and where a blob lies.
    assert!(heard.contains(r#""schemaVersion":2"#), "{heard}");
    assert!(heard.contains(" bytes]\r\n") && heard.contains("?sig=%5Bhidden%5D&ns=x"), "{heard}");
    assert!(!heard.contains("secret"), "{heard}");
    assert!(!heard.contains('#'), "{heard}");
}

#[tokio::test]
async fn connections_are_told_in_a_line_each() {
    let (heard, host) = pull(Detail::Connections).await;
    let first = format!("# HEAD /v2/a/b/manifests/1: 401 from {host} over HTTP/1.1 after ");
    assert!(heard.starts_with(&first), "{heard}");
    assert!(heard.lines().all(|line| line.starts_with("# ")) && !heard.contains("secret"), "{heard}");
    let (heard, _) = pull(Detail::Everything).await;
    assert!(heard.contains("# HEAD /v2/") && heard.contains("\r\nHEAD /v2/"), "{heard}");
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_told_of_too() {
    let (transcript, heard) = listening(Detail::Connections);
    let standin = Standin::start(|_| Reply::hang_up());
    let config = Config { transcript: Some(transcript), retries: 0, ..Config::default() };
    let reference: ImageRef = format!("{}/a/b:1", standin.address()).parse().unwrap();
    let repository = Registries::new(config).repository(&reference, Access::Pull).unwrap();
    repository.resolve(&reference).await.unwrap_err();
    let heard = heard.lock().unwrap();
    assert!(heard.contains("# HEAD /v2/a/b/manifests/1: no answer: "), "{heard}");
}
