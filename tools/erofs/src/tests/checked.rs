//! Images of others, looked through before a kernel reads them.

use std::sync::Arc;

use super::*;
use crate::OPAQUE;

/// The names of the directory that is damaged here, as they lie on the disk.
const NAMES: &[u8] = b"...aaaabbbbcccc";

fn good() -> Vec<u8> {
    let mut layer = layer();
    add(
        &mut layer,
        &[
            ("dir/aaaa", Kind::File),
            ("dir/bbbb", Kind::Symlink(b"target".to_vec())),
            ("dir/cccc", Kind::CharDevice { major: 1, minor: 3 }),
            ("other/", Kind::Directory),
        ],
    );
    let mut big = entry("big", Kind::File);
    big.size = 10_000;
    layer.entry(&big, &mut &vec![1; 10_000][..]).unwrap();
    image(layer)
}

fn refusal(image: &[u8]) -> String {
    let error = check(image, image.len() as u64).unwrap_err();
    error.to_string()
}

/// Where the entry of a name of that directory is.
fn entry_of(image: &[u8], number: usize) -> usize {
    let names = image.windows(NAMES.len()).position(|window| window == NAMES).unwrap();
    names - 12 * (5 - number)
}

/// Where the inode of a file is, and its number.
fn inode_of(image: &[u8], path: &str) -> (usize, u64) {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let image = Image::open(image).unwrap();
    let listed = image.list(&find(&image, folder).unwrap()).unwrap();
    let number = listed.into_iter().find(|item| item.name == name.as_bytes()).unwrap().number;
    ((image.metadata + 32 * number) as usize, number)
}

fn changed(place: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = good();
    image[place..place + bytes.len()].copy_from_slice(bytes);
    image
}

#[test]
fn what_is_written_here_is_let_through() {
    let image = good();
    let checked = check(&image[..], image.len() as u64).unwrap();
    assert_eq!((checked.names, checked.compressed), (6, false));
}

#[test]
fn a_directory_that_lies_is_refused() {
    let image = good();
    let (.., other) = inode_of(&image, "other");
    let root = Image::open(&image[..]).unwrap().root();
    let aaaa = entry_of(&image, 2);
    let names = aaaa + 12 * 3 + 3;
    let dir = |number: u64| [&number.to_le_bytes()[..], &image[aaaa + 8..aaaa + 10], &[2]].concat();
    for (bad, why) in [
        (changed(names, b"bbbbaaaa"), "not in order"),
        (changed(names, b"aaaaaaaa"), "not in order"),
        (changed(names, b"aa/a"), "slash"),
        (changed(names, b"aa\0aaaaa"), "overlap"),
        (changed(aaaa + 10, &[2]), "different kinds"),
        (changed(aaaa + 8, &[0xff, 0xff]), "overlap"),
        (changed(aaaa, &dir(root)), "two names"),
        (changed(aaaa, &dir(other)), "two names"),
        (changed(aaaa - 12, &other.to_le_bytes()), "not where its parent says"),
        (changed(aaaa - 24, &other.to_le_bytes()), "not where its parent says"),
        (changed(aaaa, &(u64::MAX / 2).to_le_bytes()), "out of reach"),
        (changed(aaaa, &(1_u64 << 40).to_le_bytes()), "cannot read"),
    ] {
        let error = refusal(&bad);
        assert!(error.contains(why), "{why}: {error}");
    }
}

