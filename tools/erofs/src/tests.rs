use std::io::Cursor;

use berth_archive::{Entry, Kind, Segment, Time};

use crate::{Attributes, Below, Builder, ErofsError, Image, Inode, Layer, Nothing, Remembered, check};

mod checked;
mod hostile;
mod indexed;
mod model;

type Bytes = Cursor<Vec<u8>>;

fn layer() -> Layer<Bytes, Nothing> {
    Layer::new(Bytes::default(), Nothing, (0, 0)).unwrap()
}

/// Layers below of which nothing is asked that they have.
struct Empty;

impl Below for Empty {
    fn directory(&mut self, _path: &[u8]) -> std::io::Result<Option<Attributes>> {
        Ok(None)
    }

    fn root_names(&mut self) -> std::io::Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }
}

fn entry(path: &str, kind: Kind) -> Entry {
    Entry::new(path, kind, 0o644)
}

/// Adds members, files with their paths as data.
fn add<B: Below>(layer: &mut Layer<Bytes, B>, members: &[(&str, Kind)]) {
    for (path, kind) in members {
        let mut entry = entry(path, kind.clone());
        if *kind == Kind::File {
            entry.size = path.len() as u64;
        }
        layer.entry(&entry, &mut path.as_bytes()).unwrap();
    }
}

fn image<B: Below>(layer: Layer<Bytes, B>) -> Vec<u8> {
    layer.finish([7; 16]).unwrap().0.into_inner()
}

/// Follows names from the root.
fn find(image: &Image<&[u8]>, path: &str) -> Option<Inode> {
    let mut at = image.inode(image.root()).unwrap();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let listed = image.list(&at).unwrap();
        let found = listed.iter().find(|item| item.name == name.as_bytes())?;
        at = image.inode(found.number).unwrap();
    }
    Some(at)
}

fn data(image: &Image<&[u8]>, path: &str) -> Vec<u8> {
    let mut data = Vec::new();
    image.read(&find(image, path).unwrap(), &mut data).unwrap();
    data
}

/// What a file is in one word: its type, and overlayfs' marks.
fn word(image: &Image<&[u8]>, path: &str) -> &'static str {
    let Some(inode) = find(image, path) else { return "none" };
    let opaque = image.xattrs(&inode).unwrap().iter().any(|(name, _)| name == b"trusted.overlay.opaque");
    match inode.mode & 0o170_000 {
        0o100_000 => "file",
        0o040_000 if opaque => "opaque",
        0o040_000 => "dir",
        0o120_000 => "link",
        0o020_000 if inode.device() == (0, 0) => "mark",
        _ => "other",
    }
}

#[test]
fn every_kind_of_file_is_read_back() {
    let mut layer = layer();
    let mut file = entry("dir/file", Kind::File);
    (file.mode, file.uid, file.gid, file.size) = (0o4755, 100_000, 200_000, 9000);
    file.mtime = Time { seconds: -5, nanos: 999_999_999 };
    file.xattrs = vec![(b"user.a".to_vec(), b"1".to_vec()), (b"security.capability".to_vec(), vec![1; 20])];
    let bytes: Vec<u8> = (0..9000_u32).map(|n| (n % 251) as u8).collect();
    layer.entry(&file, &mut &bytes[..]).unwrap();
    add(
        &mut layer,
        &[
            ("dir/link", Kind::Symlink(b"file".to_vec())),
            ("dir/other-name", Kind::HardLink(b"dir/file".to_vec())),
            ("fifo", Kind::Fifo),
            ("null", Kind::CharDevice { major: 1, minor: 3 }),
            ("disk", Kind::BlockDevice { major: 259, minor: 70_000 }),
            ("empty", Kind::File),
        ],
    );
    let bytes_of = image(layer);
    let image = Image::open(&bytes_of[..]).unwrap();
    let inode = find(&image, "dir/file").unwrap();
    // The last member of a file tells what it is like, but for attributes that it does not name.
    assert_eq!((inode.mode, inode.uid, inode.links), (0o100_644, 0, 2));
    assert_eq!(find(&image, "dir/other-name").unwrap(), inode);
    let mut xattrs = image.xattrs(&inode).unwrap();
    xattrs.sort();
    assert_eq!(xattrs[1], (b"user.a".to_vec(), b"1".to_vec()));
    assert_eq!(data(&image, "dir/file"), bytes);
    assert_eq!(data(&image, "dir/link"), b"file");
    assert_eq!(find(&image, "disk").unwrap().device(), (259, 70_000));
    assert_eq!(find(&image, "fifo").unwrap().mode, 0o010_644);
    assert_eq!((find(&image, "").unwrap().links, image.inodes()), (3, 8));
    assert_eq!(bytes_of.len() % 4096, 0);
}

