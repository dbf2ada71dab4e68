//! Uploads to a registry that fails in every way that a test can think of.

#![expect(clippy::unwrap_used, reason = "a test fails with what it did not expect")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_archive::Hasher;
use berth_registry::{Access, BlobSource, Config, Credentials, Registries, Secret};
use berth_types::{Descriptor, Error, ErrorKind, ImageRef, Result};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use testkit::registry::{Reply, Request, Standin};

/// More than what goes in one piece.
const SIZE: usize = 6 << 20;

struct Memory(Bytes);

impl BlobSource for Memory {
    fn read_at(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<Bytes>> {
        let start = (offset as usize).min(self.0.len());
        let end = (start + length).min(self.0.len());
        futures::future::ready(Ok(self.0.slice(start..end))).boxed()
    }
}

fn noise(size: usize) -> Vec<u8> {
    (0..size as u32 / 4).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// An upload as an honest registry keeps it.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    stored: Option<Vec<u8>>,
    /// Names of places: each is good once.
    place: usize,
}

impl Kept {
    fn answer(&mut self, status: u16) -> Reply {
        self.place += 1;
        Reply::new(status, "")
            .header("Location", &format!("/v2/a/b/blobs/uploads/u?state={}", self.place))
            .header("Range", &format!("0-{}", self.bytes.len().saturating_sub(1)))
    }

    /// Takes at most `most` bytes of a body.
    fn take(&mut self, request: &Request, most: usize) {
        self.bytes.extend_from_slice(&request.body[..request.body.len().min(most)]);
    }

