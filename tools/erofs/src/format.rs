//! The form of what is on disk, as fs/erofs/erofs_fs.h lays it down. All numbers are little-endian.

/// Bytes of a block.
pub(crate) const BLOCK: usize = 4096;
/// Bytes of a block of an image whose data is in an archive: the archive's own.
pub(crate) const SMALL_BLOCK: usize = 512;
/// Bytes before anything but the superblock, whatever a block has.
pub(crate) const HEAD: usize = 4096;
/// Inodes stand at multiples of this; a node's number is its offset in the metadata by it.
pub(crate) const SLOT: u64 = 32;
/// Bytes of an extended inode, and of a compact one.
pub(crate) const INODE: usize = 64;
pub(crate) const COMPACT_INODE: usize = 32;
/// Bytes of a directory entry without its name.
pub(crate) const ENTRY: usize = 12;
/// Bytes of the longest name.
pub(crate) const NAME: usize = 255;

pub(crate) const SUPER_OFFSET: usize = 1024;
pub(crate) const SUPER_SIZE: usize = 128;
pub(crate) const MAGIC: u32 = 0xE0F5_E1E2;
pub(crate) const COMPAT_CHECKSUM: u32 = 0x1;
pub(crate) const COMPAT_MTIME: u32 = 0x2;
pub(crate) const INCOMPAT_CHUNKS: u32 = 0x4;

/// Compressed data, and where it may lie. Of the fourth, which a table of devices has too, only that.
pub(crate) const INCOMPAT_COMPRESSION: u32 = 0x1 | 0x2 | 0x8 | 0x10 | 0x20;

/// A table tells of further devices that data is on.
pub(crate) const INCOMPAT_DEVICES: u32 = 0x8;
/// Bytes of an entry of that table, which stands at a multiple of them.
pub(crate) const DEVICE_SLOT: usize = 128;

/// A map of chunks has eight bytes for each, with the number of a device.
pub(crate) const CHUNK_INDEXES: u32 = 0x20;

/// Where a chunk of zeros lies: nowhere.
pub(crate) const HOLE: u32 = u32::MAX;
/// The most that a map of chunks can shift the size of a block.
pub(crate) const CHUNK_BITS: u8 = 31;

/// Types of files in modes.
pub(crate) const TYPE: u16 = 0o170_000;
pub(crate) const REGULAR: u16 = 0o100_000;
pub(crate) const DIRECTORY: u16 = 0o040_000;
pub(crate) const SYMLINK: u16 = 0o120_000;
pub(crate) const CHARACTER: u16 = 0o020_000;
pub(crate) const BLOCK_DEVICE: u16 = 0o060_000;
pub(crate) const FIFO: u16 = 0o010_000;
pub(crate) const SOCKET: u16 = 0o140_000;

/// How an inode's data is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In blocks one after the other.
    Plain = 0,
    /// The same, and what does not fill the last one is behind the inode.
    Inline = 2,
    /// In chunks, whose blocks a table behind the inode tells.
    Chunks = 4,
}

/// The kind of a file in directory entries.
pub(crate) fn entry_type(mode: u16) -> u8 {
    match mode & TYPE {
        REGULAR => 1,
        DIRECTORY => 2,
        CHARACTER => 3,
        BLOCK_DEVICE => 4,
        FIFO => 5,
        SOCKET => 6,
        SYMLINK => 7,
        _ => 0,
    }
}

/// The superblock's fields that differ between images.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Super {
    pub(crate) root: u16,
    pub(crate) inodes: u64,
    pub(crate) blocks: u32,
    pub(crate) metadata: u32,
    pub(crate) xattrs: u32,
    pub(crate) uuid: [u8; 16],
    pub(crate) incompatible: u32,
    /// Bytes of a block.
    pub(crate) block: usize,
    /// Further devices, and where their table begins, in entries of it.
    pub(crate) devices: u16,
    pub(crate) device_slot: u16,
}

/// A device whose blocks have numbers here, from `start` on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceFields {
    pub(crate) blocks: u32,
    pub(crate) start: u32,
}

/// A device's entry of the table.
pub(crate) fn encode_device_slot(device: DeviceFields) -> [u8; DEVICE_SLOT] {
    let mut slot = [0; DEVICE_SLOT];
    slot[64..68].copy_from_slice(&device.blocks.to_le_bytes());
    slot[68..72].copy_from_slice(&device.start.to_le_bytes());
    slot
}

