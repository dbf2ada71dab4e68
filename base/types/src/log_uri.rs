//! Paths within the log URIs that shims understand (`file:///PATH`, `binary://PROGRAM?KEY=VALUE`, `berth-json:///PATH`,
//! `berth-cri:///PATH`).

use std::fmt::Write as _;

/// A path, or any other value, with percent-encoding for everything that could mean something else in a URI.
pub fn escape(value: impl AsRef<[u8]>) -> String {
    let mut escaped = String::with_capacity(value.as_ref().len());
    for &byte in value.as_ref() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            escaped.push(byte as char);
        } else {
            // Writing to a text cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_mean_something_else_is_escaped() {
        assert_eq!(escape("/a b/c?d"), "/a%20b/c%3Fd");
        assert_eq!(escape([b'/', 0xff, b'%']), "/%FF%25");
        assert_eq!(escape("/plain-1.2_3~"), "/plain-1.2_3~");
    }
}
