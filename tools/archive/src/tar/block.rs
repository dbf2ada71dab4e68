//! The 512-byte header and its fields.

use super::{BLOCK, TarError};

/// A header as it stands in the archive.
#[derive(Clone)]
pub(super) struct Header {
    pub(super) bytes: [u8; BLOCK],
    /// Where it stands, for errors.
    pub(super) offset: u64,
}

/// Which dialect's fields lie behind the first 257 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Before POSIX: nothing.
    Old,
    /// POSIX: user, group, device, a prefix for the name.
    Ustar,
    /// star: as POSIX with a shorter prefix and times.
    Star,
    /// GNU: no prefix, sparse fields.
    Gnu,
}

impl Header {
    pub(super) fn is_zero(&self) -> bool {
        self.bytes.iter().all(|byte| *byte == 0)
    }

    /// Checks the sum of all bytes, taken as unsigned or, as some old programs did, as signed.
    pub(super) fn verify(&self) -> Result<(), TarError> {
        let stated =
            self.number(148, 8, "checksum").map_err(|_| TarError::Checksum { offset: self.offset })?;
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for (at, byte) in self.bytes.iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if stated == unsigned || stated == signed {
            return Ok(());
        }
        Err(TarError::Checksum { offset: self.offset })
    }

    pub(super) fn dialect(&self) -> Dialect {
        match &self.bytes[257..265] {
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar\0") => {
                if &self.bytes[508..512] == b"tar\0" {
                    Dialect::Star
                } else {
                    Dialect::Ustar
                }
            }
            _ => Dialect::Old,
        }
    }

    pub(super) fn kind(&self) -> u8 {
        self.bytes[156]
    }

    /// The name with its prefix.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = self.text(0, 100);
        let prefix = match self.dialect() {
            Dialect::Ustar => self.text(345, 155),
            Dialect::Star => self.text(345, 131),
            Dialect::Gnu => self.misplaced_prefix(),
            Dialect::Old => &[],
        };
        if prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    /// GNU's headers have times where POSIX has the prefix. Go wrote a prefix there before 1.8, and images of
    /// that age are read as Go reads them: what is no time is a prefix.
    fn misplaced_prefix(&self) -> &[u8] {
        let is_time = |at: usize| self.bytes[at] == 0 || self.number(at, 12, "time").is_ok();
        let prefix = self.text(345, 155);
        if (is_time(345) && is_time(357)) || !prefix.is_ascii() { &[] } else { prefix }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        self.text(157, 100).to_vec()
    }

    /// The bytes of a field up to the first NUL.
    pub(super) fn text(&self, at: usize, length: usize) -> &[u8] {
        let field = &self.bytes[at..at + length];
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(length);
        &field[..end]
    }

    /// A number: octal digits between blanks and NULs, or base 256 when the first bit is set. An empty
    /// field is 0.
    pub(super) fn number(&self, at: usize, length: usize, field: &'static str) -> Result<i64, TarError> {
        let bytes = &self.bytes[at..at + length];
        let parsed = if bytes[0] & 0x80 == 0 { octal(bytes) } else { base_256(bytes) };
        parsed.ok_or(TarError::Field { offset: self.offset, field })
    }

    /// A number that cannot be negative.
    pub(super) fn count(&self, at: usize, length: usize, field: &'static str) -> Result<u64, TarError> {
        let number = self.number(at, length, field)?;
        u64::try_from(number).map_err(|_| TarError::Field { offset: self.offset, field })
    }
}

fn octal(bytes: &[u8]) -> Option<i64> {
    let blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let Some(start) = bytes.iter().position(|byte| !blank(byte)) else { return Some(0) };
    let digits = &bytes[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// Two's complement, big endian, the first bit only a marker.
fn base_256(bytes: &[u8]) -> Option<i64> {
    let negative = bytes[0] & 0x40 != 0;
    let first = if negative { bytes[0] } else { bytes[0] & 0x7f };
    let fill: u8 = if negative { 0xff } else { 0 };
    let split = bytes.len().saturating_sub(8);
    let mut value = [fill; 8];
    for (at, byte) in bytes.iter().enumerate() {
        let byte = if at == 0 { first } else { *byte };
        if at < split {
            if byte != fill {
                return None;
            }
        } else {
            value[at + 8 - bytes.len().min(8) - split] = byte;
        }
    }
    let value = i64::from_be_bytes(value);
    ((value < 0) == negative).then_some(value)
}

/// A header being written, ustar.
pub(super) struct Builder {
    bytes: [u8; BLOCK],
}

impl Builder {
    pub(super) fn new(kind: u8) -> Self {
        let mut bytes = [0; BLOCK];
        bytes[156] = kind;
        bytes[257..265].copy_from_slice(b"ustar\x0000");
        Self { bytes }
    }

    /// Puts text into a field; `false` when it doesn't fit.
    pub(super) fn text(&mut self, at: usize, length: usize, text: &[u8]) -> bool {
        if text.len() > length {
            return false;
        }
        self.bytes[at..at + text.len()].copy_from_slice(text);
        true
    }

    /// Puts an octal number into a field with its closing NUL; `false` (and zero) when it doesn't fit.
    pub(super) fn octal(&mut self, at: usize, length: usize, number: u64) -> bool {
        let width = length - 1;
        let fits = (width * 3 >= 64) || number >> (width * 3) == 0;
        let text = format!("{:0width$o}", if fits { number } else { 0 });
        self.bytes[at..at + width].copy_from_slice(text.as_bytes());
        fits
    }

    /// Puts a path into name and prefix; `false` when it can't be split to fit.
    pub(super) fn path(&mut self, path: &[u8]) -> bool {
        if path.len() <= 100 {
            return self.text(0, 100, path);
        }
        // The name must not be empty, so a directory's own slash is no place to split.
        let slashes = path.iter().enumerate().filter(|(at, byte)| **byte == b'/' && *at + 1 < path.len());
        for (at, _) in slashes {
            if at > 0 && at <= 155 && path.len() - at - 1 <= 100 {
                return self.text(345, 155, &path[..at]) && self.text(0, 100, &path[at + 1..]);
            }
        }
        false
    }

    pub(super) fn finish(mut self) -> [u8; BLOCK] {
        self.bytes[148..156].fill(b' ');
        let sum: u32 = self.bytes.iter().map(|byte| u32::from(*byte)).sum();
        self.bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(octal(b"0000644\0"), Some(0o644));
        assert_eq!(octal(b"   644 \0"), Some(0o644));
        assert_eq!(octal(b"\0\0\0\0"), Some(0));
        assert_eq!(octal(b"77777777"), Some(0o77_777_777));
        assert_eq!(octal(b"-1\0"), None);
        assert_eq!(octal(b"9"), None);
        assert_eq!(base_256(&[0x80, 0, 0, 0, 0, 0, 0, 5]), Some(5));
        assert_eq!(base_256(&[0xff; 12]), Some(-1));
        assert_eq!(base_256(&[0xff; 8]), Some(-1));
        assert_eq!(
            base_256(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            Some(i64::MAX)
        );
        assert_eq!(base_256(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(base_256(&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
