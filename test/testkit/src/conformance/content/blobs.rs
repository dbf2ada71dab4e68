//! Blobs.

use berth_core::read_blob;
use berth_types::ErrorKind;
use berth_types::filter::Filters;
use bytes::Bytes;

use super::{Fixture, WithSize, reference_of, refused, rooted, sha256, sha512};

pub(super) async fn a_blob_is_what_was_committed(fixture: Fixture) {
    let data = b"a blob that comes in two pieces";
    let digest = sha256(data);
    let mut ingest = fixture.expecting("pieces", data).await.unwrap();
    ingest.write(0, Bytes::from_static(&data[..6])).await.unwrap();
    ingest.write(6, Bytes::from_static(&data[6..])).await.unwrap();
    assert_eq!(ingest.status().await.unwrap().offset, data.len() as u64);
    let committed = ingest.commit(rooted(Some(digest.clone())).with_size(data)).await.unwrap();
    assert_eq!(committed, digest);

    let info = fixture.content.info(&digest).await.unwrap();
    assert_eq!((info.digest, info.size), (digest.clone(), data.len() as u64));
    let reader = fixture.content.reader(&digest).await.unwrap();
    assert_eq!(reader.size(), data.len() as u64);
    assert_eq!(&reader.read_at(2, 4).await.unwrap()[..], &data[2..6]);
    assert_eq!(&reader.read_at(0, 4096).await.unwrap()[..], data);
    assert!(reader.read_at(data.len() as u64, 10).await.unwrap().is_empty());
    assert!(reader.read_at(data.len() as u64 + 10, 10).await.unwrap().is_empty());
    assert_eq!(read_blob(&*fixture.content, &digest, 4096).await.unwrap(), data);
}

pub(super) async fn an_empty_blob_is_a_blob(fixture: Fixture) {
    let digest = sha256(b"");
    let mut ingest = fixture.writer("empty").await.unwrap();
    ingest.commit(rooted(Some(digest.clone()))).await.unwrap();
    assert_eq!(fixture.content.info(&digest).await.unwrap().size, 0);
    assert!(read_blob(&*fixture.content, &digest, 10).await.unwrap().is_empty());
}

