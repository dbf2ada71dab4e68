//! The client against a registry that does what each test tells it.

#![expect(clippy::unwrap_used, reason = "a test fails with what it did not expect")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_registry::{Access, Config, Credentials, Registries, Repository, Secret};
use berth_types::{Descriptor, Digest, Error, ErrorKind, ImageRef};
use testkit::Scratch;
use testkit::image::{Image, Layer};
use testkit::registry::{Reply, Request, Standin, serve};

fn image() -> Image {
    let noise: Vec<u8> = (0..100_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    Image::new("a/b:1").layer(Layer::new().file("noise", &noise, 0o644))
}

fn quick() -> Config {
    Config { pause: Duration::from_millis(1), retries: 3, ..Config::default() }
}

fn with_password(host: &str) -> Config {
    let credentials = Credentials::Password { user: "me".into(), password: Secret::new("hunter2") };
    Config { credentials: [(host.to_owned(), credentials)].into(), ..quick() }
}

fn open(config: Config, host: &str) -> (Repository, ImageRef) {
    let reference: ImageRef = format!("{host}/a/b:1").parse().unwrap();
    (Registries::new(config).repository(&reference, Access::Pull).unwrap(), reference)
}

async fn read(repository: &Repository, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
    let mut blob = repository.blob(descriptor, 0).await?;
    let mut bytes = Vec::new();
    while let Some(part) = blob.next().await? {
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

/// The first layer, as its manifest has it.
fn layer(image: &Image) -> (Descriptor, Vec<u8>) {
    let manifest: serde_json::Value = serde_json::from_slice(&image.manifest()).unwrap();
    (serde_json::from_value(manifest["layers"][0].clone()).unwrap(), image.blobs().remove(0))
}

fn is_secret_in(request: &Request) -> bool {
    request.headers.contains_key("authorization")
        || request.target.contains("hunter2")
        || !request.body.is_empty()
}

#[tokio::test]
async fn an_honest_registry_is_read() {
    let image = image();
    let standin = Standin::start({
        let image = image.clone();
        move |request| serve(&image, "a/b", "1", request)
    });
    let (repository, reference) = open(quick(), &standin.address());
    let resolved = repository.resolve(&reference).await.unwrap();
    assert_eq!(resolved.size, image.manifest().len() as u64);
    assert_eq!(repository.manifest(&resolved).await.unwrap(), image.manifest());
    let (descriptor, bytes) = layer(&image);
    assert_eq!(read(&repository, &descriptor).await.unwrap(), bytes);
    let mut rest = repository.blob(&descriptor, 1000).await.unwrap();
    assert_eq!(rest.offset(), 1000);
    assert_eq!(rest.next().await.unwrap().unwrap()[..10], bytes[1000..1010]);
    let by_digest: ImageRef = format!("{}/a/b@{}", standin.address(), resolved.digest).parse().unwrap();
    assert_eq!(repository.resolve(&by_digest).await.unwrap(), resolved);
}

#[tokio::test]
async fn what_is_not_there_is_said_with_the_registrys_words() {
    let standin = Standin::start(|_| {
        Reply::new(404, "{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"no \\u001b[31mtag\"}]}")
    });
    let (repository, reference) = open(quick(), &standin.address());
    let descriptor = Descriptor::new("application/vnd.oci.image.manifest.v1+json", digest(b"x"), 1);
    let error = repository.manifest(&descriptor).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("MANIFEST_UNKNOWN: no [31mtag"), "{error:?}");
    assert!(error.message().contains(&standin.address()), "{error:?}");
    assert_eq!(repository.resolve(&reference).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_connection_that_breaks_is_taken_up_where_it_broke() {
    let image = image();
    let standin = Standin::start({
        let image = image.clone();
        move |request| {
            let reply = serve(&image, "a/b", "1", request);
            let large = reply.body.len() > 50_000;
            if large { reply.cut(50_000) } else { reply }
        }
    });
    let (repository, _) = open(quick(), &standin.address());
    let (descriptor, bytes) = layer(&image);
    assert_eq!(read(&repository, &descriptor).await.unwrap(), bytes);
    let ranges: Vec<Request> =
        standin.requests().into_iter().filter(|request| request.header("range").is_some()).collect();
    assert!(ranges.len() >= bytes.len() / 50_000 - 1, "{}", ranges.len());
}

#[tokio::test]
async fn a_registry_that_does_not_heed_the_range_is_read_all_the_same() {
    let image = image();
    let first = Arc::new(AtomicUsize::new(0));
    let standin = Standin::start({
        let image = image.clone();
        move |request| {
            let mut plain = request.clone();
            plain.headers.remove("range");
            let reply = serve(&image, "a/b", "1", &plain);
            if first.fetch_add(1, Ordering::Relaxed) == 0 { reply.cut(70_000) } else { reply }
        }
    });
    let (repository, _) = open(quick(), &standin.address());
    let (descriptor, bytes) = layer(&image);
    assert_eq!(read(&repository, &descriptor).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_blob_that_is_too_short_or_too_long_or_elsewhere_is_an_error() {
    let image = image();
    let (descriptor, bytes) = layer(&image);
    let short = Standin::start({
        let bytes = bytes.clone();
        move |request| match request.header("range") {
            None => Reply::new(200, &bytes[..1000]),
            Some(_) => Reply::new(206, "").header("Content-Range", "bytes 1000-1000/1000"),
        }
    });
    let (repository, _) = open(quick(), &short.address());
    let error = read(&repository, &descriptor).await.unwrap_err();
    assert!(error.message().contains("stops at byte 1000"), "{error:?}");

    let long = Standin::start({
        let bytes = bytes.clone();
        move |_| Reply::new(200, [&bytes[..], b"more"].concat())
    });
    let (repository, _) = open(quick(), &long.address());
    assert_eq!(read(&repository, &descriptor).await.unwrap_err().kind(), ErrorKind::DataLoss);

    let elsewhere = Standin::start(|_| Reply::new(206, "abc").header("Content-Range", "bytes 7-9/1000"));
    let (repository, _) = open(quick(), &elsewhere.address());
    let mut blob = repository.blob(&descriptor, 5).await;
    if let Ok(blob) = &mut blob {
        assert!(blob.next().await.is_err());
    }
}

#[tokio::test]
async fn a_busy_registry_is_asked_again_and_a_broken_one_not_for_ever() {
    let image = image();
    for status in [429, 500, 502, 503] {
        let count = Arc::new(AtomicUsize::new(0));
        let standin = Standin::start({
            let (image, count) = (image.clone(), Arc::clone(&count));
            move |request| match count.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => Reply::new(status, "").header("Retry-After", "0"),
                _ => serve(&image, "a/b", "1", request),
            }
        });
        let (repository, reference) = open(quick(), &standin.address());
        repository.resolve(&reference).await.unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }
    let broken = Standin::start(|_| Reply::new(500, ""));
    let (repository, reference) = open(quick(), &broken.address());
    assert_eq!(repository.resolve(&reference).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let asked = broken.requests().len();
    assert!(asked <= 5, "four times, and once for its words: {asked}");
    let patient = Standin::start(|_| Reply::new(429, "").header("Retry-After", "86400"));
    let (repository, reference) = open(quick(), &patient.address());
    assert_eq!(repository.resolve(&reference).await.unwrap_err().kind(), ErrorKind::ResourceExhausted);
}

#[tokio::test]
async fn a_connection_may_break_at_any_byte() {
    let image = image();
    for place in [0, 1, 2, 17, 100, 200, 511, 1000, 4096, 65_535, 65_536, 399_999] {
        let seen = Arc::new(Mutex::new(std::collections::HashSet::new()));
        let standin = Standin::start({
            let image = image.clone();
            move |request| {
                let reply = serve(&image, "a/b", "1", request);
                // The first answer to each question breaks off.
                let first = request.method == "GET" && seen.lock().unwrap().insert(request.target.clone());
                if first { reply.cut(place) } else { reply }
            }
        });
        let (repository, reference) = open(quick(), &standin.address());
        let manifest = repository.resolve(&reference).await.unwrap();
        assert_eq!(repository.manifest(&manifest).await.unwrap(), image.manifest(), "at {place}");
        let (descriptor, bytes) = layer(&image);
        assert!(read(&repository, &descriptor).await.unwrap() == bytes, "at {place}");
    }
}

#[tokio::test]
async fn a_host_that_falls_silent_is_given_up_and_asked_for_the_rest() {
    let image = image();
    let standin = Standin::start({
        let image = image.clone();
        move |request| {
            let reply = serve(&image, "a/b", "1", request);
            if reply.body.len() > 300_000 { reply.stall(250_000) } else { reply }
        }
    });
    let config = Config { read_timeout: Duration::from_secs(1), ..quick() };
    let (repository, _) = open(config, &standin.address());
    let (descriptor, bytes) = layer(&image);
    assert_eq!(read(&repository, &descriptor).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_host_that_sends_a_byte_now_and_then_is_not_waited_for() {
    let image = image();
    let standin = Standin::start({
        let image = image.clone();
        move |request| serve(&image, "a/b", "1", request).trickle(1, Duration::from_millis(20))
    });
    let config = Config { read_timeout: Duration::from_secs(1), retries: 1, ..quick() };
    let (repository, reference) = open(config, &standin.address());
    let (descriptor, _) = layer(&image);
    let error = read(&repository, &descriptor).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.chain().contains("too slow") && error.chain().contains(&standin.address()), "{error:?}");
    assert!((2..6).contains(&standin.requests().len()), "about as often as the configuration says");
    let manifest = repository.resolve(&reference).await.unwrap();
    let error = repository.manifest(&manifest).await.unwrap_err();
    assert!(error.chain().contains("too slow"), "{error:?}");
}

#[tokio::test]
async fn bytes_that_are_not_what_was_asked_for_are_refused() {
    let image = image();
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let index = "application/vnd.oci.image.index.v1+json";
    let wanted = Descriptor::new(manifest, digest(&image.manifest()), image.manifest().len() as u64);
    let cases: [(&str, Reply); 4] = [
        ("other bytes", Reply::new(200, "{}").header("Content-Type", manifest)),
        ("announced as an index", Reply::new(200, image.manifest()).header("Content-Type", index)),
        ("larger than any", Reply::new(200, vec![b' '; 5 << 20]).header("Content-Type", manifest)),
        ("an error page", Reply::new(200, "<html>").header("Content-Type", "text/html")),
    ];
    for (what, reply) in cases {
        let standin = Standin::start(move |_| reply.clone());
        let (repository, _) = open(quick(), &standin.address());
        let error = repository.manifest(&wanted).await.expect_err(what);
        assert!(
            matches!(
                error.kind(),
                ErrorKind::FailedPrecondition | ErrorKind::InvalidArgument | ErrorKind::ResourceExhausted
            ),
            "{what}: {error:?}"
        );
    }
    for bad in ["sha256:ab", "x", "sha256:", "sha256:../../x"] {
        let standin = Standin::start(move |_| {
            Reply::new(200, "{}").header("Content-Type", manifest).header("Docker-Content-Digest", bad)
        });
        let (repository, reference) = open(quick(), &standin.address());
        let error = repository.resolve(&reference).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad}");
    }
}

/// A registry that wants a token from `realm`, and takes `Bearer good`.
fn guarded(image: Image, realm: impl Fn() -> String + Send + Sync + 'static) -> Standin {
    Standin::start(move |request| {
        if request.header("authorization") == Some("Bearer good") {
            return serve(&image, "a/b", "1", request);
        }
        let challenge =
            format!(r#"Bearer realm="{}",service="standin",scope="repository:a/b:pull""#, realm());
        Reply::new(401, "").header("WWW-Authenticate", &challenge)
    })
}

#[tokio::test]
async fn a_token_is_asked_for_once_and_with_the_password() {
    let tokens = Standin::start(|request| match request.header("authorization") {
        Some("Basic bWU6aHVudGVyMg==") => Reply::new(200, r#"{"token":"good","expires_in":300}"#),
        _ => Reply::new(401, ""),
    });
    let realm = format!("http://{}/token", tokens.address());
    let image = image();
    let registry = guarded(image.clone(), move || realm.clone());
    let (repository, reference) = open(with_password(&registry.address()), &registry.address());
    repository.resolve(&reference).await.unwrap();
    let (descriptor, bytes) = layer(&image);
    assert_eq!(read(&repository, &descriptor).await.unwrap(), bytes);
    let asked = tokens.requests();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].target.contains("scope=repository%3Aa%2Fb%3Apull"), "{}", asked[0].target);

    let (repository, reference) = open(quick(), &registry.address());
    assert_eq!(repository.resolve(&reference).await.unwrap_err().kind(), ErrorKind::Unauthenticated);
}

#[tokio::test]
async fn a_token_that_expires_on_the_way_is_replaced() {
    let good = Arc::new(Mutex::new("one".to_owned()));
    let tokens = Standin::start({
        let good = Arc::clone(&good);
        move |_| Reply::new(200, format!(r#"{{"token":"{}","expires_in":3600}}"#, good.lock().unwrap()))
    });
    let realm = format!("http://{}/token", tokens.address());
    let image = image();
    let registry = Standin::start({
        let (image, good) = (image.clone(), Arc::clone(&good));
        move |request| {
            if request.header("authorization") == Some(&format!("Bearer {}", good.lock().unwrap())) {
                return serve(&image, "a/b", "1", request);
            }
            Reply::new(401, "").header("WWW-Authenticate", &format!(r#"Bearer realm="{realm}""#))
        }
    });
    let (repository, reference) = open(quick(), &registry.address());
    let resolved = repository.resolve(&reference).await.unwrap();
    "two".clone_into(&mut good.lock().unwrap());
    repository.manifest(&resolved).await.unwrap();
    assert_eq!(tokens.requests().len(), 2);
}

#[tokio::test]
async fn a_password_goes_along_with_basic_and_never_to_an_empty_challenge() {
    let image = image();
    let registry = Standin::start({
        let image = image.clone();
        move |request| match request.header("authorization") {
            Some("Basic bWU6aHVudGVyMg==") => serve(&image, "a/b", "1", request),
            _ => Reply::new(401, "").header("WWW-Authenticate", r#"Basic realm="x""#),
        }
    });
    let (repository, reference) = open(with_password(&registry.address()), &registry.address());
    repository.resolve(&reference).await.unwrap();
    let (repository, reference) = open(quick(), &registry.address());
    let error = repository.resolve(&reference).await.unwrap_err();
    assert!(error.message().contains("berth login"), "{error:?}");
    let silent = Standin::start(|_| Reply::new(401, ""));
    let (repository, reference) = open(with_password(&silent.address()), &silent.address());
    assert_eq!(repository.resolve(&reference).await.unwrap_err().kind(), ErrorKind::Unauthenticated);
    assert!(!silent.requests().iter().any(is_secret_in));
}

#[tokio::test]
async fn a_redirect_takes_no_credentials_or_headers_to_another_host() {
    let image = image();
    let evil = Standin::start({
        let image = image.clone();
        // It even asks for them.
        move |request| {
            if request.target.contains("ask") {
                return Reply::new(401, "").header("WWW-Authenticate", r#"Basic realm="give""#);
            }
            serve(&image, "a/b", "1", request)
        }
    });
    let target = format!("http://{}", evil.address());
    let registry = Standin::start({
        let image = image.clone();
        move |request| match request.header("authorization") {
            Some("Basic bWU6aHVudGVyMg==") if request.path().contains("/blobs/") => {
                Reply::new(307, "").header("Location", &format!("{target}{}", request.target))
            }
            Some("Basic bWU6aHVudGVyMg==") if request.path().ends_with("/ask") => {
                Reply::new(302, "").header("Location", &format!("{target}/ask"))
            }
            Some(_) => serve(&image, "a/b", "1", request),
            None => Reply::new(401, "").header("WWW-Authenticate", r#"Basic realm="x""#),
        }
    });
    let scratch = Scratch::new();
    let folder = scratch.path(registry.address());
    std::fs::create_dir_all(&folder).unwrap();
    let hosts = format!("server = 'http://{}'\n[header]\nx-secret = 'hunter2'\n", registry.address());
    std::fs::write(folder.join("hosts.toml"), hosts).unwrap();
    let config = Config { hosts: vec![scratch.folder().to_owned()], ..with_password(&registry.address()) };
    let (repository, _) = open(config, &registry.address());
    let (descriptor, bytes) = layer(&image);
    assert_eq!(read(&repository, &descriptor).await.unwrap(), bytes);
    let tag: ImageRef = format!("{}/a/b:ask", registry.address()).parse().unwrap();
    assert!(repository.resolve(&tag).await.is_err());
    assert!(registry.requests().iter().all(|request| request.header("x-secret") == Some("hunter2")));
    let received = evil.requests();
    assert!(!received.is_empty());
    for request in received {
        assert!(!is_secret_in(&request) && request.header("x-secret").is_none(), "{request:?}");
        assert!(request.header("cookie").is_none() && request.header("referer").is_none(), "{request:?}");
    }
}

#[tokio::test]
async fn redirects_end_and_do_not_leave_http() {
    let round = Standin::start(|request| Reply::new(302, "").header("Location", &request.target));
    let (repository, reference) = open(quick(), &round.address());
    let error = repository.resolve(&reference).await.unwrap_err();
    assert!(error.message().contains("more than 10 redirects"), "{error:?}");
    for bad in ["file:///etc/passwd", "ftp://127.0.0.1/", "http://[broken", ""] {
        let standin = Standin::start(move |_| Reply::new(302, "").header("Location", bad));
        let (repository, reference) = open(quick(), &standin.address());
        assert!(repository.resolve(&reference).await.is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_token_service_elsewhere_gets_no_password() {
    let evil = Standin::start(|_| Reply::new(200, r#"{"token":"good"}"#));
    // The same machine by another name: another host.
    let port = evil.address().split_once(':').unwrap().1.to_owned();
    let image = image();
    let registry = guarded(image, move || format!("http://127.0.0.2:{port}/token"));
    let (repository, reference) = open(with_password(&registry.address()), &registry.address());
    // Loopback's other addresses lead to the same socket only if it is bound to them; either way nothing leaks.
    drop(repository.resolve(&reference).await);
    assert!(!evil.requests().iter().any(is_secret_in));
    let registry = guarded(image_again(), || "http://evil.test/token".to_owned());
    let (repository, reference) = open(with_password(&registry.address()), &registry.address());
    let error = repository.resolve(&reference).await.unwrap_err();
    assert!(error.message().contains("no TLS"), "{error:?}");
}

fn image_again() -> Image {
    image()
}

#[tokio::test]
async fn mirrors_are_asked_first_and_every_attempt_is_told() {
    let image = image();
    let broken = Standin::start(|_| Reply::new(403, r#"{"errors":[{"code":"DENIED","message":"go away"}]}"#));
    let mirror = Standin::start({
        let image = image.clone();
        move |request| serve(&image, "a/b", "1", request)
    });
    let scratch = Scratch::new();
    let folder = scratch.path("origin.test");
    std::fs::create_dir_all(&folder).unwrap();
    let hosts = |second: &str| {
        format!(
            "server = 'http://127.0.0.1:1'\n[host.'http://{}']\n[host.'http://{second}']\ncapabilities = ['pull', 'resolve']\n",
            broken.address()
        )
    };
    std::fs::write(folder.join("hosts.toml"), hosts(&mirror.address())).unwrap();
    let config = Config { hosts: vec![scratch.folder().to_owned()], ..quick() };
    let (repository, reference) = open(config.clone(), "origin.test");
    repository.resolve(&reference).await.unwrap();
    assert!(mirror.requests()[0].target.contains("ns=origin.test"));
    assert_eq!(broken.requests().len(), 2, "a head, and its words");

    let worse = Standin::start(|_| Reply::new(403, ""));
    std::fs::write(folder.join("hosts.toml"), hosts(&worse.address())).unwrap();
    let (repository, reference) = open(config, "origin.test");
    let error = repository.resolve(&reference).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("DENIED: go away") || error.message().contains("403"), "{error:?}");
    assert!(error.message().contains("127.0.0.1:1: HEAD"), "{error:?}");
}

#[tokio::test]
async fn a_helper_program_is_asked_for_credentials_and_only_by_a_plain_name() {
    let scratch = Scratch::new();
    let path = scratch.file("config.json", r#"{"credHelpers":{"r.test":"../../bin/sh"}}"#);
    let config = Config { docker: Some(path), ..quick() };
    let standin = Standin::start(|_| Reply::new(401, "").header("WWW-Authenticate", "Basic realm=x"));
    let folder = scratch.path("r.test");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("hosts.toml"), format!("server = 'http://{}'", standin.address())).unwrap();
    // The mirror's own name is what counts for it, so the entry names it too.
    let text = format!(r#"{{"credHelpers":{{"{}":"../../bin/sh"}}}}"#, standin.address());
    scratch.file("config.json", text);
    let config = Config { hosts: vec![scratch.folder().to_owned()], ..config };
    let (repository, reference) = open(config, "r.test");
    let error = repository.resolve(&reference).await.unwrap_err();
    assert!(error.message().contains("is not the name of a credential helper"), "{error:?}");
}

fn digest(bytes: &[u8]) -> Digest {
    berth_archive::Hasher::digest(bytes)
}
