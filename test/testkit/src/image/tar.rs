//! A tar writer that writes what it is told: also what no honest tar holds.

/// The kind of an entry, as the byte of its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A second name of an earlier entry.
    Hardlink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A folder.
    Folder,
    /// A named pipe.
    Fifo,
    /// The next entry's PAX records.
    Pax,
    /// Any other byte.
    Other(u8),
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::File => b'0',
            Self::Hardlink => b'1',
            Self::Symlink => b'2',
            Self::CharDevice => b'3',
            Self::BlockDevice => b'4',
            Self::Folder => b'5',
            Self::Fifo => b'6',
            Self::Pax => b'x',
            Self::Other(byte) => byte,
        }
    }
}

/// One entry; every field goes into the header as it is.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Path; with more than 100 bytes a PAX record is written before.
    pub path: String,
    /// Kind.
    pub kind: Kind,
    /// Target of a link.
    pub link: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Device numbers.
    pub device: (u32, u32),
    /// Extended attributes and other PAX records, key and value.
    pub pax: Vec<(String, Vec<u8>)>,
    /// Contents.
    pub bytes: Vec<u8>,
    /// The size in the header when it is to lie.
    pub claimed_size: Option<u64>,
}

impl Entry {
    /// A root-owned entry of that kind at that path.
    pub fn new(kind: Kind, path: &str) -> Self {
        Self {
            path: path.to_owned(),
            kind,
            link: String::new(),
            mode: if kind == Kind::Folder { 0o755 } else { 0o644 },
            uid: 0,
            gid: 0,
            mtime: 1_600_000_000,
            device: (0, 0),
            pax: Vec::new(),
            bytes: Vec::new(),
            claimed_size: None,
        }
    }
}

/// A tar being written.
#[derive(Clone, Debug, Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    /// Adds an entry, behind its PAX records where it has some.
    #[must_use]
    pub fn entry(mut self, entry: &Entry) -> Self {
        let mut records = entry.pax.clone();
        if entry.path.len() > 100 {
            records.push(("path".to_owned(), entry.path.clone().into_bytes()));
        }
        if entry.link.len() > 100 {
            records.push(("linkpath".to_owned(), entry.link.clone().into_bytes()));
        }
        if !records.is_empty() {
            let mut before = Entry::new(Kind::Pax, "PaxHeaders/entry");
            before.bytes = records.iter().flat_map(|(key, value)| record(key, value)).collect();
            self.append(&before);
        }
        self.append(entry);
        self
    }

    /// The bytes, ended by two empty blocks.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    /// The bytes as they are: no end, as if the sender had gone.
    pub fn cut_off(self) -> Vec<u8> {
        self.0
    }

    fn append(&mut self, entry: &Entry) {
        self.0.extend_from_slice(&header(entry));
        self.0.extend_from_slice(&entry.bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }
}

/// A PAX record begins with its own length, which counts its own digits.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
}

fn header(entry: &Entry) -> [u8; 512] {
    let mut block = [0; 512];
    let size = entry.claimed_size.unwrap_or(entry.bytes.len() as u64);
    put(&mut block, 0, 100, entry.path.as_bytes());
    octal(&mut block, 100, 8, u64::from(entry.mode));
    octal(&mut block, 108, 8, u64::from(entry.uid));
    octal(&mut block, 116, 8, u64::from(entry.gid));
    octal(&mut block, 124, 12, size);
    octal(&mut block, 136, 12, entry.mtime);
    put(&mut block, 148, 8, b"        ");
    block[156] = entry.kind.byte();
    put(&mut block, 157, 100, entry.link.as_bytes());
    put(&mut block, 257, 8, b"ustar\x0000");
    octal(&mut block, 329, 8, u64::from(entry.device.0));
    octal(&mut block, 337, 8, u64::from(entry.device.1));
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    put(&mut block, 148, 8, format!("{sum:06o}\0 ").as_bytes());
    block
}

fn put(block: &mut [u8; 512], at: usize, room: usize, bytes: &[u8]) {
    let length = bytes.len().min(room);
    block[at..at + length].copy_from_slice(&bytes[..length]);
}

/// Digits where they fit, GNU's base 256 where not.
fn octal(block: &mut [u8; 512], at: usize, room: usize, value: u64) {
    let digits = format!("{value:0width$o}", width = room - 1);
    if digits.len() < room {
        return put(block, at, room, digits.as_bytes());
    }
    block[at] = 0x80;
    block[at + room - 8..at + room].copy_from_slice(&value.to_be_bytes());
    if room == 8 {
        block[at] |= 0x80;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Invocation, Scratch};

    #[test]
    fn the_machines_own_tar_reads_what_is_written() {
        let long = format!("folder/{}", "n".repeat(120));
        let mut file = Entry::new(Kind::File, &long);
        file.bytes = b"hello".to_vec();
        let tar = Tar::default().entry(&Entry::new(Kind::Folder, "folder")).entry(&file).finish();
        let scratch = Scratch::new();
        let path = scratch.file("it.tar", tar);
        let list = Invocation::new("tar").arg("-tf").arg(&path).ok();
        let names: Vec<&str> = list.lines().map(|name| name.trim_end_matches('/')).collect();
        assert_eq!(names, ["folder", &long]);
        let text = Invocation::new("tar").arg("-xOf").arg(&path).arg(&long).ok();
        assert_eq!(text, "hello");
    }
}
