//! What a compressor would do next: a search along chains of places with the same hash.

use super::params::{Kind, Params};
use super::parser::WINDOW;
use super::token::{LONGEST, Match, Token};

/// Places before the first one, so that a table of zeros has nothing in reach.
const BEFORE: u64 = 1 << 16;

/// Matches of three bytes (zlib), or four (Go), are not worth a distance beyond this.
const FAR: u16 = 4096;

/// Places of zlib's window that a match cannot reach: it always wants so many bytes before it.
const MARGIN: usize = LONGEST + 3 + 1;

/// Go keeps twice the window in memory and moves it when fewer than a match's bytes are left of that.
const GO_MOVES: u64 = (2 * WINDOW - (LONGEST + 4)) as u64;

/// Plain bytes as far as they may be seen. Places are counted from the beginning of the stream.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) bytes: &'a [u8],
    /// The place of the first.
    pub(crate) start: u64,
}

impl View<'_> {
    fn index(&self, place: u64) -> usize {
        (place - self.start) as usize
    }
}

/// Guesses tokens. It has to be told each true one.
pub(crate) struct Matcher {
    params: &'static Params,
    /// By hash, the latest place, and by place, the one before it with the same hash: as 32 bits of it.
    head: Vec<u32>,
    previous: Vec<u32>,
    /// The next place to be remembered.
    next: u64,
    /// Where the deflate stream began.
    begin: u64,
    /// From where Go has its window in memory.
    base: u64,
    /// The length of the match at the byte before that was given up for a better one.
    given_up: usize,
    /// A match that was found one byte early.
    early: Option<(u64, Match)>,
    /// The length of the match that the latest guess began with.
    latest: usize,
}

impl Matcher {
    pub(crate) fn new(params: &'static Params) -> Self {
        let head = vec![0; 1 << params.kind.hash_bits()];
        let shortest = params.kind.shortest();
        Self {
            params,
            head,
            previous: vec![0; WINDOW],
            next: 0,
            begin: 0,
            base: 0,
            given_up: shortest - 1,
            early: None,
            latest: shortest - 1,
        }
    }

    /// A deflate stream begins: nothing before this place is in reach.
    pub(crate) fn begin(&mut self, place: u64) {
        (self.next, self.begin, self.base) = (place, place, place);
        self.given_up = self.none();
        self.early = None;
    }

    /// The length that stands for no match.
    fn none(&self) -> usize {
        self.params.kind.shortest() - 1
    }

    /// The token that the compressor would write at a place.
    pub(crate) fn guess(&mut self, view: View<'_>, place: u64) -> Token {
        let early = self.early.take().filter(|(at, _)| *at == place).map(|(_, found)| found);
        let found = early.or_else(|| self.search(view, place, self.given_up));
        self.latest = found.map_or(self.none(), |found| usize::from(found.length));
        let Some(found) = found else { return Token::Literal };
        if self.params.is_lazy && self.latest < self.params.limit {
            let better = self.search(view, place + 1, self.latest);
            if let Some(better) = better.filter(|better| better.length > found.length) {
                self.early = Some((place + 1, better));
                return Token::Literal;
            }
        }
        Token::Match(found)
    }

    /// Takes the token that was really there.
    pub(crate) fn accept(&mut self, view: View<'_>, place: u64, token: Token) {
        if token == Token::Literal {
            self.given_up = self.latest;
            return;
        }
        self.early = None;
        self.given_up = self.none();
        let end = place + token.length() as u64;
        if !self.params.is_lazy && token.length() > self.params.limit {
            self.remember(view, place + 1);
            self.next = self.next.max(end);
        }
    }

    /// Goes past bytes that were not written as tokens.
    pub(crate) fn pass(&mut self, view: View<'_>, end: u64) {
        self.early = None;
        self.given_up = self.none();
        self.remember(view, end);
    }

