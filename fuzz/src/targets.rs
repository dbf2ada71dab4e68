//! What is tried, and what has to hold.

use std::path::Path;

use berth_archive::{Kind, Limits, Reader, Whiteout, clean};
use berth_cdi::DeviceName;
use berth_erofs::{Image, Layer, Nothing, check};
use berth_fuse::Request;
use berth_nri::proto::ContainerAdjustment;
use berth_oci::image::{Document, ImageConfig, media};
use berth_oci::runtime::Spec;
use berth_registry::{Config, challenges, hosts_of};
use berth_streaming::spdy::frame::{Decoder, Frame};
use berth_streaming::websocket::frame as websocket_frame;
use berth_types::ImageRef;
use prost::Message as _;

use crate::layers;

/// One parser.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name and that of its folder of seeds.
    pub name: &'static str,
    /// Words of its format.
    pub words: &'static [&'static str],
    /// Panics when something does not hold.
    pub run: fn(&[u8]),
}

/// Every parser of what comes from registries, images and their settings, from whoever streams and from plugins.
pub const TARGETS: &[Target] = &[
    Target {
        name: "reference",
        words: &["docker.io/", "library/", "@sha256:", ":", "/", "..", "[::1]", "localhost", "__", "%2f"],
        run: reference,
    },
    Target { name: "manifest", words: JSON, run: manifest },
    Target { name: "index", words: JSON, run: index },
    Target {
        name: "challenge",
        words: &["Bearer ", "Basic ", "realm=", "service=", "scope=", "\"", "\\\"", ",", " ", "=", "ä"],
        run: challenge,
    },
    Target {
        name: "hosts",
        words: &[
            "server = ",
            "[host.\"",
            "\"]",
            "capabilities = ",
            "[\"pull\"]",
            "ca = ",
            "client = ",
            "skip_verify = true",
            "http://",
            "https://",
            "[header]",
            "override_path = true",
            "dial_timeout = \"1h9m\"",
            "\n",
            "999999999999h",
        ],
        run: hosts,
    },
    Target {
        name: "tar",
        words: &[
            "ustar\0",
            "ustar  \0",
            "../",
            "/",
            "path=",
            "GNU.sparse.map=",
            "7777777",
            "\0\0\0\0\0\0\0\0",
        ],
        run: tar,
    },
    Target {
        name: "erofs-layer",
        words: &[
            "ustar\0",
            ".wh.",
            "../",
            "/",
            "path=",
            "SCHILY.xattr.user.a=",
            "GNU.sparse.map=",
            "7777777",
        ],
        run: erofs_layer,
    },
    Target {
        name: "erofs-image",
        words: &["\u{1}\0\0\0", "\u{5}\0", "\u{9}\0", "\0\u{10}\0\0", ".", "..", "\u{7f}\u{7f}\u{7f}\u{7f}"],
        run: erofs_image,
    },
    Target {
        name: "erofs-check",
        words: &["\u{1}\0\0\0", "\u{5}\0", "\u{9}\0", "\0\u{10}\0\0", ".", "..", "\u{7f}\u{7f}\u{7f}\u{7f}"],
        run: erofs_check,
    },
    Target {
        name: "whiteout",
        words: &[".wh.", ".wh..wh.", ".wh..wh..opq", ".", "..", "/", "\0"],
        run: whiteout,
    },
    Target {
        name: "spdy",
        words: &[
            "\u{0}\u{3}\u{0}\u{1}",
            "\u{0}\u{0}\u{0}\u{1}",
            "\u{0}\u{0}\u{0}\u{3}\u{1}\u{0}\u{0}\u{0}",
            "\u{7f}\u{7f}\u{7f}\u{7f}",
            "\u{0}\u{0}",
        ],
        run: spdy,
    },
    Target {
        name: "websocket",
        words: &[
            "\u{2}\u{7f}",
            "\u{0}\u{0}\u{0}\u{0}",
            "\u{1}~",
            "\u{9}\u{5}",
            "\u{0}\u{1}",
            "\u{7f}\u{7f}\u{7f}\u{7f}",
        ],
        run: websocket,
    },
    Target {
        name: "stargz",
        words: &[
            "\"type\":\"reg\"",
            "\"type\":\"chunk\"",
            "\"type\":\"hardlink\",\"linkName\":\"",
            "\"name\":\"",
            ".wh.",
            "../",
            "/",
            "\"size\":18446744073709551615",
            "\"chunkSize\":1",
            "\"chunkOffset\":1",
            "\"offset\":0",
            "\"innerOffset\":99999999",
            "},{",
            "\"chunkType\":\"zeros\"",
        ],
        run: layers::stargz,
    },
    Target {
        name: "stargz-footer",
        words: &["STARGZ", "GNUlInUx", "GnUlInUx", "P*M\u{18}", "@\0\0\0", "\u{7f}\u{7f}\u{7f}\u{7f}"],
        run: layers::stargz_footer,
    },
    Target {
        name: "layer-record",
        words: &[
            "ustar",
            "\u{1f}\u{8b}\u{8}",
            "(\u{b5}/\u{fd}",
            ".wh.",
            "stargz.index.json",
            "\0\0\0\0",
            "0000644",
        ],
        run: layers::layer_record,
    },
    Target { name: "layer-index", words: JSON, run: layers::layer_index },
    Target { name: "ztoc", words: ZTOC, run: layers::ztoc },
    Target { name: "ztoc-made", words: &["ustar\0", "../", "/", "path=", "7777777"], run: layers::ztoc_made },
    Target {
        name: "fuse",
        words: &["\u{1}\0\0\0", "\u{f}\0\0\0", "\u{1a}\0\0\0", "\u{2c}\0\0\0", "(\0\0\0", "\0", "name"],
        run: fuse,
    },
    Target {
        name: "deflate",
        words: &[
            "\u{1f}\u{0}\u{8}\u{0}",
            "\u{0}\u{0}",
            "\u{4}\u{0}",
            "\u{7f}\u{7f}",
            "\u{1}\u{0}\u{0}\u{7f}\u{7f}",
        ],
        run: layers::deflate,
    },
    Target {
        name: "recipe",
        words: &[
            "\u{3}\u{1b}",
            "\u{3}\u{10}",
            "\u{2}",
            "\u{4}\u{0}",
            "\u{1}\u{4}abcd",
            "\u{7}\u{4}file",
            "\u{7f}\u{7f}\u{7f}\u{7f}",
            "../",
        ],
        run: layers::recipe,
    },
    Target {
        name: "nri",
        words: &["-", "/", "..", "=", "rslave", "network", "\u{8}\u{7f}", "\u{1a}\u{2}\u{8}\u{1}", "\u{0}"],
        run: nri,
    },
    Target {
        name: "cdi",
        words: &[
            "cdiVersion: ",
            "\"0.7.0\"",
            "kind: vendor.com/gpu",
            "devices:\n- name: ",
            "containerEdits:",
            "deviceNodes:",
            "mounts:",
            "hooks:",
            "{path: /dev/a, hostPath: /dev/null}",
            "&a",
            "*a",
            "<<: ",
            "!!binary ",
            "\n  ",
            "0o777",
            "..",
        ],
        run: cdi,
    },
];

