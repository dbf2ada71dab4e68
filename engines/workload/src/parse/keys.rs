//! The keys that leave a terminal without ending what runs in it.

use berth_types::{Error, Result};

/// A sequence of bytes to watch for in what somebody types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

/// What became of typed bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// These go on to the container.
    Bytes(Vec<u8>),
    /// These do, and then the sequence was complete.
    Detach(Vec<u8>),
}

impl Default for DetachKeys {
    /// ctrl-p ctrl-q.
    fn default() -> Self {
        Self { keys: vec![0x10, 0x11], matched: 0 }
    }
}

impl DetachKeys {
    /// Looks through bytes in the order in which they were typed. The beginning of a sequence is
    /// held back until it is clear what it is.
    pub fn typed(&mut self, bytes: &[u8]) -> Typed {
        let mut pass = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if byte != self.keys[self.matched] {
                pass.extend_from_slice(&self.keys[..self.matched]);
                self.matched = 0;
            }
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return Typed::Detach(pass);
                }
            } else {
                pass.push(byte);
            }
        }
        Typed::Bytes(pass)
    }
}

/// A comma-separated list of single characters and `ctrl-X`, X being a letter or one of `@[\]^_`.
pub fn detach_keys(text: &str) -> Result<DetachKeys> {
    let wrong = || {
        Error::invalid_argument(format!("invalid detach keys ({text}): use a character or ctrl-X, by commas"))
    };
    let key = |key: &str| match key.as_bytes() {
        [one] => Ok(*one),
        [b'c', b't', b'r', b'l', b'-', one] => match one.to_ascii_lowercase() {
            letter @ b'a'..=b'z' => Ok(letter - b'a' + 1),
            b'@' => Ok(0),
            sign @ (b'[' | b'\\' | b']' | b'^' | b'_') => Ok(sign - b'[' + 27),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    };
    let keys: Vec<u8> = text.split(',').map(key).collect::<Result<_>>()?;
    Ok(DetachKeys { keys, matched: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_docker_does() {
        assert_eq!(detach_keys("ctrl-p,ctrl-q").unwrap(), DetachKeys::default());
        assert_eq!(detach_keys("a,ctrl-\\").unwrap().keys, [b'a', 28]);
        for bad in ["", "ctrl-", "ctrl-1", "ab", "a,,b"] {
            assert!(detach_keys(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_sequence_is_found_across_reads_and_a_false_start_is_passed_on() {
        let mut keys = DetachKeys::default();
        assert_eq!(keys.typed(b"ls\x10"), Typed::Bytes(b"ls".to_vec()));
        assert_eq!(keys.typed(b"x"), Typed::Bytes(b"\x10x".to_vec()));
        assert_eq!(keys.typed(b"\x10\x10\x11rest"), Typed::Detach(b"\x10".to_vec()));
    }
}
