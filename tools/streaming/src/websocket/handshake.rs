//! The answer to a client's key (RFC 6455, section 4.2.2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// What is hashed with the key, so that an answer shows that the question was understood.
const UNIQUE: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The value of `Sec-WebSocket-Accept`; none when the key is no key.
pub(crate) fn accept(key: &[u8]) -> Option<String> {
    let bytes = STANDARD.decode(key).ok()?;
    (bytes.len() == 16)
        .then(|| STANDARD.encode(Sha1::new().chain_update(key).chain_update(UNIQUE).finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_is_answered() {
        let answer = accept(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(answer.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(accept(b"c2hvcnQ="), None);
        assert_eq!(accept(b"no base64!"), None);
    }
}
