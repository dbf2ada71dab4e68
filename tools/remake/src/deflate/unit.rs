//! What a stream is made of, and how a recipe says it.
//!
//! | tag | what follows |
//! |---|---|
//! | 0 | nothing: the end |
//! | 1 raw | length, bytes: a header or trailer of gzip, or what follows the last member |
//! | 2 begin | nothing: a deflate stream |
//! | 3 segment | flags, length, what its block begins with, corrections |
//! | 4 end | the bits with which the last byte of the deflate stream is filled |
//!
//! Numbers are written seven bits a byte, lowest first.

use std::io::{self, Read, Write};

use super::bits::Bits;
use super::token::{LONGEST, Match, SHORTEST, Token};
use crate::error::recipe;
use crate::number::{read_number, write_number};

/// Plain bytes of a segment, at most; the last token may go beyond. A block may be longer and have several.
pub(crate) const SEGMENT: usize = 1 << 20;

/// Tokens of a segment, at most.
pub(crate) const TOKENS: usize = 64 << 10;

/// Bytes of a raw unit, at most.
pub(crate) const RAW: usize = 64 << 10;

/// Bits of the code lengths of a block, at most: 14, 19 of 3, and 320 of 14.
const HEADER: u64 = 14 + 19 * 3 + 320 * 14;

/// A part of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unit<S> {
    /// The end of the stream.
    Finish,
    /// Bytes as they are.
    Raw(Vec<u8>),
    /// A deflate stream begins.
    Begin,
    /// Some of it.
    Segment(S),
    /// It ends, with this in the rest of the last byte.
    End(u8),
}

/// How a block holds its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// As they are; with the bits before the next byte.
    Stored(u8),
    /// With the codes of the format.
    Fixed,
    /// With codes of its own, as they are written.
    Dynamic(Bits),
}

/// The frame of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The block that begins with it.
    pub(crate) block: Option<Block>,
    /// Whether that block is the last one of its stream.
    pub(crate) is_last: bool,
    /// Whether the block ends with it.
    pub(crate) ends: bool,
    /// Plain bytes.
    pub(crate) length: usize,
}

/// A segment as it is in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) frame: Frame,
    /// None in a stored block.
    pub(crate) tokens: Vec<Token>,
}

/// A segment as it is in a recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) frame: Frame,
    pub(crate) corrections: Vec<Correction>,
}

/// Where a guess is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Correction {
    /// How many were right since the one before.
    pub(crate) gap: usize,
    /// What it is.
    pub(crate) token: Token,
}

const STARTS: u8 = 1;
const FIXED: u8 = 2;
const DYNAMIC: u8 = 4;
const LAST: u8 = 8;
const ENDS: u8 = 16;

impl Unit<Noted> {
    /// Writes a unit.
    pub(crate) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Finish => to.write_all(&[0]),
            Self::Raw(bytes) => {
                to.write_all(&[1])?;
                write_number(to, bytes.len() as u64)?;
                to.write_all(bytes)
            }
            Self::Begin => to.write_all(&[2]),
            Self::Segment(segment) => {
                to.write_all(&[3])?;
                segment.frame.write(to)?;
                write_corrections(to, &segment.corrections)
            }
            Self::End(padding) => to.write_all(&[4, *padding]),
        }
    }

    /// Reads a unit.
    pub(crate) fn read(from: &mut impl Read) -> io::Result<Self> {
        Ok(match byte(from)? {
            0 => Self::Finish,
            1 => {
                let length = bounded(from, RAW as u64, "raw bytes")?;
                let mut bytes = vec![0; length];
                from.read_exact(&mut bytes)?;
                Self::Raw(bytes)
            }
            2 => Self::Begin,
            3 => {
                let frame = Frame::read(from)?;
                let corrections = read_corrections(from, frame.length)?;
                Self::Segment(Noted { frame, corrections })
            }
            4 => Self::End(byte(from)?),
            _ => return Err(recipe("an unknown part")),
        })
    }
}

