//! Bits from the lowest up, as RFC 1951, 3.1.1, packs them.

use std::io::{self, BufRead, Write};

/// Reads bits and, between streams, whole bytes.
pub(crate) struct BitReader<R> {
    inner: R,
    /// What was read and not taken. Bits above `count` are those that follow, or zero.
    bits: u64,
    count: u32,
}

impl<R: BufRead> BitReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, bits: 0, count: 0 }
    }

    /// The next bits, 48 of them or all that there are; zeros beyond the end.
    pub(crate) fn peek(&mut self) -> io::Result<u64> {
        if self.count < 48 {
            self.refill()?;
        }
        Ok(self.bits)
    }

    fn refill(&mut self) -> io::Result<()> {
        while self.count < 48 {
            let shown = match self.inner.fill_buf() {
                Ok(shown) => shown,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if let Some(word) = shown.first_chunk::<8>() {
                self.bits |= u64::from_le_bytes(*word) << self.count;
                let bytes = (63 - self.count) / 8;
                self.inner.consume(bytes as usize);
                self.count += bytes * 8;
            } else if let Some(&byte) = shown.first() {
                self.bits |= u64::from(byte) << self.count;
                self.inner.consume(1);
                self.count += 8;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Takes bits that were peeked at.
    pub(crate) fn skip(&mut self, bits: u32) -> io::Result<()> {
        if bits > self.count {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.bits >>= bits;
        self.count -= bits;
        Ok(())
    }

    /// Takes at most 16 bits.
    pub(crate) fn take(&mut self, bits: u32) -> io::Result<u32> {
        let value = self.peek()? & ((1 << bits) - 1);
        self.skip(bits)?;
        Ok(value as u32)
    }

    /// Takes what is left of a byte.
    pub(crate) fn align(&mut self) -> io::Result<u8> {
        Ok(self.take(self.count % 8)? as u8)
    }

    /// Takes a whole byte, none at the end. Only where bytes begin.
    pub(crate) fn byte(&mut self) -> io::Result<Option<u8>> {
        let value = self.peek()?;
        if self.count == 0 {
            return Ok(None);
        }
        self.skip(8)?;
        Ok(Some(value as u8))
    }

    /// Appends up to `length` bytes; fewer only at the end. Only where bytes begin.
    pub(crate) fn bytes(&mut self, length: usize, to: &mut Vec<u8>) -> io::Result<usize> {
        let mut left = length;
        while left > 0 && self.count > 0 {
            to.push(self.bits as u8);
            self.skip(8)?;
            left -= 1;
        }
        if self.count == 0 {
            // What follows is read past this.
            self.bits = 0;
        }
        while left > 0 {
            let shown = match self.inner.fill_buf() {
                Ok([]) => break,
                Ok(shown) => shown,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let some = left.min(shown.len());
            to.extend_from_slice(&shown[..some]);
            self.inner.consume(some);
            left -= some;
        }
        Ok(length - left)
    }
}

/// Bytes that are written at once.
const PART: usize = 64 << 10;

/// Writes bits.
pub(crate) struct BitWriter<W> {
    inner: W,
    buffer: Vec<u8>,
    bits: u64,
    count: u32,
}

impl<W: Write> BitWriter<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, buffer: Vec::with_capacity(PART + 8), bits: 0, count: 0 }
    }

    /// Writes the lowest `bits` of a value that has no others, at most 32.
    pub(crate) fn put(&mut self, value: u32, bits: u32) -> io::Result<()> {
        self.bits |= u64::from(value) << self.count;
        self.count += bits;
        if self.count >= 32 {
            self.buffer.extend_from_slice(&(self.bits as u32).to_le_bytes());
            self.bits >>= 32;
            self.count -= 32;
            if self.buffer.len() >= PART {
                self.write_out()?;
            }
        }
        Ok(())
    }

    /// Fills the last byte with these bits.
    pub(crate) fn align(&mut self, padding: u8) -> io::Result<()> {
        let bits = (8 - self.count % 8) % 8;
        self.put(u32::from(padding) & ((1 << bits) - 1), bits)
    }

    /// Writes whole bytes. Only where bytes begin.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        while self.count > 0 {
            self.buffer.push(self.bits as u8);
            self.bits >>= 8;
            self.count = self.count.saturating_sub(8);
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PART { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> io::Result<()> {
        self.inner.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Writes what is left, and gives back what it is written to.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.bytes(&[])?;
        self.write_out()?;
        Ok(self.inner)
    }
}

/// Bits that are kept as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bits {
    pub(crate) bytes: Vec<u8>,
    pub(crate) count: u32,
}

impl Bits {
    /// Appends at most 16 bits.
    pub(crate) fn push(&mut self, value: u32, bits: u32) {
        for at in 0..bits {
            if self.count.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> at & 1) as u8) << (self.count % 8);
            }
            self.count += 1;
        }
    }

    /// Takes bits from a place, which goes on; zeros beyond the end.
    pub(crate) fn take(&self, at: &mut u32, bits: u32) -> u32 {
        let mut value = 0;
        for shift in 0..bits {
            let place = *at + shift;
            let byte = self.bytes.get(place as usize / 8).copied().unwrap_or(0);
            value |= u32::from(byte >> (place % 8) & 1) << shift;
        }
        *at += bits;
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_bytes_come_out_as_they_went_in() {
        let mut writer = BitWriter::new(Vec::new());
        for bits in 1..=16 {
            writer.put((1 << bits) - 2, bits).unwrap();
        }
        writer.align(0xff).unwrap();
        writer.bytes(b"some whole bytes").unwrap();
        writer.put(5, 3).unwrap();
        let bytes = writer.finish().unwrap();
        let mut reader = BitReader::new(&bytes[..]);
        for bits in 1..=16 {
            assert_eq!(reader.take(bits).unwrap(), (1 << bits) - 2, "{bits}");
        }
        assert!(reader.align().unwrap().count_ones() == 0 || 136 % 8 != 0);
        let mut text = Vec::new();
        assert_eq!(reader.bytes(16, &mut text).unwrap(), 16);
        assert_eq!(text, b"some whole bytes");
        assert_eq!(reader.byte().unwrap(), Some(5));
        assert_eq!(reader.byte().unwrap(), None);
    }

    #[test]
    fn kept_bits_are_read_from_any_place() {
        let mut bits = Bits::default();
        bits.push(0b101, 3);
        bits.push(0x1234, 16);
        let mut at = 0;
        assert_eq!((bits.take(&mut at, 3), bits.take(&mut at, 16), at), (0b101, 0x1234, 19));
        assert_eq!(bits.take(&mut at, 9), 0);
    }
}