const ZTOC: &[&str] = &[
    "reg",
    "dir",
    "hardlink",
    "symlink",
    "char",
    "SCHILY.xattr.user.a",
    "GNU.sparse.map",
    ".wh.",
    "../",
    "sha256:",
    "\0\0\0\0",
    "\u{1}\0\0\0",
    "\u{7f}\u{7f}\u{7f}\u{7f}",
];

const JSON: &[&str] = &[
    "\"mediaType\":",
    "\"layers\":",
    "\"manifests\":",
    "\"config\":",
    "\"digest\":",
    "\"size\":",
    "-1",
    "1e400",
    "18446744073709551616",
    "null",
    "[",
    "]",
    "{",
    "}",
    ",",
    "\"sha256:",
    "\"platform\":",
    "\"\\ud800\"",
];

fn reference(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(reference) = text.parse::<ImageRef>() else { return };
    let written = reference.to_string();
    assert!(written.parse::<ImageRef>().is_ok_and(|again| again == reference), "{text:?} became {written:?}");
    for part in reference.path().split('/') {
        assert!(!part.is_empty() && part != "." && part != "..", "{text:?} has a path that leads elsewhere");
    }
}

fn manifest(input: &[u8]) {
    document(media::OCI_MANIFEST, input);
    // What a configuration says is read from the same kind of bytes.
    if let Ok(config) = serde_json::from_slice::<ImageConfig>(input) {
        berth_oci::image::chain_ids(&config.rootfs.diff_ids);
    }
}

fn index(input: &[u8]) {
    document(media::OCI_INDEX, input);
    document(media::DOCKER_INDEX, input);
}

fn document(kind: &str, input: &[u8]) {
    let Ok(document) = Document::parse(kind, input) else { return };
    let written = match &document {
        Document::Manifest(manifest) => serde_json::to_vec(manifest),
        Document::Index(index) => serde_json::to_vec(index),
    };
    let written = written.expect("what was read can be written");
    let again = Document::parse(kind, &written);
    assert!(again.is_ok_and(|again| again == document), "it is another document when it is read again");
}

