//! Members of gzip (RFC 1952) and the blocks in them, as units and plain bytes.

use std::io::{self, BufRead};

use super::bits::{BitReader, Bits};
use super::huffman::{Decoder, Lengths};
use super::token::{END, LONGEST, Match, Token, distance_of, length_of};
use super::unit::{Block, Frame, RAW, SEGMENT, Segment, TOKENS, Unit};
use crate::error::stream;

/// Bytes of a gzip header, at most: names and comments have no bound of their own.
const HEADER: usize = 60 << 10;

/// How far back a match can reach.
pub(crate) const WINDOW: usize = 32 << 10;

/// Reads a stream, unit by unit.
pub(crate) struct Parser<R> {
    input: BitReader<R>,
    place: Place,
    members: u64,
    /// Plain bytes of the member so far.
    plain: u64,
}

enum Place {
    /// Before a member.
    Member,
    /// After its header.
    Begin,
    /// Before a block.
    Block,
    /// Within a block of tokens.
    Within { is_last: bool, codes: Box<Codes> },
    /// After the last block.
    Aligned,
    /// Before what follows a deflate stream.
    Trailer,
    /// After the last member.
    Rest,
    /// At the end.
    Over,
}

struct Codes {
    literals: Decoder,
    distances: Decoder,
}

impl Codes {
    fn new(lengths: &Lengths) -> io::Result<Self> {
        Ok(Self { literals: Decoder::new(&lengths.literals)?, distances: Decoder::new(&lengths.distances)? })
    }
}

