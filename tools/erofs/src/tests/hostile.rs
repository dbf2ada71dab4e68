//! Members that nobody should have written.

use super::*;

fn refused(members: &[(&str, Kind)]) -> String {
    let mut layer = layer();
    let (last, before) = members.split_last().unwrap();
    add(&mut layer, before);
    layer.entry(&entry(last.0, last.1.clone()), &mut &b""[..]).unwrap_err().to_string()
}

#[test]
fn what_no_file_system_holds_is_refused_by_name() {
    let link = |to: &str| Kind::Symlink(to.as_bytes().to_vec());
    for (members, why) in [
        (&[("x".repeat(256).as_str(), Kind::File)][..], "255 bytes"),
        (&[("a\0b", Kind::File)], "no name of a file"),
        (&[("f", Kind::File), ("f/g", Kind::File)], "is none"),
        (&[("a", link("b")), ("b", link("a")), ("a/x", Kind::File)], "40 links"),
        (&[("h", Kind::HardLink(b"nothing".to_vec()))], "not in the layer"),
        (&[("d/", Kind::Directory), ("h", Kind::HardLink(b"d".to_vec()))], "one name only"),
        (&[("l", link(""))], "1 to 4095"),
        (&[("l", link(&"x".repeat(4096)))], "1 to 4095"),
        (&[("n", Kind::CharDevice { major: 4096, minor: 0 })], "4095"),
        (&[("d/.wh...", Kind::File)], "whiteout"),
    ] {
        let error = refused(members);
        assert!(error.contains(why), "{members:?}: {error}");
    }
}

#[test]
fn a_link_to_what_it_replaces_is_refused() {
    let target = Kind::HardLink(b"d/f".to_vec());
    assert!(refused(&[("d/f", Kind::File), ("d", target)]).contains("not in the layer"));
}

#[test]
fn a_size_without_data_is_an_error_and_takes_no_room() {
    let mut layer = layer();
    let mut file = entry("short", Kind::File);
    file.size = 1 << 40;
    let error = layer.entry(&file, &mut &b"few bytes"[..]).unwrap_err();
    assert!(matches!(error, ErofsError::Data { .. }), "{error}");
}

/// Takes everything and keeps nothing.
struct Nowhere;

impl std::io::Write for Nowhere {
    fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
        Ok(part.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl std::io::Seek for Nowhere {
    fn seek(&mut self, _to: std::io::SeekFrom) -> std::io::Result<u64> {
        Ok(0)
    }
}

#[test]
fn an_image_larger_than_its_numbers_is_refused() {
    let mut layer = Layer::new(Nowhere, Nothing, (0, 0)).unwrap();
    // Two chunks of 8 TiB with a byte each.
    let runs = vec![Segment { offset: 0, length: 1 }, Segment { offset: 1 << 43, length: 1 }];
    let mut file = entry("wide", Kind::File);
    (file.size, file.segments) = (1 << 62, Some(runs));
    let error = layer.entry(&file, &mut &b"ab"[..]).unwrap_err();
    assert!(matches!(error, ErofsError::TooLarge), "{error}");
}

#[test]
fn maps_and_attributes_have_bounds() {
    let mut layer = layer();
    let mut holes = entry("holes", Kind::File);
    (holes.size, holes.segments) = (i64::MAX as u64, Some(Vec::new()));
    let refused = (0..100).find_map(|_| layer.entry(&holes, &mut &b""[..]).err());
    assert!(matches!(refused, Some(ErofsError::TooMany("chunks of files with holes"))), "{refused:?}");
    let mut builder = Builder::new(Bytes::default()).unwrap();
    let root = builder.root();
    let refused = (0..2000_u32).find_map(|number| {
        let value = [&number.to_le_bytes()[..], &vec![0; 60_000]].concat();
        builder.set_xattr(root, b"/", b"user.big", &value).err()
    });
    assert!(matches!(refused, Some(ErofsError::TooMany(_))), "{refused:?}");
}

#[test]
fn a_file_with_more_attributes_than_an_inode_can_count_is_refused() {
    let mut layer = layer();
    let mut file = entry("f", Kind::File);
    file.xattrs = (0..6).map(|n| (format!("user.{n}").into_bytes(), vec![n; 60_000])).collect();
    layer.entry(&file, &mut &b""[..]).unwrap();
    assert!(matches!(layer.finish([0; 16]), Err(ErofsError::TooMany(_))));
}

#[test]
fn damage_is_told_and_never_followed() {
    let mut layer = layer();
    add(&mut layer, &[("dir/file", Kind::File), ("dir/link", Kind::Symlink(b"x".to_vec()))]);
    let good = image(layer);
    let mut other = good.clone();
    other[1024 + 40] ^= 1;
    assert!(Image::open(&other[..]).unwrap_err().to_string().contains("checksum"));
    assert!(Image::open(&good[..2000]).is_err());
    other = good.clone();
    other[1024] = 0;
    assert!(Image::open(&other[..]).unwrap_err().to_string().contains("no EROFS image"));
}