pub(super) async fn a_large_blob_arrives_in_pieces(fixture: Fixture) {
    let data: Vec<u8> =
        (0..5_000_003_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let digest = sha256(&data);
    let mut ingest = fixture.expecting("large", &data).await.unwrap();
    for (index, piece) in data.chunks(700_001).enumerate() {
        ingest.write(index as u64 * 700_001, Bytes::copy_from_slice(piece)).await.unwrap();
    }
    ingest.commit(rooted(Some(digest.clone())).with_size(&data)).await.unwrap();
    assert!(read_blob(&*fixture.content, &digest, 1 << 23).await.unwrap() == data, "the bytes differ");
}

pub(super) async fn other_hashes_are_addresses_too(fixture: Fixture) {
    let data = b"by another hash";
    let digest = sha512(data);
    let mut ingest = fixture.writer("other").await.unwrap();
    ingest.write(0, Bytes::from_static(data)).await.unwrap();
    assert_eq!(ingest.commit(rooted(Some(digest.clone()))).await.unwrap(), digest);
    assert_eq!(read_blob(&*fixture.content, &digest, 4096).await.unwrap(), data);
    refused(fixture.content.info(&sha256(data)).await, ErrorKind::NotFound);
}

pub(super) async fn commit_refuses_a_blob_whose_bytes_lie(fixture: Fixture) {
    let mut ingest = fixture.writer("liar").await.unwrap();
    ingest.write(0, Bytes::from_static(b"lies")).await.unwrap();
    let wrong = sha256(b"truth");
    refused(ingest.commit(rooted(Some(wrong.clone()))).await, ErrorKind::FailedPrecondition);
    drop(ingest);
    refused(fixture.content.info(&wrong).await, ErrorKind::NotFound);
    refused(fixture.content.info(&sha256(b"lies")).await, ErrorKind::NotFound);

    let mut ingest = fixture.writer("short").await.unwrap();
    ingest.write(0, Bytes::from_static(b"short")).await.unwrap();
    let longer = rooted(Some(sha256(b"short"))).with_size(b"longer");
    refused(ingest.commit(longer).await, ErrorKind::FailedPrecondition);
    drop(ingest);
    refused(fixture.content.info(&sha256(b"short")).await, ErrorKind::NotFound);
    // It stays, as it was.
    let status = fixture.content.ingest(&reference_of("short")).await.unwrap();
    assert_eq!(status.offset, 5);
}

pub(super) async fn what_is_there_already_is_said_so(fixture: Fixture) {
    let data = b"twice";
    let digest = fixture.blob(data).await;
    refused(fixture.expecting("again", data).await, ErrorKind::AlreadyExists);

    let mut ingest = fixture.writer("unawares").await.unwrap();
    ingest.write(0, Bytes::from_static(data)).await.unwrap();
    refused(ingest.commit(rooted(Some(digest.clone()))).await, ErrorKind::AlreadyExists);
    drop(ingest);
    refused(fixture.content.ingest(&reference_of("unawares")).await, ErrorKind::NotFound);
    assert_eq!(read_blob(&*fixture.content, &digest, 4096).await.unwrap(), data);
}

pub(super) async fn what_is_not_there_is_not_found(fixture: Fixture) {
    let (digest, reference) = (sha256(b"nowhere"), reference_of("nowhere"));
    refused(fixture.content.info(&digest).await, ErrorKind::NotFound);
    refused(fixture.content.reader(&digest).await, ErrorKind::NotFound);
    refused(fixture.content.delete(&digest).await, ErrorKind::NotFound);
    refused(fixture.content.ingest(&reference).await, ErrorKind::NotFound);
    refused(fixture.content.abort(&reference).await, ErrorKind::NotFound);
    assert!(fixture.content.list(&Filters::default()).await.unwrap().is_empty());
    assert!(fixture.content.ingests(&Filters::default()).await.unwrap().is_empty());
}

pub(super) async fn an_open_blob_outlives_its_removal(fixture: Fixture) {
    let data = b"read me anyway";
    let digest = fixture.blob(data).await;
    let reader = fixture.content.reader(&digest).await.unwrap();
    let local = reader.file().is_some();
    fixture.content.delete(&digest).await.unwrap();
    refused(fixture.content.info(&digest).await, ErrorKind::NotFound);
    refused(fixture.content.reader(&digest).await, ErrorKind::NotFound);
    refused(fixture.content.delete(&digest).await, ErrorKind::NotFound);
    // Over a wire there is nothing open.
    if local {
        assert_eq!(&reader.read_at(0, 100).await.unwrap()[..], data);
    }
    assert_eq!(fixture.blob(data).await, digest);
}

pub(super) async fn filters_choose_blobs(fixture: Fixture) {
    let first = fixture.blob(b"first").await;
    let second = fixture.blob(b"second").await;
    let list = async |filters: &[String]| {
        let filters = Filters::parse(filters).unwrap();
        let mut found: Vec<_> =
            fixture.content.list(&filters).await.unwrap().into_iter().map(|info| info.digest).collect();
        found.sort();
        found
    };
    let mut both = [first.clone(), second.clone()];
    both.sort();
    assert_eq!(list(&[]).await, both);
    assert_eq!(list(&[format!("digest=={first}")]).await, std::slice::from_ref(&first));
    assert_eq!(list(&[format!("digest!={first}")]).await, std::slice::from_ref(&second));
    assert_eq!(list(&[format!("digest=={first}"), format!("digest=={second}")]).await, both);
}

pub(super) async fn one_blob_comes_of_many_writers(fixture: Fixture) {
    let data = b"wanted by many";
    let digest = sha256(data);
    let writes = (0..8).map(async |number| {
        let mut ingest = fixture.writer(&format!("many-{number}")).await?;
        ingest.write(0, Bytes::from_static(data)).await?;
        ingest.commit(rooted(Some(digest.clone()))).await
    });
    let done = futures::future::join_all(writes).await;
    assert!(done.iter().any(Result::is_ok));
    for error in done.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{}", error.chain());
    }
    assert_eq!(read_blob(&*fixture.content, &digest, 4096).await.unwrap(), data);
    assert!(fixture.content.ingests(&Filters::default()).await.unwrap().is_empty());
}