impl Frame {
    /// Whether nothing of its deflate stream follows.
    pub(crate) fn is_end(&self) -> bool {
        self.is_last && self.ends
    }

    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let flags = match &self.block {
            None => 0,
            Some(Block::Stored(_)) => STARTS,
            Some(Block::Fixed) => STARTS | FIXED,
            Some(Block::Dynamic(_)) => STARTS | DYNAMIC,
        };
        let last = if self.is_last { LAST } else { 0 };
        let ends = if self.ends { ENDS } else { 0 };
        to.write_all(&[flags | last | ends])?;
        write_number(to, self.length as u64)?;
        match &self.block {
            Some(Block::Stored(padding)) => to.write_all(&[*padding]),
            Some(Block::Dynamic(bits)) => {
                write_number(to, u64::from(bits.count))?;
                to.write_all(&bits.bytes)
            }
            _ => Ok(()),
        }
    }

    fn read(from: &mut impl Read) -> io::Result<Self> {
        let flags = byte(from)?;
        let length = bounded(from, (SEGMENT + LONGEST) as u64, "a segment")?;
        let block = match flags & (STARTS | FIXED | DYNAMIC) {
            0 => None,
            STARTS if length <= 0xffff && flags & ENDS != 0 => Some(Block::Stored(byte(from)?)),
            kind if kind == STARTS | FIXED => Some(Block::Fixed),
            kind if kind == STARTS | DYNAMIC => {
                let count = bounded(from, HEADER, "code lengths")? as u32;
                let mut bytes = vec![0; count.div_ceil(8) as usize];
                from.read_exact(&mut bytes)?;
                Some(Block::Dynamic(Bits { bytes, count }))
            }
            _ => return Err(recipe("an unknown block")),
        };
        Ok(Self { block, is_last: flags & LAST != 0, ends: flags & ENDS != 0, length })
    }
}

fn write_corrections(to: &mut impl Write, corrections: &[Correction]) -> io::Result<()> {
    write_number(to, corrections.len() as u64)?;
    // What is alike stands together, for the compressor's sake.
    for correction in corrections {
        write_number(to, correction.gap as u64)?;
    }
    for correction in corrections {
        let kind = match correction.token {
            Token::Literal => 0,
            Token::Odd(_) => 1,
            Token::Match(found) => u64::from(found.length) - SHORTEST as u64 + 2,
        };
        write_number(to, kind)?;
    }
    for correction in corrections {
        match correction.token {
            Token::Literal => {}
            Token::Odd(distance) | Token::Match(Match { distance, .. }) => {
                to.write_all(&(distance - 1).to_le_bytes())?;
            }
        }
    }
    Ok(())
}

fn read_corrections(from: &mut impl Read, length: usize) -> io::Result<Vec<Correction>> {
    let count = bounded(from, length.min(TOKENS) as u64, "corrections")?;
    let mut corrections = Vec::with_capacity(count);
    for _ in 0..count {
        let gap = bounded(from, TOKENS as u64, "a gap")?;
        corrections.push(Correction { gap, token: Token::Literal });
    }
    for correction in &mut corrections {
        correction.token = match bounded(from, (LONGEST - SHORTEST + 2) as u64, "a length")? {
            0 => Token::Literal,
            1 => Token::Odd(1),
            kind => Token::Match(Match { length: (kind - 2 + SHORTEST) as u16, distance: 1 }),
        };
    }
    for correction in &mut corrections {
        if let Token::Odd(distance) | Token::Match(Match { distance, .. }) = &mut correction.token {
            let mut bytes = [0; 2];
            from.read_exact(&mut bytes)?;
            let value = u16::from_le_bytes(bytes);
            if value > 0x7fff {
                return Err(recipe("a distance is too long"));
            }
            *distance = value + 1;
        }
    }
    Ok(corrections)
}

fn byte(from: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    from.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn bounded(from: &mut impl Read, limit: u64, what: &'static str) -> io::Result<usize> {
    let number = read_number(from)?;
    if number > limit { Err(recipe(what)) } else { Ok(number as usize) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_as_they_were_written() {
        let mut header = Bits::default();
        header.push(0x2a5, 11);
        let frame = Frame { block: Some(Block::Dynamic(header)), is_last: true, ends: false, length: 70_000 };
        let tokens = [
            Token::Literal,
            Token::Odd(32768),
            Token::Match(Match { length: 3, distance: 1 }),
            Token::Match(Match { length: 258, distance: 300 }),
        ];
        let corrections = tokens.into_iter().enumerate();
        let corrections = corrections.map(|(at, token)| Correction { gap: at * 1000, token }).collect();
        let units = [
            Unit::Raw(vec![1, 2, 3]),
            Unit::Begin,
            Unit::Segment(Noted { frame, corrections }),
            Unit::End(3),
            Unit::Finish,
        ];
        let mut written = Vec::new();
        for unit in &units {
            unit.write(&mut written).unwrap();
        }
        let mut from = &written[..];
        for unit in units {
            assert_eq!(Unit::read(&mut from).unwrap(), unit);
        }
        assert!(from.is_empty());
    }
}
