//! How compressors search: the facts of zlib's, gzip's and Go's levels, by which their choices are guessed.
//!
//! Sources: the tables of parameters that these programs publish with their levels; RFC 1951, 4. A guess that is wrong costs
//! room in the recipe and nothing else.

/// A way to search.
#[derive(Debug)]
pub(crate) struct Params {
    /// Whose.
    pub(crate) kind: Kind,
    /// Matches of this length and more end the search for a better one.
    pub(crate) nice: usize,
    /// Candidates that are looked at.
    pub(crate) chain: usize,
    /// When the byte before had a match that long, a quarter of that.
    pub(crate) good: usize,
    /// What is done with a match that is shorter than this many bytes: the next byte is tried too (lazy); or, when
    /// greedy, only matches up to that have each of their bytes remembered.
    pub(crate) limit: usize,
    /// Whether a match waits for the one at the next byte.
    pub(crate) is_lazy: bool,
}

/// Whose habits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// zlib's and gzip's: three bytes are hashed.
    Zlib,
    /// Go's standard library's: four bytes are hashed.
    Go,
}

impl Kind {
    /// The shortest match that is searched for, as many bytes as are hashed.
    pub(crate) fn shortest(self) -> usize {
        match self {
            Self::Zlib => 3,
            Self::Go => 4,
        }
    }

    /// Bits of the hash.
    pub(crate) fn hash_bits(self) -> u32 {
        match self {
            Self::Zlib => 15,
            Self::Go => 17,
        }
    }

    /// The hash of the first bytes, of which there have to be enough.
    pub(crate) fn hash(self, bytes: &[u8]) -> usize {
        match self {
            Self::Zlib => {
                let hash = u32::from(bytes[0]) << 10 ^ u32::from(bytes[1]) << 5 ^ u32::from(bytes[2]);
                (hash & 0x7fff) as usize
            }
            Self::Go => {
                let word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                (word.wrapping_mul(0x1e35_a7bd) >> (32 - 17)) as usize
            }
        }
    }
}

const fn lazy(kind: Kind, good: usize, limit: usize, nice: usize, chain: usize) -> Params {
    Params { kind, nice, chain, good, limit, is_lazy: true }
}

const fn greedy(kind: Kind, limit: usize, nice: usize, chain: usize) -> Params {
    Params { kind, nice, chain, good: usize::MAX, limit, is_lazy: false }
}

/// Every way that is tried, the usual ones first. Recipes name them by their place, so that new ones come last.
pub(crate) const ALL: [Params; 18] = [
    lazy(Kind::Go, 8, 16, 128, 128),
    lazy(Kind::Zlib, 8, 16, 128, 128),
    lazy(Kind::Zlib, 32, 258, 258, 4096),
    lazy(Kind::Go, 32, 258, 258, 4096),
    greedy(Kind::Zlib, 4, 8, 4),
    greedy(Kind::Zlib, 5, 16, 8),
    greedy(Kind::Zlib, 6, 32, 32),
    lazy(Kind::Zlib, 4, 4, 16, 16),
    lazy(Kind::Zlib, 8, 16, 32, 32),
    lazy(Kind::Zlib, 8, 32, 128, 256),
    lazy(Kind::Zlib, 32, 128, 258, 1024),
    greedy(Kind::Go, 5, 16, 8),
    greedy(Kind::Go, 6, 32, 32),
    lazy(Kind::Go, 4, 4, 16, 16),
    lazy(Kind::Go, 8, 16, 32, 32),
    lazy(Kind::Go, 8, 32, 128, 256),
    lazy(Kind::Go, 32, 128, 258, 1024),
    // No search at all, for streams of literals.
    greedy(Kind::Zlib, 4, 8, 0),
];
