//! A stream of gzip that is read as its plain bytes, while what else is needed of it is written down.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read, Write};

use super::correct::corrections;
use super::matcher::{Matcher, View};
use super::params::ALL;
use super::parser::{Parser, WINDOW};
use super::unit::{Noted, Segment, Unit};

/// Plain bytes on which the ways to search are tried.
const TRIED: usize = 512 << 10;

/// Plain bytes that nobody needs any more are thrown away when there are so many.
const SPENT: usize = 1 << 20;

/// Reads plain bytes. What has been written is whole once these have come to their end.
pub(crate) struct Dissect<R, W> {
    parser: Parser<R>,
    lane: W,
    matcher: Option<Matcher>,
    /// What was read and is not written yet.
    waiting: VecDeque<Unit<Segment>>,
    plain: Vec<u8>,
    /// The place of the first of the plain bytes.
    start: u64,
    /// The place from which the waiting units are.
    place: u64,
    /// How many of the plain bytes were given to the reader.
    given: usize,
    is_over: bool,
}

impl<R: BufRead, W: Write> Dissect<R, W> {
    pub(crate) fn new(inner: R, lane: W) -> Self {
        Self {
            parser: Parser::new(inner),
            lane,
            matcher: None,
            waiting: VecDeque::new(),
            plain: Vec::new(),
            start: 0,
            place: 0,
            given: 0,
            is_over: false,
        }
    }

    /// What the recipe was written to.
    pub(crate) fn into_lane(self) -> W {
        self.lane
    }

    /// Reads units until there are more plain bytes, or none any more.
    fn more(&mut self) -> io::Result<()> {
        while self.given == self.plain.len() && !self.is_over {
            self.forget();
            let unit = self.parser.next(&mut self.plain)?;
            self.is_over = unit == Unit::Finish;
            self.waiting.push_back(unit);
            if self.matcher.is_none() {
                let waiting = self.start + self.plain.len() as u64 - self.place;
                if waiting < TRIED as u64 && !self.is_over {
                    continue;
                }
                self.choose()?;
            }
            self.settle()?;
        }
        Ok(())
    }

    /// Throws away what is behind every window.
    fn forget(&mut self) {
        let needed = (self.place - self.start) as usize;
        let spent = needed.saturating_sub(WINDOW).min(self.given);
        if spent >= SPENT {
            self.plain.drain(..spent);
            self.start += spent as u64;
            self.given -= spent;
        }
    }

    /// Finds the way to search that is right most often, and writes which it is.
    fn choose(&mut self) -> io::Result<()> {
        let (mut best, mut fewest) = (0, usize::MAX);
        for (number, params) in ALL.iter().enumerate() {
            if let Some(count) = self.count(Matcher::new(params), fewest) {
                (best, fewest) = (number, count);
            }
        }
        self.matcher = Some(Matcher::new(&ALL[best]));
        self.lane.write_all(&[best as u8])
    }

    /// How often a matcher is wrong about the waiting segments; nothing if not less often than `fewest` times.
    fn count(&self, mut matcher: Matcher, fewest: usize) -> Option<usize> {
        let view = View { bytes: &self.plain, start: self.start };
        let (mut place, mut count) = (self.place, 0);
        for unit in &self.waiting {
            match unit {
                Unit::Begin => matcher.begin(place),
                Unit::Segment(segment) => {
                    let most = fewest.checked_sub(count + 1)?;
                    count += corrections(&mut matcher, view, segment, place, most)?.len();
                    place += segment.frame.length as u64;
                }
                _ => {}
            }
        }
        Some(count)
    }

    /// Writes units as far as what follows them is known.
    fn settle(&mut self) -> io::Result<()> {
        let Some(matcher) = &mut self.matcher else { return Ok(()) };
        while let Some(unit) = self.waiting.pop_front() {
            let unit = match unit {
                Unit::Segment(segment) => {
                    let next = match self.waiting.front() {
                        _ if segment.frame.is_end() => 0,
                        Some(Unit::Segment(next)) => next.frame.length,
                        _ => {
                            self.waiting.push_front(Unit::Segment(segment));
                            return Ok(());
                        }
                    };
                    let seen = (self.place - self.start) as usize + segment.frame.length + next;
                    let view = View { bytes: &self.plain[..seen], start: self.start };
                    let corrections = corrections(matcher, view, &segment, self.place, usize::MAX);
                    self.place += segment.frame.length as u64;
                    Unit::Segment(Noted {
                        frame: segment.frame,
                        corrections: corrections.unwrap_or_default(),
                    })
                }
                Unit::Begin => {
                    matcher.begin(self.place);
                    Unit::Begin
                }
                Unit::Finish => Unit::Finish,
                Unit::Raw(bytes) => Unit::Raw(bytes),
                Unit::End(padding) => Unit::End(padding),
            };
            unit.write(&mut self.lane)?;
        }
        Ok(())
    }
}

impl<R: BufRead, W: Write> BufRead for Dissect<R, W> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.more()?;
        Ok(&self.plain[self.given..])
    }

    fn consume(&mut self, amount: usize) {
        self.given += amount;
    }
}

impl<R: BufRead, W: Write> Read for Dissect<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        berth_archive::read_shown(self, buffer)
    }
}
