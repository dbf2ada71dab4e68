//! A stream of gzip made again from its plain bytes.

use std::io::{self, Read, Write};

use super::bits::{BitWriter, Bits};
use super::correct::tokens;
use super::huffman::{Lengths, codes};
use super::matcher::{Matcher, View};
use super::params::ALL;
use super::parser::WINDOW;
use super::token::{END, Match, Symbol, Token, distance_symbol, length_symbol};
use super::unit::{Block, Frame, Noted, Unit};
use crate::error::recipe;

/// Plain bytes that nobody needs any more are thrown away when there are so many.
const SPENT: usize = 1 << 20;

/// Writes the stream that a lane tells of, from its plain bytes.
pub(crate) fn rebuild<W: Write>(lane: impl Read, plain: impl Read, output: W) -> io::Result<W> {
    let mut lane = lane;
    let mut number = [0];
    lane.read_exact(&mut number)?;
    let params = ALL.get(usize::from(number[0])).ok_or_else(|| recipe("an unknown way to search"))?;
    let mut work = Rebuild {
        lane,
        source: plain,
        plain: Vec::new(),
        start: 0,
        place: 0,
        matcher: Matcher::new(params),
        output: BitWriter::new(output),
        codes: None,
    };
    work.all()?;
    work.output.finish()
}

struct Rebuild<L, P, W> {
    lane: L,
    source: P,
    plain: Vec<u8>,
    /// The place of the first of the plain bytes.
    start: u64,
    /// The place of the next segment.
    place: u64,
    matcher: Matcher,
    output: BitWriter<W>,
    /// Of the block that is open.
    codes: Option<Codes>,
}

impl<L: Read, P: Read, W: Write> Rebuild<L, P, W> {
    fn all(&mut self) -> io::Result<()> {
        loop {
            match Unit::read(&mut self.lane)? {
                Unit::Finish => return self.at_end(),
                Unit::Raw(bytes) => self.output.bytes(&bytes)?,
                Unit::Begin => {
                    self.matcher.begin(self.place);
                    self.member()?;
                }
                _ => return Err(recipe("a part is where it cannot be")),
            }
        }
    }

    /// Writes one deflate stream.
    fn member(&mut self) -> io::Result<()> {
        let Unit::Segment(mut segment) = Unit::read(&mut self.lane)? else {
            return Err(recipe("a stream without a block"));
        };
        while !segment.frame.is_end() {
            let Unit::Segment(next) = Unit::read(&mut self.lane)? else {
                return Err(recipe("a stream without its end"));
            };
            self.segment(&segment, next.frame.length)?;
            segment = next;
        }
        self.segment(&segment, 0)?;
        let Unit::End(padding) = Unit::read(&mut self.lane)? else {
            return Err(recipe("a stream without its last bits"));
        };
        self.output.align(padding)
    }

    fn segment(&mut self, noted: &Noted, next: usize) -> io::Result<()> {
        let from = (self.place - self.start) as usize;
        let spent = from.saturating_sub(WINDOW);
        if spent >= SPENT {
            self.plain.drain(..spent);
            self.start += spent as u64;
        }
        let from = (self.place - self.start) as usize;
        let seen = from + noted.frame.length + next;
        self.fill(seen)?;
        if let Some(block) = &noted.frame.block {
            self.open(block, &noted.frame, from)?;
        }
        let view = View { bytes: &self.plain[..seen], start: self.start };
        let Self { matcher, output, codes, place, start, .. } = self;
        let codes = codes.as_ref();
        tokens(matcher, view, noted, *place, |token, at| {
            let codes = codes.ok_or_else(|| recipe("tokens outside of a block"))?;
            codes.write(output, token, view.bytes[(at - *start) as usize])
        })?;
        if noted.frame.ends
            && let Some(codes) = self.codes.take()
        {
            codes.write_symbol(&mut self.output, Symbol { number: END, extra: 0, bits: 0 })?;
        }
        self.place += noted.frame.length as u64;
        Ok(())
    }

