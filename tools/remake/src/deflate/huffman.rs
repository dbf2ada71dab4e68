//! Codes by their lengths (RFC 1951, 3.2.2 and 3.2.7).

use std::io;

use crate::error::stream;

/// The longest code.
const LONGEST: usize = 15;

/// In which order the lengths of the code for lengths come.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// The code lengths of a block; 0 where a symbol has no code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lengths {
    pub(crate) literals: Vec<u8>,
    pub(crate) distances: Vec<u8>,
}

impl Lengths {
    /// Those of blocks that bring none of their own (3.2.6).
    pub(crate) fn fixed() -> Self {
        let mut literals = vec![8; 288];
        literals[144..256].fill(9);
        literals[256..280].fill(7);
        Self { literals, distances: vec![5; 30] }
    }

    /// Reads those that a block brings.
    pub(crate) fn read(mut take: impl FnMut(u32) -> io::Result<u32>) -> io::Result<Self> {
        let literals = take(5)? as usize + 257;
        let distances = take(5)? as usize + 1;
        let count = take(4)? as usize + 4;
        let mut short = [0; 19];
        for &at in &ORDER[..count] {
            short[at] = take(3)? as u8;
        }
        let codes = codes(&short)?;
        let mut lengths: Vec<u8> = Vec::with_capacity(literals + distances);
        while lengths.len() < literals + distances {
            let (value, times) = match symbol(&short, &codes, &mut take)? {
                16 => (
                    *lengths.last().ok_or_else(|| stream("a length is repeated before the first"))?,
                    3 + take(2)?,
                ),
                17 => (0, 3 + take(3)?),
                18 => (0, 11 + take(7)?),
                length => (length as u8, 1),
            };
            lengths.extend(std::iter::repeat_n(value, times as usize));
        }
        if lengths.len() > literals + distances {
            return Err(stream("more code lengths than symbols"));
        }
        let distances = lengths.split_off(literals);
        Ok(Self { literals: lengths, distances })
    }
}

/// Reads a symbol bit by bit: for the few of a header.
fn symbol(lengths: &[u8], codes: &[u16], take: &mut impl FnMut(u32) -> io::Result<u32>) -> io::Result<usize> {
    let mut code = 0_u16;
    for length in 1..=7_u8 {
        code |= (take(1)? as u16) << (length - 1);
        if let Some(found) = (0..lengths.len()).find(|&at| lengths[at] == length && codes[at] == code) {
            return Ok(found);
        }
    }
    Err(stream("no such code of a length"))
}

/// The codes of symbols, in the order in which their bits are written. Codes that are missing are allowed, for some
/// compressors leave them out; more than there can be are not.
pub(crate) fn codes(lengths: &[u8]) -> io::Result<Vec<u16>> {
    let mut counts = [0_u32; LONGEST + 1];
    for &length in lengths {
        counts[usize::from(length)] += 1;
    }
    counts[0] = 0;
    let mut next = [0_u32; LONGEST + 2];
    for length in 1..=LONGEST {
        next[length + 1] = (next[length] + counts[length]) << 1;
        if next[length] + counts[length] > 1 << length {
            return Err(stream("more codes than there can be"));
        }
    }
    let mut codes = vec![0; lengths.len()];
    for (code, &length) in codes.iter_mut().zip(lengths) {
        if length > 0 {
            let value = &mut next[usize::from(length)];
            *code = (*value as u16).reverse_bits() >> (16 - length);
            *value += 1;
        }
    }
    Ok(codes)
}

/// Finds symbols by the bits that come.
#[derive(Clone, Debug)]
pub(crate) struct Decoder {
    /// By the next bits: the symbol, and in the lowest four bits the length of its code; 0 where there is none.
    table: Vec<u16>,
    mask: u64,
}

impl Decoder {
    pub(crate) fn new(lengths: &[u8]) -> io::Result<Self> {
        let codes = codes(lengths)?;
        let bits = lengths.iter().copied().max().unwrap_or(0);
        let mut table = vec![0; 1 << bits];
        for (symbol, (&code, &length)) in codes.iter().zip(lengths).enumerate() {
            if length > 0 {
                let entry = (symbol as u16) << 4 | u16::from(length);
                for place in table.iter_mut().skip(usize::from(code)).step_by(1 << length) {
                    *place = entry;
                }
            }
        }
        Ok(Self { table, mask: (1 << bits) - 1 })
    }

    /// The symbol and the length of its code; a length of 0 where there is none.
    pub(crate) fn find(&self, bits: u64) -> (usize, u32) {
        let entry = self.table[(bits & self.mask) as usize];
        (usize::from(entry >> 4), u32::from(entry & 15))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_rfc() {
        // The example of 3.2.2, its bits in the order of writing.
        let codes = codes(&[3, 3, 3, 3, 3, 2, 4, 4]).unwrap();
        assert_eq!(codes, [0b010, 0b110, 0b001, 0b101, 0b011, 0b00, 0b0111, 0b1111]);
    }

    #[test]
    fn too_many_codes_are_refused_and_too_few_are_not() {
        assert!(codes(&[1, 1, 1]).is_err());
        let one = Decoder::new(&[0, 1]).unwrap();
        assert_eq!((one.find(0), one.find(1)), ((1, 1), (0, 0)));
        assert_eq!(Decoder::new(&[0; 30]).unwrap().find(7), (0, 0));
    }
}
