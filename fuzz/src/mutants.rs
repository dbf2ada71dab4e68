//! Inputs made of others.

/// Bytes of the longest input.
const LONGEST: usize = 64 << 10;

/// Changes of one input, at most.
const CHANGES: u64 = 6;

/// Makes inputs of seeds and words, without end; the same ones from the same number.
#[derive(Debug)]
pub struct Mutants<'a> {
    seeds: &'a [Vec<u8>],
    words: &'a [&'a str],
    state: u64,
}

impl<'a> Mutants<'a> {
    /// From seeds, of which there has to be one at least, and the words of a format.
    pub fn new(seeds: &'a [Vec<u8>], words: &'a [&'a str], number: u64) -> Self {
        Self { seeds, words, state: number }
    }

    /// SplitMix64, which is good enough for places and bytes.
    fn next_number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { (self.next_number() % limit as u64) as usize }
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        match self.next_number() % 8 {
            0 | 1 if at < input.len() => input[at] ^= 1 << (self.next_number() % 8),
            2 if at < input.len() => input[at] = [0, 0x20, 0x2f, 0x30, 0x39, 0x7f, 0x80, 0xff][self.below(8)],
            3 => {
                let end = (at + 1 + self.below(32)).min(input.len());
                input.drain(at.min(end)..end);
            }
            4 => {
                // A piece of the same input once more.
                let end = (at + 1 + self.below(600)).min(input.len());
                let piece = input[at.min(end)..end].to_vec();
                let to = self.below(input.len() + 1);
                input.splice(to..to, piece);
            }
            5 => {
                // The end of another seed.
                let other = &self.seeds[self.below(self.seeds.len())];
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from.min(other.len())..]);
            }
            _ if !self.words.is_empty() => {
                let word = self.words[self.below(self.words.len())].as_bytes();
                let end = if self.next_number().is_multiple_of(2) {
                    at
                } else {
                    (at + word.len()).min(input.len())
                };
                input.splice(at..end, word.iter().copied());
            }
            _ => input.insert(at, (self.next_number() % 256) as u8),
        }
        input.truncate(LONGEST);
    }
}

impl Iterator for Mutants<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let seed = self.below(self.seeds.len());
        let mut input = self.seeds.get(seed)?.clone();
        for _ in 0..=self.next_number() % CHANGES {
            self.change(&mut input);
        }
        Some(input)
    }
}
