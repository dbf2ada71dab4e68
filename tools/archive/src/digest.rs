//! Digests of what flows past.

use std::io::{self, BufRead, Read, Write};

use berth_types::{Algorithm, Digest};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// A running hash by one of the algorithms that a [`Digest`] can have.
#[derive(Clone, Debug)]
pub enum Hasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-384.
    Sha384(Sha384),
    /// SHA-512.
    Sha512(Sha512),
}

impl Default for Hasher {
    fn default() -> Self {
        Self::Sha256(Sha256::new())
    }
}

impl Hasher {
    /// Starts a hash.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha384 => Self::Sha384(Sha384::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha384(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The address of all bytes so far.
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(hash) => Digest::sha256(hash.finalize().into()),
            Self::Sha384(hash) => address(Algorithm::Sha384, &hash.finalize()),
            Self::Sha512(hash) => address(Algorithm::Sha512, &hash.finalize()),
        }
    }

    /// The address of `bytes` by SHA-256.
    pub fn digest(bytes: &[u8]) -> Digest {
        Digest::sha256(Sha256::digest(bytes).into())
    }
}

fn address(algorithm: Algorithm, hash: &[u8]) -> Digest {
    use std::fmt::Write;
    let mut text = format!("{}:", algorithm.name());
    for byte in hash {
        write!(text, "{byte:02x}").expect("a String takes every write");
    }
    text.parse().expect("a hash in hexadecimal is a digest")
}

/// Hashes and counts what is read through it.
#[derive(Debug)]
pub struct DigestReader<R> {
    inner: R,
    hasher: Hasher,
    size: u64,
}

impl<R: Read> DigestReader<R> {
    /// Reads from `inner`, hashing by `algorithm`.
    pub fn new(inner: R, algorithm: Algorithm) -> Self {
        Self { inner, hasher: Hasher::new(algorithm), size: 0 }
    }

    /// The digest and count of what was read so far.
    pub fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.size)
    }
}

impl<R: Read> Read for DigestReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        self.size += length as u64;
        Ok(length)
    }
}

impl<R: BufRead> BufRead for DigestReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        // Inside the contract of BufRead this answers the bytes that fill_buf just showed.
        if let Ok(shown) = self.inner.fill_buf() {
            self.hasher.update(&shown[..amount.min(shown.len())]);
        }
        self.size += amount as u64;
        self.inner.consume(amount);
    }
}

/// Hashes and counts what is written through it.
#[derive(Debug)]
pub struct DigestWriter<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> DigestWriter<W> {
    /// Writes to `inner`, hashing by SHA-256.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::default(), size: 0 }
    }

    /// The wrapped writer, and the digest and count of what was written.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, self.hasher.finish(), self.size)
    }
}

impl<W: Write> Write for DigestWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..length]);
        self.size += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standards() {
        assert_eq!(
            Hasher::digest(b"abc").as_str(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        for (algorithm, start) in
            [(Algorithm::Sha512, "sha512:ddaf35a1"), (Algorithm::Sha384, "sha384:cb00753f")]
        {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(b"a");
            hasher.update(b"bc");
            assert!(hasher.finish().as_str().starts_with(start));
        }
    }

    #[test]
    fn reading_either_way_hashes_every_byte_once() {
        let data = vec![7_u8; 10_000];
        let mut reader = DigestReader::new(io::BufReader::with_capacity(100, &data[..]), Algorithm::Sha256);
        let mut some = [0; 33];
        reader.read_exact(&mut some).unwrap();
        io::copy(&mut reader, &mut io::sink()).unwrap();
        while !reader.fill_buf().unwrap().is_empty() {
            let length = reader.fill_buf().unwrap().len();
            reader.consume(length);
        }
        assert_eq!(reader.finish(), (Hasher::digest(&data), 10_000));
    }
}
