//! The cache by itself.

use berth_archive::Hasher;
use berth_types::Digest;
use testkit::Scratch;

use crate::Cache;

fn chunk(number: u8) -> (Digest, Vec<u8>) {
    let bytes = vec![number; 1000];
    (Hasher::digest(&bytes), bytes)
}

fn read(cache: &Cache, digest: &Digest) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 10];
    cache.read((digest, 1000), 990, &mut buffer).then_some(buffer)
}

#[test]
fn what_was_not_used_for_the_longest_time_goes_first() {
    let scratch = Scratch::new();
    let cache = Cache::open(scratch.folder(), 10_000).unwrap();
    for number in 0..10 {
        let (digest, bytes) = chunk(number);
        cache.keep(&digest, &bytes).unwrap();
    }
    assert_eq!(read(&cache, &chunk(0).0), Some(vec![0; 10]));
    let (digest, bytes) = chunk(10);
    cache.keep(&digest, &bytes).unwrap();
    let figures = cache.figures();
    assert!(figures.bytes <= 9_000 && figures.evicted == 2, "{figures:?}");
    assert!(read(&cache, &chunk(0).0).is_some() && read(&cache, &chunk(10).0).is_some());
    assert!(read(&cache, &chunk(1).0).is_none() && read(&cache, &chunk(2).0).is_none());
}

#[test]
fn a_later_process_verifies_before_it_serves_and_removes_what_was_begun() {
    let scratch = Scratch::new();
    let (good, bytes) = chunk(1);
    let (bad, others) = chunk(2);
    {
        let cache = Cache::open(scratch.folder(), 10_000).unwrap();
        cache.keep(&good, &bytes).unwrap();
        cache.keep(&bad, &others).unwrap();
    }
    let path = |digest: &Digest| scratch.path("chunks").join(&digest.hex()[..2]).join(digest.hex());
    let mut damaged = others.clone();
    damaged[7] ^= 1;
    std::fs::write(path(&bad), damaged).unwrap();
    std::fs::write(scratch.path("chunks/new-7"), b"begun").unwrap();
    let cache = Cache::open(scratch.folder(), 10_000).unwrap();
    assert!(!scratch.path("chunks/new-7").exists());
    assert!(read(&cache, &good).is_none(), "not before it was verified");
    assert_eq!(cache.load(&good, 999), None, "a table that is wrong about its size takes nothing away");
    assert_eq!(cache.load(&good, 1000), Some(bytes));
    assert_eq!(read(&cache, &good), Some(vec![1; 10]));
    assert_eq!(cache.load(&bad, 1000), None);
    assert!(!path(&bad).exists() && cache.figures().damaged == 1);
}

#[test]
fn a_chunk_that_has_only_a_name_is_verified_by_what_stands_behind_it() {
    let scratch = Scratch::new();
    let (name, bytes) = (Hasher::digest(b"a name"), vec![3; 1000]);
    let (spoilt, content) = (Hasher::digest(b"another"), chunk(4));
    {
        let cache = Cache::open(scratch.folder(), 10_000).unwrap();
        cache.keep_named(&name, &bytes).unwrap();
        cache.keep_named(&spoilt, &bytes).unwrap();
        cache.keep(&content.0, &content.1).unwrap();
        assert_eq!(read(&cache, &name), Some(vec![3; 10]));
        assert_eq!(cache.figures().bytes, 3000);
    }
    let path =
        |name: &Digest| scratch.path("chunks").join(&name.hex()[..2]).join(format!("named-{}", name.hex()));
    let mut damaged = std::fs::read(path(&spoilt)).unwrap();
    damaged[500] ^= 1;
    std::fs::write(path(&spoilt), damaged).unwrap();
    let cache = Cache::open(scratch.folder(), 10_000).unwrap();
    assert_eq!(cache.figures().bytes, 3000);
    assert_eq!(cache.load(&content.0, 1000), Some(content.1));
    assert_eq!(cache.load(&spoilt, 1000), None);
    assert!(!path(&spoilt).exists() && cache.figures().damaged == 1);
    assert!(read(&cache, &name).is_none(), "not before it was verified");
    assert_eq!(cache.load(&name, 1000), Some(bytes));
    assert_eq!(read(&cache, &name), Some(vec![3; 10]));
}

#[test]
fn what_somebody_else_removed_is_a_miss() {
    let scratch = Scratch::new();
    let cache = Cache::open(scratch.folder(), 10_000).unwrap();
    let (digest, bytes) = chunk(1);
    cache.keep(&digest, &bytes).unwrap();
    std::fs::remove_dir_all(scratch.path("chunks")).unwrap();
    assert!(read(&cache, &digest).is_none() && !cache.has(&digest));
    assert_eq!(cache.figures().bytes, 0);
}