#[test]
fn removals_become_the_marks_of_overlayfs() {
    let mut layer = Layer::new(Bytes::default(), Empty, (0, 0)).unwrap();
    add(
        &mut layer,
        &[
            ("a/.wh.gone", Kind::File),
            ("b/.wh..wh..opq", Kind::File),
            ("b/new", Kind::File),
            ("own", Kind::File),
            (".wh.own", Kind::File),
            ("folder/", Kind::Directory),
            (".wh.folder", Kind::File),
            ("replaced", Kind::File),
            ("replaced/", Kind::Directory),
            (".wh..wh.plnk", Kind::File),
            (".wh.back", Kind::File),
            ("back/", Kind::Directory),
            (".wh..wh..opq", Kind::File),
        ],
    );
    let bytes = image(layer);
    let image = Image::open(&bytes[..]).unwrap();
    let words: Vec<&str> = ["a", "a/gone", "b", "b/new", "own", "folder", "replaced", "back", ".wh..wh.plnk"]
        .map(|path| word(&image, path))
        .into();
    assert_eq!(words, ["dir", "mark", "opaque", "file", "file", "opaque", "opaque", "opaque", "none"]);
    let root = image.inode(image.root()).unwrap();
    assert!(image.xattrs(&root).unwrap().is_empty(), "the root is never opaque");
}

#[test]
fn removals_from_nothing_mean_nothing() {
    let mut layer = layer();
    let members = [
        (".wh.gone", Kind::File),
        ("d/.wh..wh..opq", Kind::File),
        ("f", Kind::File),
        ("f/", Kind::Directory),
    ];
    add(&mut layer, &members);
    let bytes = image(layer);
    let image = Image::open(&bytes[..]).unwrap();
    assert_eq!(["gone", "d", "f"].map(|path| word(&image, path)), ["none", "dir", "dir"]);
}

/// One folder below, and two names at the root.
struct One;

impl Below for One {
    fn directory(&mut self, path: &[u8]) -> std::io::Result<Option<Attributes>> {
        let xattrs = vec![(b"trusted.overlay.opaque".to_vec(), b"y".to_vec()), (b"user.x".to_vec(), vec![1])];
        let found = Attributes { mode: 0o1777, uid: 3, gid: 4, xattrs, ..Attributes::default() };
        Ok((path == b"var/tmp").then_some(found))
    }

    fn root_names(&mut self) -> std::io::Result<Vec<Vec<u8>>> {
        Ok(vec![b"etc".to_vec(), b"var".to_vec()])
    }
}

#[test]
fn folders_that_no_member_tells_of_are_like_those_below() {
    let mut layer = Layer::new(Bytes::default(), One, (5, 6)).unwrap();
    add(&mut layer, &[("var/tmp/x", Kind::File), (".wh..wh..opq", Kind::File)]);
    let bytes = image(layer);
    let image = Image::open(&bytes[..]).unwrap();
    let inode = |path| find(&image, path).unwrap();
    assert_eq!((inode("var").mode, inode("var/tmp").mode, inode("var/tmp").uid), (0o040_755, 0o041_777, 3));
    assert_eq!(image.xattrs(&inode("var/tmp")).unwrap(), [(b"user.x".to_vec(), vec![1])]);
    assert_eq!((inode("").uid, inode("").gid), (5, 6));
    assert_eq!((word(&image, "etc"), word(&image, "var")), ("mark", "opaque"));
}

#[test]
fn links_in_paths_are_followed_inside_the_layer() {
    let mut layer = layer();
    add(
        &mut layer,
        &[
            ("usr/lib/", Kind::Directory),
            ("lib", Kind::Symlink(b"usr/lib".to_vec())),
            ("out", Kind::Symlink(b"../../../usr".to_vec())),
            ("made", Kind::Symlink(b"/new/place".to_vec())),
            ("lib/a", Kind::File),
            ("out/b", Kind::File),
            ("made/c", Kind::File),
            ("d", Kind::HardLink(b"lib/a".to_vec())),
        ],
    );
    let bytes = image(layer);
    let image = Image::open(&bytes[..]).unwrap();
    for path in ["usr/lib/a", "usr/b", "new/place/c", "d"] {
        assert_eq!(word(&image, path), "file", "{path}");
    }
    assert_eq!(find(&image, "d").unwrap().links, 2);
}