    fn honest(&mut self, request: &Request) -> Reply {
        let current = request.target.contains(&format!("state={}", self.place));
        match request.method.as_str() {
            "HEAD" => Reply::new(404, ""),
            "POST" => {
                self.bytes.clear();
                self.answer(202)
            }
            "GET" => self.answer(204),
            "PATCH"
                if current
                    && request.header("content-range").is_some_and(|range| {
                        range.split('-').next() == Some(&self.bytes.len().to_string())
                    }) =>
            {
                self.take(request, usize::MAX);
                self.answer(202)
            }
            "PATCH" => self.answer(416),
            "PUT" if current => {
                self.take(request, usize::MAX);
                self.stored = Some(self.bytes.clone());
                Reply::new(201, "")
            }
            _ => Reply::new(400, ""),
        }
    }
}

/// A registry that answers honestly wherever `fault` does not.
fn registry(
    fault: impl Fn(&Request, &mut Kept) -> Option<Reply> + Send + Sync + 'static,
) -> (Standin, Arc<Mutex<Kept>>) {
    let kept = Arc::new(Mutex::new(Kept::default()));
    let own = Arc::clone(&kept);
    let standin = Standin::start(move |request| {
        let mut kept = own.lock().unwrap();
        fault(request, &mut kept).unwrap_or_else(|| kept.honest(request))
    });
    (standin, kept)
}

fn quick() -> Config {
    Config { pause: Duration::from_millis(1), retries: 3, ..Config::default() }
}

async fn push(standin: &Standin, config: Config, size: usize) -> Result<Vec<u8>, Error> {
    let bytes = noise(size);
    let reference: ImageRef = format!("{}/a/b:1", standin.address()).parse().unwrap();
    let repository = Registries::new(config).repository(&reference, Access::Push).unwrap();
    let descriptor = Descriptor::new("application/octet-stream", Hasher::digest(&bytes), size as u64);
    repository.push_blob(&descriptor, Arc::new(Memory(bytes.clone().into())), None).await?;
    Ok(bytes)
}

/// The methods that came, and how many bytes with them.
fn told(standin: &Standin) -> Vec<(String, usize)> {
    standin.requests().into_iter().map(|request| (request.method, request.body.len())).collect()
}

fn words(standin: &Standin) -> String {
    told(standin).into_iter().map(|(method, _)| method).collect::<Vec<_>>().join(" ")
}

/// Answers a method once.
fn once(
    method: &'static str,
    reply: impl Fn(&Request, &mut Kept) -> Reply + Send + Sync + 'static,
) -> impl Fn(&Request, &mut Kept) -> Option<Reply> + Send + Sync {
    let left = AtomicUsize::new(1);
    move |request, kept| {
        let hit = request.method == method
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        hit.then(|| reply(request, kept))
    }
}

#[tokio::test]
async fn a_small_blob_goes_in_one_piece_and_a_large_one_so_that_it_can_go_on() {
    let (standin, kept) = registry(|_, _| None);
    let bytes = push(&standin, quick(), 1 << 20).await.unwrap();
    assert!(kept.lock().unwrap().stored.as_ref() == Some(&bytes));
    assert_eq!(words(&standin), "HEAD POST PUT");
    let (standin, kept) = registry(|_, _| None);
    let bytes = push(&standin, quick(), SIZE).await.unwrap();
    assert!(kept.lock().unwrap().stored.as_ref() == Some(&bytes));
    assert_eq!(words(&standin), "HEAD POST PATCH PUT");
}

#[tokio::test]
async fn an_upload_that_breaks_goes_on_where_the_registry_stopped() {
    let (standin, kept) = registry(once("PATCH", |request, kept| {
        kept.take(request, 4_000_001);
        Reply::hang_up()
    }));
    let bytes = push(&standin, quick(), SIZE).await.unwrap();
    assert!(kept.lock().unwrap().stored.as_ref() == Some(&bytes));
    assert_eq!(words(&standin), "HEAD POST PATCH GET PATCH PUT");
    assert_eq!(told(&standin)[4].1, SIZE - 4_000_001, "only what was missing is sent again");
}

#[tokio::test]
async fn a_registry_that_takes_only_a_part_gets_the_rest() {
    let (standin, kept) = registry(once("PATCH", |request, kept| {
        kept.take(request, 1_000_000);
        kept.answer(202)
    }));
    let bytes = push(&standin, quick(), SIZE).await.unwrap();
    assert!(kept.lock().unwrap().stored.as_ref() == Some(&bytes));
    assert_eq!(words(&standin), "HEAD POST PATCH PATCH PUT");
}

#[tokio::test]
async fn busy_and_broken_registries_are_asked_again_and_not_for_ever() {
    for status in [429, 500, 503] {
        for (method, size) in [("PATCH", SIZE), ("PUT", SIZE), ("POST", SIZE), ("PUT", 1 << 20)] {
            let (standin, kept) =
                registry(once(method, move |_, _| Reply::new(status, "").header("Retry-After", "0")));
            let bytes = push(&standin, quick(), size).await.unwrap();
            assert!(kept.lock().unwrap().stored.as_ref() == Some(&bytes), "{status} {method} {size}");
        }
        let (standin, _) =
            registry(move |request, _| (request.method == "PATCH").then(|| Reply::new(status, "")));
        let error = push(&standin, quick(), SIZE).await.unwrap_err();
        assert!(error.message().contains(&format!("PATCH /v2/a/b/blobs/uploads/u: {status}")), "{error:?}");
        let patches = told(&standin).iter().filter(|(method, _)| method == "PATCH").count();
        assert_eq!(patches, 4, "one try and three more");
    }
    let (standin, _) = registry(once("PATCH", |_, _| Reply::new(429, "").header("Retry-After", "7200")));
    push(&standin, quick(), SIZE).await.unwrap_err();
}

#[tokio::test]
async fn an_upload_that_the_registry_forgot_begins_anew() {
    let lost = AtomicUsize::new(0);
    let (standin, kept) = registry(move |request, kept| {
        if request.method == "PATCH" && lost.fetch_add(1, Ordering::SeqCst) == 0 {
            kept.take(request, 2_000_000);
            return Some(Reply::hang_up());
        }
        (request.method == "GET" && lost.load(Ordering::SeqCst) == 1).then(|| Reply::new(404, ""))
    });
    let bytes = push(&standin, quick(), SIZE).await.unwrap();
    assert!(kept.lock().unwrap().stored.as_ref() == Some(&bytes));
    assert_eq!(words(&standin), "HEAD POST PATCH GET POST PATCH PUT");
}

#[tokio::test]
async fn registries_that_take_no_parts_or_only_small_ones_get_what_they_take() {
    for status in [404, 405, 501] {
        let (standin, kept) =
            registry(move |request, _| (request.method == "PATCH").then(|| Reply::new(status, "")));
        let bytes = push(&standin, quick(), SIZE).await.unwrap();
        assert!(kept.lock().unwrap().stored.as_ref() == Some(&bytes));
        assert_eq!(words(&standin), "HEAD POST PATCH POST PUT");
    }
    let (standin, kept) = registry(|request, _| (request.body.len() > 2 << 20).then(|| Reply::new(413, "")));
    let bytes = push(&standin, quick(), SIZE).await.unwrap();
    assert!(kept.lock().unwrap().stored.as_ref() == Some(&bytes));
    let parts: Vec<usize> = told(&standin).iter().map(|(_, size)| *size).filter(|size| *size > 0).collect();
    assert_eq!(parts[parts.len() - 3..], [2 << 20; 3], "{parts:?}");
}

#[tokio::test]
async fn a_token_that_expires_in_the_middle_is_replaced_and_the_upload_goes_on() {
    let tokens = AtomicUsize::new(0);
    let address = Arc::new(Mutex::new(String::new()));
    let own = Arc::clone(&address);
    let (standin, kept) = registry(move |request, kept| {
        if request.path() == "/token" {
            let token = tokens.fetch_add(1, Ordering::SeqCst) + 1;
            return Some(Reply::new(200, format!(r#"{{"token":"t{token}","expires_in":3600}}"#)));
        }
        let good = tokens.load(Ordering::SeqCst);
        let shown = request.header("authorization").unwrap_or_default().to_owned();
        // The first token ends with the first part, of which the registry has kept a half.
        let ends = request.method == "PATCH" && shown == "Bearer t1";
        if ends {
            kept.take(request, SIZE / 2);
        }
        let is_good =
            good > 0 && shown == format!("Bearer t{good}") && !ends && (good > 1 || kept.bytes.is_empty());
        (!is_good).then(|| {
            let realm = format!("Bearer realm=\"http://{}/token\",service=\"x\"", own.lock().unwrap());
            Reply::new(401, "").header("WWW-Authenticate", &realm)
        })
    });
    *address.lock().unwrap() = standin.address();
    let credentials = Credentials::Password { user: "me".into(), password: Secret::new("hunter2") };
    let config = Config { credentials: [(standin.address(), credentials)].into(), ..quick() };
    let bytes = push(&standin, config, SIZE).await.unwrap();
    assert!(kept.lock().unwrap().stored.as_ref() == Some(&bytes));
    let last = standin.requests().into_iter().rfind(|request| request.method == "PATCH").unwrap();
    assert_eq!(last.body.len(), SIZE / 2);
}

#[tokio::test]
async fn a_location_that_is_wrong_ends_the_upload_and_one_elsewhere_gets_no_credentials() {
    for (place, why) in [("ftp://x.test/", "neither http nor https"), ("http://[", "is no address")] {
        let (standin, _) = registry(move |request, _| {
            (request.method == "POST").then(|| Reply::new(202, "").header("Location", place))
        });
        let error = push(&standin, quick(), SIZE).await.unwrap_err();
        assert!(error.chain().contains(why), "{error:?}");
    }
    let (standin, _) = registry(|request, _| (request.method == "POST").then(|| Reply::new(202, "")));
    let error = push(&standin, quick(), SIZE).await.unwrap_err();
    assert!(error.chain().contains("does not say where"), "{error:?}");

    let (elsewhere, kept) = registry(|_, kept| {
        kept.place = kept.place.max(1);
        None
    });
    let place = format!("http://{}/v2/a/b/blobs/uploads/u?state=1", elsewhere.address());
    let (standin, _) = registry(move |request, _| {
        if request.header("authorization").is_none() {
            return Some(Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""));
        }
        (request.method == "POST").then(|| Reply::new(202, "").header("Location", &place))
    });
    let credentials = Credentials::Password { user: "me".into(), password: Secret::new("hunter2") };
    let config = Config { credentials: [(standin.address(), credentials)].into(), ..quick() };
    let bytes = push(&standin, config, SIZE).await.unwrap();
    assert!(kept.lock().unwrap().stored.as_ref() == Some(&bytes));
    let requests = elsewhere.requests();
    assert!(requests.iter().all(|request| !request.headers.contains_key("authorization")));
}

/// Reads so little that nothing more goes after what the sockets hold.
#[tokio::test]
async fn a_registry_that_takes_a_byte_now_and_then_is_given_up() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|length| length > 0) {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let reply = if head.starts_with("HEAD") {
                "HTTP/1.1 404 Not Found"
            } else if head.starts_with("POST") {
                "HTTP/1.1 202 Accepted\r\nLocation: /v2/a/b/blobs/uploads/u"
            } else if head.starts_with("GET") {
                "HTTP/1.1 204 No Content\r\nRange: 0-0"
            } else if head.starts_with("PATCH") {
                held.push(stream);
                continue;
            } else {
                return;
            };
            write!(stream, "{reply}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        }
    });
    let bytes = noise(32 << 20);
    let reference: ImageRef = format!("{address}/a/b:1").parse().unwrap();
    let config = Config { read_timeout: Duration::from_millis(200), retries: 1, ..quick() };
    let repository = Registries::new(config).repository(&reference, Access::Push).unwrap();
    let descriptor = Descriptor::new("x", Hasher::digest(&bytes), bytes.len() as u64);
    let error = repository.push_blob(&descriptor, Arc::new(Memory(bytes.into())), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.chain().contains("too slow"), "{error:?}");
    // Anything that is none of the above ends the server.
    std::net::TcpStream::connect(address).unwrap().write_all(b"X\r\n\r\n").unwrap();
    serving.join().unwrap();
}

/// Takes some of what has come every now and then, until all of it is there.
#[tokio::test]
async fn an_upload_may_take_longer_than_a_host_may_be_silent() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let nobody = std::os::unix::net::UnixDatagram::unbound().unwrap();
    nobody.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let serving = std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|length| length > 0) {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let reply = match head.split(' ').next().unwrap() {
                "HEAD" => "HTTP/1.1 404 Not Found",
                "POST" => "HTTP/1.1 202 Accepted\r\nLocation: /v2/a/b/blobs/uploads/u",
                "PUT" => "HTTP/1.1 201 Created",
                _ => {
                    let (mut left, mut part) = (SIZE, vec![0; 64 << 10]);
                    while left > 0 {
                        // Nobody sends anything there, so this is how slow the registry is.
                        nobody.recv(&mut byte).unwrap_err();
                        let most = left.min(part.len());
                        left -= stream.read(&mut part[..most]).unwrap();
                    }
                    "HTTP/1.1 202 Accepted\r\nLocation: /v2/a/b/blobs/uploads/u"
                }
            };
            write!(stream, "{reply}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            if head.starts_with("PUT") {
                return;
            }
        }
    });
    let bytes = noise(SIZE);
    let reference: ImageRef = format!("{address}/a/b:1").parse().unwrap();
    // As slow as it likes, but not silent.
    let config = Config { read_timeout: Duration::from_secs(1), least: 0, retries: 0, ..quick() };
    let repository = Registries::new(config).repository(&reference, Access::Push).unwrap();
    let descriptor = Descriptor::new("x", Hasher::digest(&bytes), bytes.len() as u64);
    repository.push_blob(&descriptor, Arc::new(Memory(bytes.into())), None).await.unwrap();
    serving.join().unwrap();
}
