//! Image references as people type them, and the full names that they stand for.

use std::fmt;
use std::str::FromStr;

use crate::{Digest, Error, Result};

/// A full image reference: `HOST/PATH[:TAG][@DIGEST]`.
///
/// Parsing takes Docker's short forms: `busybox` is `docker.io/library/busybox:latest`. A
/// reference with neither tag nor digest gets `latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    host: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

const DEFAULT_HOST: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
const MAX_NAME: usize = 255;

impl ImageRef {
    /// The registry, with its port if any.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository beneath the host: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if any.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if any.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Host and path without tag and digest.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// The repository as Docker shows it: `busybox` for `docker.io/library/busybox`.
    pub fn familiar_repository(&self) -> String {
        if self.host != DEFAULT_HOST {
            return self.repository();
        }
        self.path.strip_prefix("library/").unwrap_or(&self.path).to_owned()
    }

    /// The whole reference as Docker shows it.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_repository())
    }

    /// The same repository under another tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        check_tag(tag)?;
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }
}

impl FromStr for ImageRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |why: &str| Error::invalid_argument(format!("invalid image reference {text:?}: {why}"));
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
            None => (text, None),
        };
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[slash..].split_once(':') {
            Some((last, tag)) => (&rest[..slash + last.len()], Some(tag)),
            None => (rest, None),
        };
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        let (host, path) = split_host(name);
        if !is_host(host) {
            return Err(invalid("the registry is no host name with an optional port"));
        }
        if path.is_empty() {
            return Err(invalid("no repository name"));
        }
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(invalid("the repository name must be lower case"));
        }
        if !path.split('/').all(is_path_component) {
            return Err(invalid(
                "the repository name may only have lower-case letters, digits and single separators",
            ));
        }
        let path = if host == DEFAULT_HOST && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        // Of the whole name, so that what is written can be read again.
        if host.len() + path.len() > MAX_NAME {
            return Err(invalid("the repository name is longer than 255 characters"));
        }
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned()));
        Ok(Self { host: host.to_owned(), path, tag, digest })
    }
}

/// The first component is a host if it has a dot or a port, is `localhost`, or has upper case.
fn split_host(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some(("index.docker.io", path)) => (DEFAULT_HOST, path),
        Some((host, path))
            if host.contains(['.', ':'])
                || host == "localhost"
                || host.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (host, path)
        }
        _ => (DEFAULT_HOST, name),
    }
}

/// A host name or a bracketed IPv6 address, with an optional port.
fn is_host(host: &str) -> bool {
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let address = address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':');
        return address && (port.is_empty() || port.strip_prefix(':').is_some_and(digits));
    }
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.split('.').all(label) && port.is_none_or(digits)
}

/// Lower-case letters and digits with `.`, `_`, `__` or dashes between them (distribution-spec).
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    component
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .filter(|separator| !separator.is_empty())
        .all(|separator| matches!(separator, "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-'))
}

fn check_tag(tag: &str) -> Result<()> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = tag.bytes();
    let good = tag.len() <= 128
        && bytes.next().is_some_and(word)
        && bytes.all(|byte| word(byte) || matches!(byte, b'.' | b'-'));
    if good { Ok(()) } else { Err(Error::invalid_argument(format!("invalid image tag {tag:?}"))) }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.repository()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_dockers() {
        for (typed, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("me/app:1", "docker.io/me/app:1"),
            ("localhost/app", "localhost/app:latest"),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c"),
            ("index.docker.io/library/x:y", "docker.io/library/x:y"),
        ] {
            assert_eq!(typed.parse::<ImageRef>().unwrap().to_string(), full);
        }
    }

    #[test]
    fn a_digest_needs_no_tag() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let reference: ImageRef = format!("busybox@{digest}").parse().unwrap();
        assert_eq!(reference.to_string(), format!("docker.io/library/busybox@{digest}"));
        assert_eq!(reference.familiar(), format!("busybox@{digest}"));
    }

    #[test]
    fn the_longest_short_name_can_be_written_and_read_again() {
        let name = |length: usize| "a".repeat(length).parse::<ImageRef>();
        let longest = (0..300).rev().find_map(|length| name(length).ok()).unwrap();
        assert_eq!(longest.to_string().parse::<ImageRef>().unwrap(), longest);
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for bad in ["", "Busybox", "a//b", "-a", "a:", "a:b/c:", "a@sha256:12", "a b", "../x", "a:ü"] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad}");
        }
    }
}