#[test]
fn holes_take_no_room() {
    let mut layer = layer();
    let runs = vec![
        Segment { offset: 5000, length: 10 },
        Segment { offset: 20 << 20, length: 5000 },
        Segment { offset: (64 << 20) - 1, length: 1 },
    ];
    let mut sparse = entry("sparse", Kind::File);
    (sparse.size, sparse.segments) = (64 << 20, Some(runs.clone()));
    let stored: Vec<u8> = (0..5011_u32).map(|n| (n % 250) as u8 + 1).collect();
    layer.entry(&sparse, &mut &stored[..]).unwrap();
    let mut hole = entry("hole", Kind::File);
    (hole.size, hole.segments) = (i64::MAX as u64, Some(Vec::new()));
    layer.entry(&hole, &mut &b""[..]).unwrap();
    let bytes = image(layer);
    assert!(bytes.len() < 8 << 20, "{} bytes", bytes.len());
    check(&bytes[..], bytes.len() as u64).unwrap();
    let image = Image::open(&bytes[..]).unwrap();
    assert_eq!(find(&image, "hole").unwrap().size, i64::MAX as u64);
    /// Sees where the data is, without keeping the zeros.
    struct Seen(u64, Vec<(u64, u8)>);
    impl std::io::Write for Seen {
        fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
            if part.iter().any(|byte| *byte != 0) {
                let at = self.0;
                self.1.extend((at..).zip(part.iter().copied()).filter(|(_, byte)| *byte != 0));
            }
            self.0 += part.len() as u64;
            Ok(part.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut seen = Seen(0, Vec::new());
    image.read(&find(&image, "sparse").unwrap(), &mut seen).unwrap();
    let wanted = runs.iter().flat_map(|run| run.offset..run.offset + run.length).zip(stored);
    assert_eq!((seen.0, seen.1), (64 << 20, wanted.collect()));
}

#[test]
fn the_same_members_give_the_same_bytes() {
    let make = || {
        let mut layer = layer();
        for number in 0..500 {
            let mut file = entry(&format!("dir-{}/{number}", number % 7), Kind::File);
            file.xattrs = vec![(b"user.n".to_vec(), vec![(number % 3) as u8; 30])];
            file.size = number * 13;
            layer.entry(&file, &mut &vec![1; number as usize * 13][..]).unwrap();
        }
        image(layer)
    };
    let (one, other) = (make(), make());
    assert!(one == other);
    let shared = |needle: &[u8]| one.windows(needle.len()).filter(|window| *window == needle).count();
    assert_eq!(shared(&[2; 30]), 1, "what many files have is written once");
}

#[test]
fn a_directory_can_have_any_number_of_names() {
    let mut layer = layer();
    for number in 0..20_000 {
        layer
            .entry(&entry(&format!("d/{number:0>width$}", width = number % 200), Kind::File), &mut &b""[..])
            .unwrap();
    }
    let long = "x".repeat(255);
    add(&mut layer, &[(&long, Kind::File), ("!first", Kind::File), ("-second", Kind::File)]);
    let bytes = image(layer);
    assert_eq!(check(&bytes[..], bytes.len() as u64).unwrap().names, 20_004);
    let image = Image::open(&bytes[..]).unwrap();
    let names = |path| -> Vec<Vec<u8>> {
        image.list(&find(&image, path).unwrap()).unwrap().into_iter().map(|item| item.name).collect()
    };
    assert_eq!(names(""), [&b"!first"[..], b"-second", b".", b"..", b"d", long.as_bytes()]);
    let many = names("d");
    assert_eq!(many.len(), 20_002);
    assert!(many.is_sorted());
}

#[test]
fn a_builder_takes_sockets_and_names_what_cannot_be() {
    let mut builder = Builder::new(Bytes::default()).unwrap();
    let (root, plain) = (builder.root(), Attributes::default());
    builder.special(root, b"socket", &plain, crate::Special::Socket).unwrap();
    let error = builder.hard_link(root, b"again", root).unwrap_err();
    assert!(matches!(error, ErofsError::Entry { .. }), "{error}");
    let bytes = builder.finish([0; 16]).unwrap().0.into_inner();
    assert_eq!(find(&Image::open(&bytes[..]).unwrap(), "socket").unwrap().mode, 0o140_000);
}