fn challenge(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    assert!(challenges(&text) <= text.len(), "more challenges than characters");
}

fn hosts(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(hosts) = hosts_of(text, Path::new("/etc/x"), "r.test", &Config::default()) else { return };
    for host in hosts {
        let scheme = host.base.scheme();
        assert!(matches!(scheme, "http" | "https"), "{scheme}");
        assert!(host.base.host_str().is_some() && host.base.password().is_none());
        assert!(scheme == "https" || text.contains("http"), "nobody asked for a host without TLS");
    }
}

fn tar(input: &[u8]) {
    let limits = Limits { entries: 2000, ..Limits::default() };
    let mut reader = Reader::with_limits(input, limits);
    let mut buffer = [0; 4096];
    for _ in 0..=limits.entries {
        let Ok(Some(entry)) = reader.next_entry() else { return };
        assert!(entry.path.len() <= limits.path, "a path beyond its limit");
        if let Kind::HardLink(target) | Kind::Symlink(target) = &entry.kind {
            assert!(target.len() <= limits.path, "a target beyond its limit");
        }
        let cleaned = clean(&entry.path);
        assert!(!cleaned.starts_with(b"/") && !cleaned.split(|byte| *byte == b'/').any(|part| part == b".."));
        let mut data = reader.data();
        let mut length = 0;
        while let Ok(read @ 1..) = std::io::Read::read(&mut data, &mut buffer) {
            length += read;
            assert!(length <= input.len(), "more data than there is");
        }
    }
    panic!("more entries than its limit");
}

/// Takes as much as a layer of this size may need, so that what claims more is an error.
#[derive(Default)]
pub(crate) struct Room(std::io::Cursor<Vec<u8>>);

impl Room {
    const BYTES: u64 = 64 << 20;
}

impl std::io::Write for Room {
    fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
        if self.0.position() + part.len() as u64 > Self::BYTES {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.0.write(part)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl std::io::Seek for Room {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        self.0.seek(to)
    }
}

/// Whatever a layer says, the image of it can be read back, file by file.
fn erofs_layer(input: &[u8]) {
    let mut reader = Reader::with_limits(input, Limits { entries: 2000, ..Limits::default() });
    let mut layer = Layer::new(Room::default(), Nothing, (0, 0)).expect("nothing is written yet");
    while let Ok(Some(entry)) = reader.next_entry() {
        if layer.entry(&entry, &mut reader.data()).is_err() {
            return;
        }
    }
    let Ok((room, finished)) = layer.finish([0; 16]) else { return };
    let bytes = room.0.into_inner();
    assert_eq!(bytes.len() as u64, finished.bytes);
    let image = Image::open(&bytes[..]).expect("what was written can be read");
    let mut met = std::collections::BTreeSet::new();
    let mut waiting = vec![image.root()];
    while let Some(number) = waiting.pop() {
        if !met.insert(number) {
            continue;
        }
        let inode = image.inode(number).expect("a name leads to a file");
        image.xattrs(&inode).expect("its attributes are whole");
        if inode.is_directory() {
            let listed = image.list(&inode).expect("a directory is whole");
            assert!(listed.is_sorted_by(|one, next| one.name < next.name), "the kernel searches for names");
            waiting.extend(listed.iter().map(|item| item.number));
        } else if inode.size < Room::BYTES && inode.mode & 0o170_000 != 0o020_000 {
            image.read(&inode, &mut std::io::sink()).expect("a file's data is there");
        }
    }
    assert_eq!(met.len() as u64, finished.inodes);
}

/// An image that nobody has made is read as far as it can be, and never beyond its end.
fn erofs_image(input: &[u8]) {
    let Ok(image) = Image::open(input) else { return };
    let mut waiting = vec![image.root()];
    for _ in 0..100 {
        let Some(inode) = waiting.pop().and_then(|number| image.inode(number).ok()) else { return };
        let _ = image.xattrs(&inode);
        if inode.size > 1 << 20 {
            continue;
        }
        if inode.is_directory() {
            waiting.extend(image.list(&inode).unwrap_or_default().iter().map(|item| item.number));
        } else {
            let _ = image.read(&inode, &mut std::io::sink());
        }
    }
}

/// What is let through can be read to its end.
fn erofs_check(input: &[u8]) {
    let Ok(checked) = check(input, input.len() as u64) else { return };
    let image = match Image::open(input) {
        Ok(image) if !checked.compressed => image,
        _ => return,
    };
    let mut waiting = vec![image.root()];
    let mut names = 0;
    while let Some(number) = waiting.pop() {
        let inode = image.inode(number).expect("it was read before");
        image.xattrs(&inode).expect("they were read before");
        if inode.is_directory() {
            let listed = image.list(&inode).expect("it was read before");
            let others = listed.iter().filter(|item| item.name != b"." && item.name != b"..");
            names += others.clone().count() as u64;
            waiting.extend(others.map(|item| item.number));
        } else if inode.size < 1 << 24 {
            image.read(&inode, &mut std::io::sink()).expect("its data is inside of the image");
        }
    }
    assert_eq!(names, checked.names);
}

fn whiteout(input: &[u8]) {
    let name = input.split(|byte| *byte == b'/').next_back().unwrap_or_default();
    if let Some(Whiteout::Name(hidden)) = Whiteout::parse(name) {
        assert!(!matches!(hidden, b"" | b"." | b".."), "a marker that removes its own folder");
        assert_eq!(Whiteout::marker(hidden), name);
    }
}

/// What comes whole and what comes byte by byte is the same, and no payload grows on the way.
fn spdy(input: &[u8]) {
    let read = |step: usize| {
        let (mut decoder, mut frames, mut payload) = (Decoder::default(), Vec::new(), Vec::new());
        for part in input.chunks(step.max(1)) {
            decoder.buffer().extend_from_slice(part);
            loop {
                match decoder.take() {
                    Ok(Some(Frame::Data { bytes, .. })) => payload.extend_from_slice(&bytes),
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, payload, Some(error)),
                }
            }
        }
        (frames, payload, None)
    };
    let whole = read(input.len());
    assert!(whole.1.len() <= input.len());
    assert_eq!(whole, read(1));
}