impl<R: BufRead> Parser<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { input: BitReader::new(inner), place: Place::Member, members: 0, plain: 0 }
    }

    /// The next unit. Its plain bytes are appended to `plain`, which has those of the window before.
    pub(crate) fn next(&mut self, plain: &mut Vec<u8>) -> io::Result<Unit<Segment>> {
        match std::mem::replace(&mut self.place, Place::Over) {
            Place::Member => self.member(),
            Place::Begin => {
                self.plain = 0;
                self.place = Place::Block;
                Ok(Unit::Begin)
            }
            Place::Block => self.block(plain),
            Place::Within { is_last, codes } => {
                let (tokens, length, ends) = self.tokens(&codes, plain)?;
                self.within(is_last, ends, codes);
                Ok(Unit::Segment(Segment { frame: Frame { block: None, is_last, ends, length }, tokens }))
            }
            Place::Aligned => {
                self.place = Place::Trailer;
                Ok(Unit::End(self.input.align()?))
            }
            Place::Trailer => {
                let mut bytes = Vec::with_capacity(8);
                if self.input.bytes(8, &mut bytes)? < 8 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.members += 1;
                self.place = Place::Member;
                Ok(Unit::Raw(bytes))
            }
            Place::Rest => {
                let mut bytes = Vec::new();
                self.input.bytes(RAW, &mut bytes)?;
                if bytes.is_empty() {
                    return Ok(Unit::Finish);
                }
                self.place = Place::Rest;
                Ok(Unit::Raw(bytes))
            }
            Place::Over => Ok(Unit::Finish),
        }
    }

    fn member(&mut self) -> io::Result<Unit<Segment>> {
        let mut header = Vec::with_capacity(10);
        self.input.bytes(10, &mut header)?;
        if header.is_empty() && self.members > 0 {
            return Ok(Unit::Finish);
        }
        let &[0x1f, 0x8b, 8, flags, ..] = &header[..] else {
            if self.members == 0 {
                return Err(stream("no header of gzip"));
            }
            self.place = Place::Rest;
            return Ok(Unit::Raw(header));
        };
        if flags & 4 != 0 {
            let (low, high) = (self.byte(&mut header)?, self.byte(&mut header)?);
            let length = usize::from(low) | usize::from(high) << 8;
            if length > HEADER || self.input.bytes(length, &mut header)? < length {
                return Err(stream("an extra field is too long"));
            }
        }
        for flag in [8, 16] {
            while flags & flag != 0 && self.byte(&mut header)? != 0 {}
        }
        if flags & 2 != 0 {
            self.byte(&mut header)?;
            self.byte(&mut header)?;
        }
        if header.len() < 10 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.place = Place::Begin;
        Ok(Unit::Raw(header))
    }

    fn byte(&mut self, header: &mut Vec<u8>) -> io::Result<u8> {
        let byte = self.input.byte()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if header.len() >= RAW {
            return Err(stream("a header is too long"));
        }
        header.push(byte);
        Ok(byte)
    }

    fn block(&mut self, plain: &mut Vec<u8>) -> io::Result<Unit<Segment>> {
        let is_last = self.input.take(1)? == 1;
        let (block, lengths) = match self.input.take(2)? {
            0 => return self.stored(is_last, plain),
            1 => (Block::Fixed, Lengths::fixed()),
            2 => {
                let mut bits = Bits::default();
                let lengths = Lengths::read(|count| {
                    let value = self.input.take(count)?;
                    bits.push(value, count);
                    Ok(value)
                })?;
                (Block::Dynamic(bits), lengths)
            }
            _ => return Err(stream("no such kind of block")),
        };
        let codes = Box::new(Codes::new(&lengths)?);
        let (tokens, length, ends) = self.tokens(&codes, plain)?;
        self.within(is_last, ends, codes);
        Ok(Unit::Segment(Segment { frame: Frame { block: Some(block), is_last, ends, length }, tokens }))
    }

    fn stored(&mut self, is_last: bool, plain: &mut Vec<u8>) -> io::Result<Unit<Segment>> {
        let padding = self.input.align()?;
        let (length, check) = (self.input.take(16)?, self.input.take(16)?);
        if length ^ check != 0xffff {
            return Err(stream("the length of a stored block is damaged"));
        }
        if self.input.bytes(length as usize, plain)? < length as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.plain += u64::from(length);
        self.place = if is_last { Place::Aligned } else { Place::Block };
        let block = Some(Block::Stored(padding));
        let frame = Frame { block, is_last, ends: true, length: length as usize };
        Ok(Unit::Segment(Segment { frame, tokens: Vec::new() }))
    }

    fn within(&mut self, is_last: bool, ends: bool, codes: Box<Codes>) {
        self.place = match (ends, is_last) {
            (false, _) => Place::Within { is_last, codes },
            (true, false) => Place::Block,
            (true, true) => Place::Aligned,
        };
    }

    /// Reads tokens up to the end of the block or the segment; answers them, their length and whether the block ended.
    fn tokens(&mut self, codes: &Codes, plain: &mut Vec<u8>) -> io::Result<(Vec<Token>, usize, bool)> {
        let start = plain.len();
        let mut tokens = Vec::new();
        let mut ended = false;
        while tokens.len() < TOKENS && plain.len() - start < SEGMENT {
            let bits = self.input.peek()?;
            let (symbol, length) = codes.literals.find(bits);
            if length == 0 {
                return Err(stream("no such code"));
            }
            if symbol < END {
                self.input.skip(length)?;
                plain.push(symbol as u8);
                tokens.push(Token::Literal);
                continue;
            }
            if symbol == END {
                self.input.skip(length)?;
                ended = true;
                break;
            }
            // At most 15 + 5 + 15 + 13 bits, which is what was peeked at.
            let (found, used) = found(codes, symbol, bits, length)?;
            self.input.skip(used)?;
            repeat(plain, found, self.plain + (plain.len() - start) as u64)?;
            let is_odd = symbol == 284 && usize::from(found.length) == LONGEST;
            tokens.push(if is_odd { Token::Odd(found.distance) } else { Token::Match(found) });
        }
        let length = plain.len() - start;
        self.plain += length as u64;
        Ok((tokens, length, ended))
    }
}

/// The match of a symbol of a length, from the bits that begin with that, and how many bits it took.
fn found(codes: &Codes, symbol: usize, mut bits: u64, mut used: u32) -> io::Result<(Match, u32)> {
    bits >>= used;
    let (base, extra) = length_of(symbol).ok_or_else(|| stream("no such length"))?;
    let length = base + (bits & ((1 << extra) - 1)) as u32;
    bits >>= extra;
    let (symbol, code) = codes.distances.find(bits);
    let (start, more) = distance_of(symbol).filter(|_| code > 0).ok_or_else(|| stream("no such distance"))?;
    bits >>= code;
    let distance = start + (bits & ((1 << more) - 1)) as u32;
    used += extra + code + more;
    Ok((Match { length: length as u16, distance: distance as u16 }, used))
}

/// Appends a match.
fn repeat(plain: &mut Vec<u8>, found: Match, before: u64) -> io::Result<()> {
    let (length, distance) = (usize::from(found.length), usize::from(found.distance));
    if distance as u64 > before || distance > plain.len() {
        return Err(stream("a distance leads before the beginning"));
    }
    let from = plain.len() - distance;
    if distance >= length {
        plain.extend_from_within(from..from + length);
    } else {
        for at in from..from + length {
            plain.push(plain[at]);
        }
    }
    Ok(())
}