    /// Reads plain bytes until there are so many.
    fn fill(&mut self, seen: usize) -> io::Result<()> {
        let have = self.plain.len();
        if have < seen {
            self.plain.resize(seen, 0);
            self.source.read_exact(&mut self.plain[have..])?;
        }
        Ok(())
    }

    /// Writes the beginning of a block; of a stored one, all of it.
    fn open(&mut self, block: &Block, frame: &Frame, from: usize) -> io::Result<()> {
        if self.codes.is_some() {
            return Err(recipe("a block within another"));
        }
        let kind = match block {
            Block::Stored(_) => 0,
            Block::Fixed => 1,
            Block::Dynamic(_) => 2,
        };
        self.output.put(u32::from(frame.is_last) | kind << 1, 3)?;
        match block {
            Block::Stored(padding) => {
                self.output.align(*padding)?;
                let length = frame.length as u32;
                self.output.put(length, 16)?;
                self.output.put(length ^ 0xffff, 16)?;
                self.output.bytes(&self.plain[from..from + frame.length])
            }
            Block::Fixed => {
                self.codes = Some(Codes::new(&Lengths::fixed())?);
                Ok(())
            }
            Block::Dynamic(bits) => {
                self.codes = Some(Codes::new(&lengths(bits)?)?);
                let mut at = 0;
                while at < bits.count {
                    let some = (bits.count - at).min(16);
                    self.output.put(bits.take(&mut at, some), some)?;
                }
                Ok(())
            }
        }
    }

    /// Sees that no plain byte is left over.
    fn at_end(&mut self) -> io::Result<()> {
        let is_over = self.place - self.start == self.plain.len() as u64;
        if !is_over || self.source.read(&mut [0])? > 0 {
            return Err(recipe("there are plain bytes after the end"));
        }
        Ok(())
    }
}

fn lengths(bits: &Bits) -> io::Result<Lengths> {
    let mut at = 0;
    let lengths = Lengths::read(|count| Ok(bits.take(&mut at, count)))?;
    if at == bits.count { Ok(lengths) } else { Err(recipe("code lengths of another length")) }
}

/// The codes of a block, to be written.
struct Codes {
    literals: Vec<(u16, u8)>,
    distances: Vec<(u16, u8)>,
}

impl Codes {
    fn new(lengths: &Lengths) -> io::Result<Self> {
        let with = |lengths: &[u8]| -> io::Result<Vec<(u16, u8)>> {
            Ok(codes(lengths)?.into_iter().zip(lengths.iter().copied()).collect())
        };
        Ok(Self { literals: with(&lengths.literals)?, distances: with(&lengths.distances)? })
    }

    /// Writes a token; `plain` is the byte where it is.
    fn write<W: Write>(&self, output: &mut BitWriter<W>, token: Token, plain: u8) -> io::Result<()> {
        let (symbol, distance) = match token {
            Token::Literal => {
                return self.write_symbol(output, Symbol { number: usize::from(plain), extra: 0, bits: 0 });
            }
            Token::Match(Match { length, distance }) => (length_symbol(length), distance),
            Token::Odd(distance) => (Symbol { number: 284, extra: 31, bits: 5 }, distance),
        };
        self.write_symbol(output, symbol)?;
        put(output, &self.distances, distance_symbol(distance))
    }

    /// Writes a literal, a length or the end.
    fn write_symbol<W: Write>(&self, output: &mut BitWriter<W>, symbol: Symbol) -> io::Result<()> {
        put(output, &self.literals, symbol)
    }
}

fn put<W: Write>(output: &mut BitWriter<W>, codes: &[(u16, u8)], symbol: Symbol) -> io::Result<()> {
    let &(code, length) = codes
        .get(symbol.number)
        .filter(|(_, length)| *length > 0)
        .ok_or_else(|| recipe("a token without a code"))?;
    let length = u32::from(length);
    output.put(u32::from(code) | symbol.extra << length, length + symbol.bits)
}