/// What comes whole and what comes byte by byte is the same, no message grows on the way, and each begins and ends.
fn websocket(input: &[u8]) {
    let read = |step: usize| {
        let (mut decoder, mut frames, mut payload) =
            (websocket_frame::Decoder::default(), Vec::new(), Vec::new());
        let mut within = false;
        for part in input.chunks(step.max(1)) {
            decoder.buffer().extend_from_slice(part);
            loop {
                match decoder.take() {
                    Ok(Some(websocket_frame::Frame::Piece { first, bytes, last })) => {
                        assert_ne!(first, within, "a message begins when the one before has ended");
                        within = !last;
                        payload.extend_from_slice(&bytes);
                    }
                    Ok(Some(frame)) => frames.push((payload.len(), frame)),
                    Ok(None) => break,
                    Err(error) => return (frames, payload, Some(error)),
                }
            }
        }
        (frames, payload, None)
    };
    let whole = read(input.len());
    assert!(whole.1.len() <= input.len());
    assert_eq!(whole, read(1));
}

/// What a plugin asks for makes a document that can be written, whose mounts hide none of one another.
fn nri(input: &[u8]) {
    let Ok(adjustment) = ContainerAdjustment::decode(input) else { return };
    let mut spec = Spec::default();
    if berth_nri::apply(&mut spec, &adjustment).is_err() {
        return;
    }
    let written = Spec::from_slice(&spec.to_vec()).expect("what is written can be read");
    assert_eq!(written, spec);
    for (at, mount) in spec.mounts.iter().enumerate() {
        assert!(!mount.destination.starts_with('-'), "a removal is no mount");
        let over = format!("{}/", mount.destination.trim_end_matches('/'));
        let hidden = spec.mounts[..at].iter().any(|before| before.destination.starts_with(&over));
        assert!(!hidden || over == "/", "{} hides a mount before it", mount.destination);
    }
    berth_nri::describe(&spec);
}

/// What a vendor's file describes has names by which it is found, and is given to a container or is an error.
fn cdi(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    for name in ["vendor.yaml", "vendor.json"] {
        let mut spec = Spec::default();
        let Ok(devices) = berth_cdi::inject_file(&mut spec, Path::new(name), text) else { continue };
        assert!(!devices.is_empty(), "a file without a device is none");
        for device in devices {
            let again = device.to_string().parse::<DeviceName>();
            assert!(again.is_ok_and(|again| again == device), "{device} cannot be asked for");
        }
        let process = spec.process.unwrap_or_default();
        assert!(process.env.iter().all(|pair| pair.contains('=')), "an environment without a value");
        assert!(spec.mounts.iter().all(|mount| !mount.destination.is_empty()), "a mount nowhere");
    }
}

/// A request is read from what is there and from nothing behind it.
fn fuse(input: &[u8]) {
    if let Ok(request) = Request::parse(input) {
        let copy = input.to_vec();
        assert_eq!(Request::parse(&copy).expect("the same bytes are the same request"), request);
    }
}
