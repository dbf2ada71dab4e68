//! Log URIs: `SCHEME://PATH?KEY=VALUE&…`, percent-encoded as Go's net/url has them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use berth_types::{Error, Result};

/// A log URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uri {
    pub(crate) scheme: String,
    pub(crate) path: PathBuf,
    /// In order; a key may stand alone.
    pub(crate) query: Vec<(String, String)>,
}

impl Uri {
    /// Parses text; none when it has no scheme.
    pub(super) fn parse(text: &str) -> Result<Option<Self>> {
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(None) };
        // A path that happens to hold `://` is a path.
        if scheme.contains('/') {
            return Ok(None);
        }
        let wrong = || Error::invalid_argument(format!("unable to parse stdout uri {text:?}"));
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        // A host, which none of the schemes has a use for, ends at the path's slash.
        let path = &path[path.find('/').ok_or_else(wrong)?..];
        let path = PathBuf::from(OsString::from_vec(decode(path, Plus::IsPlus).ok_or_else(wrong)?));
        let word = |text: &str| {
            let bytes = decode(text, Plus::IsBlank).ok_or_else(wrong)?;
            String::from_utf8(bytes).map_err(|_| wrong())
        };
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((word(key)?, word(value)?));
        }
        Ok(Some(Self { scheme: scheme.to_owned(), path, query: pairs }))
    }

    /// The first value of a key.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// What `+` means: in a query, a blank.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    IsPlus,
    IsBlank,
}

fn decode(text: &str, plus: Plus) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digit = |byte: Option<u8>| (byte? as char).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                out.push((high * 16 + low) as u8);
            }
            b'+' if plus == Plus::IsBlank => out.push(b' '),
            0 => return None,
            other => out.push(other),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_uri_is_taken_apart() {
        let uri = Uri::parse("binary:///usr/bin/log%20ger?--id=a+b&flag&--id=2").unwrap().unwrap();
        assert_eq!((uri.scheme.as_str(), uri.path.to_str()), ("binary", Some("/usr/bin/log ger")));
        let pairs: Vec<_> = uri.query.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("--id", "a b"), ("flag", ""), ("--id", "2")]);
        assert_eq!(uri.value("--id"), Some("a b"));
    }

    #[test]
    fn a_path_is_no_uri_and_rubbish_an_error() {
        assert_eq!(Uri::parse("/run/a/b").unwrap(), None);
        assert_eq!(Uri::parse("/run/a://b").unwrap(), None);
        assert!(Uri::parse("file:///%zz").is_err());
        assert!(Uri::parse("file://host").is_err());
    }
}
