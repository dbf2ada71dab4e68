//! Names for chunks of which nobody says what they hash to.

use std::ops::Range;

use berth_archive::Hasher;
use berth_types::{Algorithm, Digest};

/// The name of the bytes that a zTOC makes of a part of the tar. They follow from the zTOC alone, which holds the digests
/// of all that they are made of, so whoever has the same zTOC means the same bytes.
///
/// It has the form of a SHA-256 and is a SHA-512 cut off: no bytes that anybody could find have it as theirs, so that a
/// chunk of another kind of table is never taken for this one.
pub(super) fn name(ztoc: &Digest, part: &Range<u64>) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(format!("bytes {} to {} by the zTOC {ztoc}", part.start, part.end).as_bytes());
    let hash = hasher.finish();
    let mut short = [0; 32];
    for (byte, digits) in short.iter_mut().zip(hash.hex().as_bytes().chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16).unwrap_or_default() as u8;
        *byte = digit(digits[0]) << 4 | digit(digits[1]);
    }
    Digest::sha256(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_beginning_of_a_hash_that_no_chunk_has() {
        let ztoc = Hasher::digest(b"a zTOC");
        let name = name(&ztoc, &(1..2));
        let text = format!("bytes 1 to 2 by the zTOC {ztoc}");
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(text.as_bytes());
        assert_eq!(name.hex(), &hasher.finish().hex()[..64]);
        assert_ne!(name, Hasher::digest(text.as_bytes()));
    }
}
