//! Large blobs, which come in parts where the host heeds ranges.

#![expect(clippy::unwrap_used, reason = "a test fails with what it did not expect")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use berth_registry::{Access, Config, Registries};
use berth_types::{Descriptor, Error, ErrorKind, ImageRef};
use testkit::registry::{Reply, Request, Standin};

const SIZE: usize = 30 << 20;

fn noise() -> Arc<Vec<u8>> {
    Arc::new((0..SIZE as u32 / 4).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect())
}

/// The asked-for part of `bytes`, as an honest host answers.
fn part(bytes: &[u8], request: &Request) -> Reply {
    let Some(range) = request.header("range").and_then(|range| range.strip_prefix("bytes=")) else {
        return Reply::new(200, bytes);
    };
    let (from, last) = range.split_once('-').unwrap();
    let from: usize = from.parse().unwrap();
    let last = last.parse().unwrap_or(bytes.len() - 1).min(bytes.len() - 1);
    let told = format!("bytes {from}-{last}/{}", bytes.len());
    Reply::new(206, &bytes[from..=last]).header("Content-Range", &told)
}

async fn read(standin: &Standin, config: Config, from: u64) -> Result<Vec<u8>, Error> {
    let config = Config { pause: Duration::from_millis(1), ..config };
    let reference: ImageRef = format!("{}/a/b:1", standin.address()).parse().unwrap();
    let repository = Registries::new(config).repository(&reference, Access::Pull).unwrap();
    let digest = format!("sha256:{:064}", 0).parse().unwrap();
    let mut blob = repository.blob(&Descriptor::new("x", digest, SIZE as u64), from).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = blob.next().await? {
        bytes.extend_from_slice(&chunk);
        assert_eq!(blob.offset(), from + bytes.len() as u64);
    }
    Ok(bytes)
}

#[tokio::test]
async fn several_parts_of_a_large_blob_come_at_once_and_are_given_out_in_order() {
    let (bytes, together) = (noise(), Arc::new((Mutex::new(0), Condvar::new())));
    let standin = Standin::start({
        let bytes = Arc::clone(&bytes);
        move |request| {
            let reply = part(&bytes, request);
            // After the first one, which tells whether ranges are heeded, nobody is answered alone.
            if !request.header("range").unwrap().starts_with("bytes=0-") {
                let (count, changed) = &*together;
                let mut here = count.lock().unwrap();
                *here += 1;
                changed.notify_all();
                let (_here, waited) =
                    changed.wait_timeout_while(here, testkit::wait::SOON, |here| *here < 3).unwrap();
                if waited.timed_out() {
                    return Reply::new(404, "alone");
                }
            }
            reply
        }
    });
    assert!(read(&standin, Config::default(), 0).await.unwrap() == *bytes);
    let ranges: Vec<String> =
        standin.requests().iter().map(|request| request.header("range").unwrap().to_owned()).collect();
    let different: HashSet<&String> = ranges.iter().collect();
    assert_eq!(different.len(), ranges.len(), "nothing comes twice: {ranges:?}");
}

#[tokio::test]
async fn a_resumed_blob_comes_in_parts_from_where_it_stopped() {
    let bytes = noise();
    let standin = Standin::start({
        let bytes = Arc::clone(&bytes);
        move |request| part(&bytes, request)
    });
    assert!(read(&standin, Config::default(), 1000).await.unwrap() == bytes[1000..]);
    assert!(standin.requests()[0].header("range").unwrap().starts_with("bytes=1000-"));
}

#[tokio::test]
async fn a_host_that_does_not_heed_ranges_gives_all_of_it_once() {
    let bytes = noise();
    for (refuses, expected) in [(false, 1), (true, 2)] {
        let standin = Standin::start({
            let bytes = Arc::clone(&bytes);
            move |request| match request.header("range") {
                Some(_) if refuses => Reply::new(416, ""),
                _ => Reply::new(200, bytes.as_slice()),
            }
        });
        assert!(read(&standin, Config::default(), 0).await.unwrap() == *bytes);
        assert_eq!(standin.requests().len(), expected);
    }
}

#[tokio::test]
async fn one_connection_is_enough_if_the_configuration_says_so() {
    let bytes = noise();
    let standin = Standin::start({
        let bytes = Arc::clone(&bytes);
        move |request| part(&bytes, request)
    });
    let config = Config { connections: 1, ..Config::default() };
    assert!(read(&standin, config, 0).await.unwrap() == *bytes);
    assert_eq!(standin.requests().len(), 1);
}

#[tokio::test]
async fn a_part_that_breaks_is_taken_up_where_it_broke() {
    let (bytes, number) = (noise(), Arc::new(AtomicUsize::new(0)));
    let standin = Standin::start({
        let bytes = Arc::clone(&bytes);
        move |request| {
            let reply = part(&bytes, request);
            // Every other answer breaks somewhere else.
            let number = number.fetch_add(1, Ordering::Relaxed);
            if number % 2 == 0 { reply.cut(1 + number * 100_000) } else { reply }
        }
    });
    assert!(read(&standin, Config::default(), 0).await.unwrap() == *bytes);
    let asked: usize = standin.requests().iter().map(|request| part(&bytes, request).body.len()).sum();
    assert!(asked < 2 * SIZE, "{asked}");
}

#[tokio::test]
async fn a_part_that_does_not_come_fails_the_blob_and_names_the_place() {
    let bytes = noise();
    let standin = Standin::start({
        let bytes = Arc::clone(&bytes);
        move |request| {
            let late = request.header("range").is_some_and(|range| range.starts_with("bytes=1258"));
            if late {
                Reply::new(403, r#"{"errors":[{"code":"DENIED","message":"no more"}]}"#)
            } else {
                part(&bytes, request)
            }
        }
    });
    let error = read(&standin, Config::default(), 0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    assert!(error.message().contains("DENIED: no more"), "{error:?}");
}

#[tokio::test]
async fn a_part_from_another_place_than_asked_for_is_refused() {
    let bytes = noise();
    let standin = Standin::start({
        let bytes = Arc::clone(&bytes);
        move |request| {
            let mut reply = part(&bytes, request);
            reply.headers.retain(|(name, _)| name != "Content-Range");
            reply.header("Content-Range", "bytes 5-6/7")
        }
    });
    let error = read(&standin, Config::default(), 0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss, "{error:?}");
    assert!(error.message().contains(&standin.address()), "{error:?}");
}
