//! Compression by what the bytes say, not by what a media type claims.

mod decoder;
mod encoder;

pub use self::decoder::Decoder;
pub use self::encoder::Encoder;

#[cfg(test)]
mod tests;

/// The compressions that layers come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// None.
    Plain,
    /// gzip (RFC 1952), of any number of members.
    Gzip,
    /// Zstandard (RFC 8878), of any number of frames.
    Zstd,
}

impl Compression {
    /// Bytes that [`Compression::detect`] needs to see, where there are as many.
    pub const MAGIC_LENGTH: usize = 4;

    /// Tells the compression from the first bytes of a stream.
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame, with which zstd:chunked and seekable streams may begin.
            [low, 0x2a, 0x4d, 0x18, ..] if low & 0xf0 == 0x50 => Self::Zstd,
            _ => Self::Plain,
        }
    }
}