impl Super {
    /// The image's beginning.
    pub(crate) fn encode(&self) -> [u8; HEAD] {
        let mut block = [0; HEAD];
        let at = &mut block[SUPER_OFFSET..];
        at[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        at[8..12].copy_from_slice(&(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
        at[12] = self.block.trailing_zeros() as u8;
        at[14..16].copy_from_slice(&self.root.to_le_bytes());
        at[16..24].copy_from_slice(&self.inodes.to_le_bytes());
        at[36..40].copy_from_slice(&self.blocks.to_le_bytes());
        at[40..44].copy_from_slice(&self.metadata.to_le_bytes());
        at[44..48].copy_from_slice(&self.xattrs.to_le_bytes());
        at[48..64].copy_from_slice(&self.uuid);
        at[80..84].copy_from_slice(&self.incompatible.to_le_bytes());
        at[86..88].copy_from_slice(&self.devices.to_le_bytes());
        at[88..90].copy_from_slice(&self.device_slot.to_le_bytes());
        // Of the block from the superblock on, or a whole one, with zeros for the checksum itself.
        let checksum = crc32c(&at[..checked_length(self.block)]);
        at[4..8].copy_from_slice(&checksum.to_le_bytes());
        block
    }
}

/// Bytes of which the superblock's checksum is, by the bytes of a block.
pub(crate) fn checked_length(block: usize) -> usize {
    if block > SUPER_OFFSET { block - SUPER_OFFSET } else { block }
}

/// An inode's fields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InodeFields {
    pub(crate) layout: Layout,
    /// Words of the attributes behind it, as the format counts them.
    pub(crate) xattr_words: u16,
    pub(crate) mode: u16,
    pub(crate) size: u64,
    /// The first block, the device, or the form of the chunks.
    pub(crate) union: u32,
    pub(crate) number: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
    pub(crate) links: u32,
}

impl InodeFields {
    pub(crate) fn encode(&self) -> [u8; INODE] {
        let mut inode = [0; INODE];
        let form = 1 | (self.layout as u16) << 1;
        inode[0..2].copy_from_slice(&form.to_le_bytes());
        inode[2..4].copy_from_slice(&self.xattr_words.to_le_bytes());
        inode[4..6].copy_from_slice(&self.mode.to_le_bytes());
        inode[8..16].copy_from_slice(&self.size.to_le_bytes());
        inode[16..20].copy_from_slice(&self.union.to_le_bytes());
        inode[20..24].copy_from_slice(&self.number.to_le_bytes());
        inode[24..28].copy_from_slice(&self.uid.to_le_bytes());
        inode[28..32].copy_from_slice(&self.gid.to_le_bytes());
        inode[32..40].copy_from_slice(&self.seconds.to_le_bytes());
        inode[40..44].copy_from_slice(&self.nanos.to_le_bytes());
        inode[44..48].copy_from_slice(&self.links.to_le_bytes());
        inode
    }
}

/// A device's number as the kernel's `new_encode_dev` has it: 12 bits of major and 20 of minor number.
pub(crate) fn encode_device(major: u32, minor: u32) -> Option<u32> {
    let fits = major < 1 << 12 && minor < 1 << 20;
    fits.then_some((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

/// The other way.
pub(crate) fn decode_device(device: u32) -> (u32, u32) {
    ((device & 0x000f_ff00) >> 8, (device & 0xff) | ((device >> 12) & 0x000f_ff00))
}

/// The checksum of iSCSI (RFC 3720, appendix B.4), begun with ones and not inverted at the end.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_its_standard() {
        // RFC 3720's examples, inverted as there.
        assert_eq!(!crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(!crc32c(&[0xff; 32]), 0x62A8_AB43);
    }

    #[test]
    fn devices_are_numbered_as_the_kernel_does() {
        for (major, minor, number) in
            [(0, 0, 0), (1, 3, 0x103), (4095, 0xf_ffff, 0xffff_ffff), (8, 256, 0x10_0800)]
        {
            assert_eq!(encode_device(major, minor), Some(number));
            assert_eq!(decode_device(number), (major, minor));
        }
        assert_eq!((encode_device(4096, 0), encode_device(0, 1 << 20)), (None, None));
    }
}
