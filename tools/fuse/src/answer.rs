//! Answers, as the kernel reads them.

use crate::filesystem::{Attributes, Kind, Statistics};

/// Seconds for which the kernel may keep what it was told: nothing ever changes.
const FOR_EVER: u64 = 1 << 30;

const BLOCK: u32 = 4096;

/// A buffer that is written number by number, in the machine's own order.
#[derive(Debug, Default)]
pub(crate) struct Answer(pub(crate) Vec<u8>);

impl Answer {
    fn word(&mut self, word: u32) -> &mut Self {
        self.0.extend_from_slice(&word.to_ne_bytes());
        self
    }

    fn long(&mut self, long: u64) -> &mut Self {
        self.0.extend_from_slice(&long.to_ne_bytes());
        self
    }

    fn zeros(&mut self, count: usize) -> &mut Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    /// `fuse_init_out`.
    pub(crate) fn init(settings: &Settings) -> Self {
        let mut answer = Self::default();
        let Settings { minor, readahead, flags, background, max_write, max_pages } = *settings;
        answer.word(7).word(minor).word(readahead).word(flags as u32);
        answer.word(u32::from(background) | u32::from(background / 4 * 3) << 16);
        answer.word(max_write).word(1).word(u32::from(max_pages)).word((flags >> 32) as u32).zeros(28);
        answer
    }

    /// `fuse_attr`.
    fn attributes(&mut self, attributes: &Attributes) -> &mut Self {
        let Attributes { node, kind, mode, uid, gid, size, links, mtime } = *attributes;
        self.long(node).long(size).long(size.div_ceil(512));
        let (seconds, nanos) = (mtime.seconds.cast_unsigned(), mtime.nanos);
        self.long(seconds).long(seconds).long(seconds).word(nanos).word(nanos).word(nanos);
        let device = match kind {
            Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => device(major, minor),
            _ => 0,
        };
        self.word(file_type(kind) | mode).word(links).word(uid).word(gid).word(device).word(BLOCK).word(0)
    }

    /// `fuse_attr_out`.
    pub(crate) fn attributes_alone(attributes: &Attributes) -> Self {
        let mut answer = Self::default();
        answer.long(FOR_EVER).long(0).attributes(attributes);
        answer
    }

    /// `fuse_entry_out`.
    pub(crate) fn entry(attributes: &Attributes) -> Self {
        let mut answer = Self::default();
        answer.entry_of(attributes);
        answer
    }

    /// `fuse_entry_out` of a name that nothing has: that too may be kept.
    pub(crate) fn nothing() -> Self {
        let mut answer = Self::default();
        answer.long(0).long(0).long(FOR_EVER).zeros(16 + 88);
        answer
    }

    fn entry_of(&mut self, attributes: &Attributes) -> &mut Self {
        self.long(attributes.node).long(0).long(FOR_EVER).long(FOR_EVER).long(0).attributes(attributes)
    }

    /// Adds a `fuse_dirent`, unless it makes the answer longer than `limit`.
    pub(crate) fn list(&mut self, named: &Named<'_>, limit: usize) -> bool {
        let fits = self.0.len() + named.length() <= limit;
        if fits {
            self.named(named);
        }
        fits
    }

    /// Adds a `fuse_direntplus`, unless it makes the answer longer than `limit`. `known` is false for what the kernel
    /// shall not look up: `.` and `..`.
    pub(crate) fn list_attributes(&mut self, named: &Named<'_>, known: bool, limit: usize) -> bool {
        const ENTRY: usize = 128;
        let fits = self.0.len() + ENTRY + named.length() <= limit;
        if fits && known {
            self.entry_of(&named.attributes).named(named);
        } else if fits {
            self.zeros(ENTRY).named(named);
        }
        fits
    }

    fn named(&mut self, named: &Named<'_>) {
        let Named { name, next, attributes } = named;
        self.long(attributes.node).long(*next).word(name.len() as u32);
        self.word(file_type(attributes.kind) >> 12).0.extend_from_slice(name);
        self.zeros(name.len().next_multiple_of(8) - name.len());
    }

    /// `fuse_getxattr_out`.
    pub(crate) fn size(size: usize) -> Self {
        let mut answer = Self::default();
        answer.word(size as u32).word(0);
        answer
    }

    /// `fuse_kstatfs`.
    pub(crate) fn statistics(statistics: Statistics) -> Self {
        let mut answer = Self::default();
        let blocks = statistics.bytes.div_ceil(u64::from(BLOCK));
        answer.long(blocks).long(0).long(0).long(statistics.files).long(0);
        answer.word(BLOCK).word(255).word(BLOCK).zeros(28);
        answer
    }
}

/// What is agreed on at the beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) minor: u32,
    pub(crate) readahead: u32,
    pub(crate) flags: u64,
    /// Requests under way that nobody waits for.
    pub(crate) background: u16,
    pub(crate) max_write: u32,
    /// Pages of one read at most.
    pub(crate) max_pages: u16,
}

/// A name with what has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'a> {
    pub(crate) name: &'a [u8],
    /// The place behind it.
    pub(crate) next: u64,
    pub(crate) attributes: Attributes,
}

impl Named<'_> {
    fn length(&self) -> usize {
        24 + self.name.len().next_multiple_of(8)
    }
}

/// `S_IFMT` of a mode.
fn file_type(kind: Kind) -> u32 {
    match kind {
        Kind::Fifo => 0o010_000,
        Kind::CharDevice(..) => 0o020_000,
        Kind::Directory => 0o040_000,
        Kind::BlockDevice(..) => 0o060_000,
        Kind::File => 0o100_000,
        Kind::Symlink => 0o120_000,
    }
}

/// A device's numbers in one word (the kernel's `new_encode_dev`).
fn device(major: u32, minor: u32) -> u32 {
    minor & 0xff | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
}