#[test]
fn a_file_that_lies_is_refused() {
    let image = good();
    let at = |path| inode_of(&image, path).0;
    for (bad, why) in [
        (changed(at("big") + 16, &[0xff, 0, 0, 0]), "outside of the image"),
        (changed(at("big") + 8, &((1_u64 << 40) + 10_000).to_le_bytes()), "outside of the image"),
        (changed(at("big") + 8, &u64::MAX.to_le_bytes()), "larger than files can be"),
        (changed(at("big"), &[1 | 5 << 1]), "another layout"),
        (changed(at("big"), &[1 | 1 << 4]), "another form of inodes"),
        (changed(at("big") + 4, &[0, 0]), "of no kind"),
        (changed(at("dir/bbbb") + 8, &[0, 0x20]), "1 to 4095 bytes"),
        (changed(at("dir/bbbb") + 8, &[0, 0]), "1 to 4095 bytes"),
        (changed(at("dir/bbbb") + 64, b"ta\0get"), "NUL"),
        (changed(at("dir/cccc") + 8, &[1]), "has data"),
        (changed(at("other"), &[1 | 1 << 1]), "compressed directories"),
        (changed(at("other") + 4, &0o100_644_u16.to_le_bytes()), "different kinds"),
    ] {
        let error = refusal(&bad);
        assert!(error.contains(why), "{why}: {error}");
    }
    let cut = &image[..image.len() - 4096];
    assert!(check(cut, cut.len() as u64).unwrap_err().to_string().contains("shorter"));
}

#[test]
fn notes_that_point_into_other_layers_are_refused() {
    let with = |name: &[u8], value: &[u8]| {
        let mut builder = Builder::new(Bytes::default()).unwrap();
        let dir = builder.directory(builder.root(), b"dir", &Attributes::default()).unwrap();
        builder.set_xattr(dir, b"dir", name, value).unwrap();
        let image = builder.finish([0; 16]).unwrap().0.into_inner();
        check(&image[..], image.len() as u64).map(|checked| checked.names)
    };
    assert_eq!(with(OPAQUE.0, OPAQUE.1).unwrap(), 1);
    assert_eq!(with(b"security.capability", b"x").unwrap(), 1);
    for name in ["redirect", "metacopy", "opaque", "whiteout"] {
        for prefix in ["trusted", "user"] {
            let error = with(format!("{prefix}.overlay.{name}").as_bytes(), b"/etc").unwrap_err();
            assert!(error.to_string().contains("notes of overlayfs"), "{name}: {error}");
        }
    }
}

#[test]
fn what_lower_layers_hold_is_remembered() {
    let mut below = Remembered::default();
    let put = |below: &mut Remembered, members: &[(&str, Kind, u32)]| {
        let mut layer = Layer::new(Bytes::default(), Arc::new(below.clone()), (0, 0)).unwrap();
        for (path, kind, mode) in members {
            layer.entry(&Entry::new(*path, kind.clone(), *mode), &mut &b""[..]).unwrap();
        }
        let bytes = image(layer);
        below.add(&Image::open(&bytes[..]).unwrap()).unwrap();
        bytes
    };
    let mode = |bytes: &[u8], path: &str| find(&Image::open(bytes).unwrap(), path).unwrap().mode & 0o7777;
    put(
        &mut below,
        &[("a/", Kind::Directory, 0o700), ("a/b/", Kind::Directory, 0o710), ("ab/", Kind::Directory, 0o720)],
    );
    let second = put(&mut below, &[("a/b/x", Kind::File, 0o644), ("ab/.wh.y", Kind::File, 0o644)]);
    assert_eq!((mode(&second, "a"), mode(&second, "a/b"), mode(&second, "ab")), (0o700, 0o710, 0o720));
    // What was removed is not looked at any more, and what is beside it is.
    put(&mut below, &[(".wh.a", Kind::File, 0)]);
    let fourth = put(&mut below, &[("a/b/z", Kind::File, 0o644), ("ab/z", Kind::File, 0o644)]);
    assert_eq!((mode(&fourth, "a"), mode(&fourth, "a/b"), mode(&fourth, "ab")), (0o755, 0o755, 0o720));
    let fifth = put(&mut below, &[(".wh..wh..opq", Kind::File, 0)]);
    let image = Image::open(&fifth[..]).unwrap();
    let hidden: Vec<_> = ["a", "ab"].map(|name| find(&image, name).unwrap().device()).into();
    assert_eq!(hidden, [(0, 0), (0, 0)]);
}
