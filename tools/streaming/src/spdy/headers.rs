//! Header blocks: names and values with their lengths, behind one zlib stream per direction.
//!
//! A block costs what it says: text, names and their number have limits, and what a few bytes of zlib could blow up
//! to is cut off there.

use flate2::{Decompress, FlushDecompress, Status};

use super::dictionary::{SUM, dictionary};
use super::frame::FrameError;

/// The longest block, unpacked.
const LONGEST: usize = 64 << 10;
/// The most headers in a block.
const MOST: usize = 128;

/// The headers of a stream; names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Headers by name and value.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect())
    }

    /// The first value under a name, whose case does not matter.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Puts them into an order, for those who compare: a peer's has no meaning.
    pub fn sort(&mut self) {
        self.0.sort();
    }

    /// Takes an unpacked block apart.
    pub fn parse(block: &[u8]) -> Result<Self, FrameError> {
        let mut rest = block;
        let count = number(&mut rest)?;
        if count > MOST {
            return Err(FrameError::TooManyHeaders(count));
        }
        let mut pairs = Vec::new();
        for _ in 0..count {
            let name = text(&mut rest)?.to_ascii_lowercase();
            // Several values of one name are separated by a zero byte; nobody here has more than one.
            let value = text(&mut rest)?;
            pairs.push((name, value.split('\0').next().unwrap_or_default().to_owned()));
        }
        if rest.is_empty() { Ok(Self(pairs)) } else { Err(FrameError::Headers) }
    }

    fn block(&self) -> Vec<u8> {
        let mut block = (self.0.len() as u32).to_be_bytes().to_vec();
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            block.extend_from_slice(&(text.len() as u32).to_be_bytes());
            block.extend_from_slice(text.as_bytes());
        }
        block
    }
}

fn number(rest: &mut &[u8]) -> Result<usize, FrameError> {
    let (head, tail) = rest.split_first_chunk::<4>().ok_or(FrameError::Headers)?;
    *rest = tail;
    Ok(u32::from_be_bytes(*head) as usize)
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, FrameError> {
    let length = number(rest)?;
    let (head, tail) = rest.split_at_checked(length).ok_or(FrameError::Headers)?;
    *rest = tail;
    std::str::from_utf8(head).map_err(|_| FrameError::Headers)
}

/// The blocks that come.
#[derive(Debug)]
pub struct Unpacker(Decompress);

impl Default for Unpacker {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Unpacker {
    /// Unpacks the next block.
    pub fn unpack(&mut self, mut packed: &[u8]) -> Result<Headers, FrameError> {
        let mut block = Vec::new();
        while !packed.is_empty() {
            if block.len() == block.capacity() {
                if block.len() >= LONGEST {
                    return Err(FrameError::TooLongHeaders);
                }
                block.reserve((LONGEST - block.len()).min(4096));
            }
            let (read, written) = (self.0.total_in(), block.len());
            let step = self.0.decompress_vec(packed, &mut block, FlushDecompress::Sync);
            let taken = (self.0.total_in() - read) as usize;
            packed = packed.get(taken..).ok_or(FrameError::Headers)?;
            match step {
                Ok(Status::StreamEnd) => return Err(FrameError::Headers),
                Ok(_) if taken == 0 && block.len() == written && block.len() < block.capacity() => {
                    return Err(FrameError::Headers);
                }
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary()).map_err(|_| FrameError::Headers)?;
                }
                Err(_) => return Err(FrameError::Headers),
            }
        }
        // What fits to the byte leaves its last step to one more call.
        if block.len() > LONGEST {
            return Err(FrameError::TooLongHeaders);
        }
        Headers::parse(&block)
    }
}

/// The blocks that go. They are put into the zlib stream as they are (RFC 1951, section 3.2.4): what a server has to
/// say is that it has nothing to say, and a compressor would cost each connection some hundred KiB for that.
#[derive(Debug, Default)]
pub struct Packer {
    /// The head of the zlib stream is sent.
    begun: bool,
}

impl Packer {
    /// Packs the next block.
    pub fn pack(&mut self, headers: &Headers) -> Vec<u8> {
        let mut packed = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            // Deflate with a window of 32 KiB and a dictionary (RFC 1950, section 2.2).
            packed.extend_from_slice(&[0x78, 0x20]);
            packed.extend_from_slice(&SUM.to_be_bytes());
        }
        // The part without a byte at the end is zlib's flush, without which Go holds back what came before it.
        let block = headers.block();
        for part in block.chunks(usize::from(u16::MAX)).chain([&[][..]]) {
            let length = part.len() as u16;
            packed.push(0);
            packed.extend_from_slice(&length.to_le_bytes());
            packed.extend_from_slice(&(!length).to_le_bytes());
            packed.extend_from_slice(part);
        }
        packed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_out_as_they_went_in_block_after_block() {
        let (mut packer, mut unpacker) = (Packer::default(), Unpacker::default());
        for round in 0..5 {
            let number = round.to_string();
            let headers = Headers::new([("streamType", "stdin"), ("port", "80"), ("requestID", &number)]);
            let got = unpacker.unpack(&packer.pack(&headers)).unwrap();
            assert_eq!(got, headers);
            assert_eq!(got.value("requestid"), Some(number.as_str()));
        }
    }

    #[test]
    fn a_block_longer_than_a_part_of_a_stream_is_still_one_block() {
        let long = "x".repeat(LONGEST - 40);
        let headers = Headers::new([("a", long.as_str()), ("b", "c")]);
        assert_eq!(Unpacker::default().unpack(&Packer::default().pack(&headers)), Ok(headers));
    }

    #[test]
    fn a_block_that_blows_up_is_refused() {
        let huge = "x".repeat(LONGEST);
        let mut zlib = flate2::Compress::new(flate2::Compression::fast(), true);
        zlib.set_dictionary(&dictionary()).unwrap();
        let mut packed = Vec::with_capacity(1000);
        let block = Headers::new([("a", huge.as_str())]).block();
        zlib.compress_vec(&block, &mut packed, flate2::FlushCompress::Sync).unwrap();
        assert_eq!(zlib.total_in() as usize, block.len());
        assert_eq!(Unpacker::default().unpack(&packed), Err(FrameError::TooLongHeaders));
    }

    #[test]
    fn a_block_that_lies_about_itself_is_refused() {
        assert_eq!(Headers::parse(&[0xff; 4]), Err(FrameError::TooManyHeaders(0xffff_ffff)));
        assert_eq!(Headers::parse(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]), Err(FrameError::Headers));
        assert_eq!(Headers::parse(&[0, 0, 0, 0, 9]), Err(FrameError::Headers));
        assert_eq!(Unpacker::default().unpack(b"no zlib"), Err(FrameError::Headers));
    }
}
