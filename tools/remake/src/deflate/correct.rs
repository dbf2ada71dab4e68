//! From tokens to corrections of guesses, and back.

use std::io;

use super::matcher::{Matcher, View};
use super::token::Token;
use super::unit::{Block, Correction, Noted, Segment};
use crate::error::recipe;

/// Guesses the tokens of a segment that begins at a place, and answers where that is wrong; nothing if more often than
/// `most` times.
pub(crate) fn corrections(
    matcher: &mut Matcher,
    view: View<'_>,
    segment: &Segment,
    mut place: u64,
    most: usize,
) -> Option<Vec<Correction>> {
    let end = place + segment.frame.length as u64;
    if matches!(segment.frame.block, Some(Block::Stored(_))) {
        matcher.pass(view, end);
        return Some(Vec::new());
    }
    let (mut corrections, mut gap) = (Vec::new(), 0);
    for &token in &segment.tokens {
        if matcher.guess(view, place) == token {
            gap += 1;
        } else {
            if corrections.len() == most {
                return None;
            }
            corrections.push(Correction { gap, token });
            gap = 0;
        }
        matcher.accept(view, place, token);
        place += token.length() as u64;
    }
    matcher.remember(view, end);
    Some(corrections)
}

/// Finds the tokens of a segment that begins at a place again, in their order.
pub(crate) fn tokens(
    matcher: &mut Matcher,
    view: View<'_>,
    noted: &Noted,
    mut place: u64,
    mut token: impl FnMut(Token, u64) -> io::Result<()>,
) -> io::Result<()> {
    let end = place + noted.frame.length as u64;
    if matches!(noted.frame.block, Some(Block::Stored(_))) {
        matcher.pass(view, end);
        return Ok(());
    }
    let mut corrections = noted.corrections.iter();
    let mut next = corrections.next();
    let mut gap = 0;
    while place < end {
        let guess = matcher.guess(view, place);
        let found = match next {
            Some(correction) if correction.gap == gap => {
                (next, gap) = (corrections.next(), 0);
                correction.token
            }
            _ => {
                gap += 1;
                guess
            }
        };
        if place + found.length() as u64 > end {
            return Err(recipe("a match goes beyond its segment"));
        }
        matcher.accept(view, place, found);
        token(found, place)?;
        place += found.length() as u64;
    }
    matcher.remember(view, end);
    if next.is_some() { Err(recipe("there are more corrections than tokens")) } else { Ok(()) }
}
