//! Images whose data is in the archive that lies in them.

use berth_archive::Reader;

use super::*;
use crate::IndexedLayer;

type Indexed = IndexedLayer<Bytes, Nothing>;

/// The image of an archive, as a differ makes it.
fn indexed(archive: &[u8]) -> Result<Vec<u8>, ErofsError> {
    let mut output = vec![0; Indexed::ARCHIVE as usize];
    output.extend_from_slice(archive);
    let mut layer = IndexedLayer::new(Cursor::new(output.clone()), Nothing, (0, 0))?;
    let mut reader = Reader::new(archive);
    while let Some(entry) = reader.next_entry().unwrap() {
        layer.entry(&entry, reader.offset())?;
    }
    let (image, finished) = layer.finish([3; 16], (&&output[..], archive.len() as u64))?;
    let image = image.into_inner();
    assert_eq!(finished.bytes, image.len() as u64);
    Ok(image)
}

fn archive(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = berth_archive::Writer::new(Vec::new());
    for (entry, data) in entries {
        writer.append(entry).unwrap();
        std::io::Write::write_all(&mut writer, data).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn an_index_shows_what_the_archive_holds_and_keeps_it() {
    let mut entries = Vec::new();
    for size in [0, 1, 511, 512, 513, 5000, 70_000] {
        let mut file = entry(&format!("sizes/{size}"), Kind::File);
        file.size = size;
        file.xattrs = vec![(b"user.long".to_vec(), vec![size as u8; 700])];
        entries.push((file, (0..size).map(|at| (at * 7 + size) as u8).collect()));
    }
    for length in [1, 479, 480, 481, 511, 512, 4095] {
        entries.push((entry(&format!("links/{length}"), Kind::Symlink(vec![b'x'; length])), Vec::new()));
    }
    for number in 0..300 {
        let name = format!("many/{number:0>width$}", width = 1 + number % 250);
        entries.push((entry(&name, Kind::HardLink(b"sizes/513".to_vec())), Vec::new()));
    }
    let archive = archive(&entries);
    let bytes = indexed(&archive).unwrap();
    let start = Indexed::ARCHIVE as usize;
    assert!(bytes[start..start + archive.len()] == archive, "the archive lies in the image");
    check(&bytes[..], bytes.len() as u64).unwrap();
    let image = Image::open(&bytes[..]).unwrap();
    for (entry, wanted) in &entries {
        let path = std::str::from_utf8(&entry.path).unwrap();
        let wanted = match &entry.kind {
            Kind::Symlink(text) => text,
            Kind::HardLink(_) => &entries[4].1,
            _ => wanted,
        };
        assert!(data(&image, path) == *wanted, "{path}");
    }
    assert_eq!(find(&image, "sizes/513").unwrap().links, 301);
    let shared = image.xattrs(&find(&image, "sizes/0").unwrap()).unwrap();
    assert_eq!(shared, [(b"user.long".to_vec(), vec![0; 700])]);
}

#[test]
fn a_file_with_holes_is_written_once_more() {
    let runs = vec![
        Segment { offset: 100, length: 10 },
        Segment { offset: 100_000, length: 1000 },
        Segment { offset: 299_999, length: 1 },
    ];
    let packed: Vec<u8> = (0..1011).map(|at| (at % 250) as u8 + 1).collect();
    let mut whole = vec![0; 300_000];
    let mut left = &packed[..];
    for run in &runs {
        let part = left.split_off(..run.length as usize).unwrap();
        whole[run.offset as usize..][..part.len()].copy_from_slice(part);
    }
    let mut member = entry("packed", Kind::File);
    member.size = 1011;
    let archive = archive(&[(member, packed)]);
    let mut output = vec![0; Indexed::ARCHIVE as usize];
    output.extend_from_slice(&archive);
    let mut layer = IndexedLayer::new(Cursor::new(output.clone()), Nothing, (0, 0)).unwrap();
    let mut sparse = entry("sparse", Kind::File);
    (sparse.size, sparse.segments) = (300_000, Some(runs));
    // The member's data begins behind its header.
    layer.entry(&sparse, 512).unwrap();
    let (image, _) = layer.finish([3; 16], (&&output[..], archive.len() as u64)).unwrap();
    let bytes = image.into_inner();
    check(&bytes[..], bytes.len() as u64).unwrap();
    assert!(data(&Image::open(&bytes[..]).unwrap(), "sparse") == whole);
    assert!(bytes.len() < 16_384, "holes take no room");
}

#[test]
fn data_that_does_not_begin_with_a_block_is_refused() {
    let mut layer = IndexedLayer::new(Bytes::default(), Nothing, (0, 0)).unwrap();
    let mut file = entry("file", Kind::File);
    file.size = 5;
    assert!(matches!(layer.entry(&file, 513), Err(ErofsError::Entry { .. })));
    assert!(matches!(layer.entry(&file, 1 << 41), Err(ErofsError::TooLarge)));
}