    /// Remembers every place before this one, as far as its bytes can be seen.
    pub(crate) fn remember(&mut self, view: View<'_>, end: u64) {
        let kind = self.params.kind;
        while self.next < end {
            let at = view.index(self.next);
            let Some(bytes) = view.bytes.get(at..at + kind.shortest()) else { return };
            let key = kind.hash(bytes);
            let short = (self.next + BEFORE) as u32;
            self.previous[short as usize % WINDOW] = self.head[key];
            self.head[key] = short;
            self.next += 1;
        }
    }

    /// The best match at a place that is longer than the one given up.
    fn search(&mut self, view: View<'_>, place: u64, given_up: usize) -> Option<Match> {
        self.remember(view, place);
        let Params { kind, nice, mut chain, good, .. } = *self.params;
        let at = view.index(place);
        let here = view.bytes.get(at..)?;
        let here = &here[..here.len().min(LONGEST)];
        if here.len() < kind.shortest() {
            return None;
        }
        let farthest = self.farthest(place);
        let nice = nice.min(here.len());
        let mut best = self.none();
        if kind == Kind::Zlib && self.params.is_lazy {
            best = best.max(given_up);
            if given_up >= good {
                chain /= 4;
            }
        }
        let short = (place + BEFORE) as u32;
        let mut candidate = self.head[kind.hash(here)];
        let (mut found, mut nearer) = (None, 0);
        for _ in 0..chain {
            let distance = short.wrapping_sub(candidate) as usize;
            if distance <= nearer || distance > farthest || best >= here.len() {
                break;
            }
            nearer = distance;
            let there = &view.bytes[at - distance..];
            if there[best] == here[best] {
                let length = common(there, here);
                let near = kind == Kind::Zlib || length > kind.shortest() || distance <= usize::from(FAR);
                if length > best && near {
                    best = length;
                    found = Some(Match { length: length as u16, distance: distance as u16 });
                    if length >= nice {
                        break;
                    }
                }
            }
            candidate = self.previous[candidate as usize % WINDOW];
        }
        let too_far = |found: &Match| {
            kind == Kind::Zlib && self.params.is_lazy && found.length == 3 && found.distance > FAR
        };
        found.filter(|found| !too_far(found))
    }

    /// How far back a match may be.
    fn farthest(&mut self, place: u64) -> usize {
        let since = place - self.begin;
        match self.params.kind {
            // The first byte of all is the one that zlib takes for none.
            Kind::Zlib => since.saturating_sub(1).min((WINDOW - MARGIN) as u64) as usize,
            Kind::Go => {
                while place - self.base > GO_MOVES {
                    self.base += WINDOW as u64;
                }
                (place - self.base).min(WINDOW as u64) as usize
            }
        }
    }
}

/// How many bytes are the same, at most as many as there are here.
fn common(there: &[u8], here: &[u8]) -> usize {
    let mut length = 0;
    for (one, other) in there.chunks_exact(8).zip(here.chunks_exact(8)) {
        let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        let differ = word(one) ^ word(other);
        if differ != 0 {
            return length + differ.trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    let rest = there[length..].iter().zip(&here[length..]);
    length + rest.take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deflate::params::ALL;

    #[test]
    fn what_is_common_is_counted_to_the_byte() {
        for length in 0..40 {
            let (mut one, other) = (vec![7; 60], vec![7; 40]);
            one[length] = 8;
            assert_eq!(common(&one, &other), length);
        }
        assert_eq!(common(&[1; 50], &[1; 21]), 21);
    }

    #[test]
    fn a_repetition_is_guessed_and_what_is_new_is_not() {
        let bytes = b"xabcdefgh, abcdefgh.";
        let view = View { bytes, start: 0 };
        for params in ALL.iter().filter(|params| params.chain > 0) {
            let mut matcher = Matcher::new(params);
            matcher.begin(0);
            for place in 0..11 {
                assert_eq!(matcher.guess(view, place), Token::Literal, "{params:?} {place}");
                matcher.accept(view, place, Token::Literal);
            }
            assert_eq!(matcher.guess(view, 11), Token::Match(Match { length: 8, distance: 10 }));
        }
    }
}
