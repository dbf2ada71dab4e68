//! Literals and matches, and the symbols that they are written with (RFC 1951, 3.2.5).

/// Shortest match that the format has.
pub(crate) const SHORTEST: usize = 3;

/// Longest match.
pub(crate) const LONGEST: usize = 258;

/// The symbol that ends a block.
pub(crate) const END: usize = 256;

/// A repetition of what came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    /// Bytes, 3 to 258.
    pub(crate) length: u16,
    /// How far back, 1 to 32768.
    pub(crate) distance: u16,
}

/// What a block is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// The next plain byte itself.
    Literal,
    /// A match.
    Match(Match),
    /// A match of 258 bytes at this distance, which is written with the symbol that only goes to 257 by rights.
    Odd(u16),
}

impl Token {
    /// Plain bytes.
    pub(crate) fn length(self) -> usize {
        match self {
            Self::Literal => 1,
            Self::Match(found) => usize::from(found.length),
            Self::Odd(_) => LONGEST,
        }
    }
}

/// A symbol, with bits that follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Symbol {
    pub(crate) number: usize,
    pub(crate) extra: u32,
    pub(crate) bits: u32,
}

/// The symbol of a length.
pub(crate) fn length_symbol(length: u16) -> Symbol {
    let over = u32::from(length) - SHORTEST as u32;
    if length as usize == LONGEST {
        return Symbol { number: 285, extra: 0, bits: 0 };
    }
    if over < 8 {
        return Symbol { number: 257 + over as usize, extra: 0, bits: 0 };
    }
    let bits = over.ilog2() - 2;
    let number = 261 + 4 * bits as usize + (over >> bits & 3) as usize;
    Symbol { number, extra: over & ((1 << bits) - 1), bits }
}

/// The symbol of a distance.
pub(crate) fn distance_symbol(distance: u16) -> Symbol {
    let over = u32::from(distance) - 1;
    if over < 4 {
        return Symbol { number: over as usize, extra: 0, bits: 0 };
    }
    let bits = over.ilog2() - 1;
    Symbol {
        number: 2 + 2 * bits as usize + (over >> bits & 1) as usize,
        extra: over & ((1 << bits) - 1),
        bits,
    }
}

/// The shortest length of a symbol and the bits that follow it; none for what is no length.
pub(crate) fn length_of(symbol: usize) -> Option<(u32, u32)> {
    match symbol {
        257..=264 => Some((symbol as u32 - 257 + 3, 0)),
        265..=284 => {
            let bits = (symbol as u32 - 261) / 4;
            Some((((4 + (symbol as u32 - 261) % 4) << bits) + 3, bits))
        }
        285 => Some((258, 0)),
        _ => None,
    }
}

/// The shortest distance of a symbol and the bits that follow it; none for what is no distance.
pub(crate) fn distance_of(symbol: usize) -> Option<(u32, u32)> {
    match symbol {
        0..=3 => Some((symbol as u32 + 1, 0)),
        4..=29 => {
            let bits = (symbol as u32 - 2) / 2;
            Some((((2 + symbol as u32 % 2) << bits) + 1, bits))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_distance_has_a_symbol_that_means_it() {
        for length in 3..=258_u16 {
            let symbol = length_symbol(length);
            let (base, bits) = length_of(symbol.number).unwrap();
            assert_eq!((base + symbol.extra, bits), (u32::from(length), symbol.bits), "{length}");
        }
        for distance in 1..=32768_u16 {
            let symbol = distance_symbol(distance);
            let (base, bits) = distance_of(symbol.number).unwrap();
            assert_eq!((base + symbol.extra, bits), (u32::from(distance), symbol.bits), "{distance}");
        }
        assert_eq!((length_of(256), length_of(286), distance_of(30)), (None, None, None));
    }
}
