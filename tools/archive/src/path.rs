//! Names in an archive as places below a root.

/// The place that an archive's name means: relative, without `.`, `..` or doubled slashes.
///
/// `..` takes back one component and stops at the root, so the answer never leads outside. The root itself
/// is the empty path. This is only spelling: links are the business of whoever resolves the path.
pub fn clean(name: &[u8]) -> Vec<u8> {
    let mut cleaned: Vec<u8> = Vec::with_capacity(name.len());
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                let keep = cleaned.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                cleaned.truncate(keep);
            }
            component => {
                if !cleaned.is_empty() {
                    cleaned.push(b'/');
                }
                cleaned.extend_from_slice(component);
            }
        }
    }
    cleaned
}

/// Splits a cleaned path into its parent (empty for the root) and its last name.
pub fn parent(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&path[..0], path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning_stays_below_the_root() {
        for (name, cleaned) in [
            ("", ""),
            ("/", ""),
            ("./", ""),
            ("/a//b/./c/", "a/b/c"),
            ("../../etc/passwd", "etc/passwd"),
            ("a/../../b", "b"),
            ("a/b/..", "a"),
            ("..", ""),
            ("...", "..."),
        ] {
            assert_eq!(clean(name.as_bytes()), cleaned.as_bytes(), "{name}");
        }
    }

    #[test]
    fn a_parent_of_a_top_name_is_the_root() {
        assert_eq!(parent(b"a"), (&b""[..], &b"a"[..]));
        assert_eq!(parent(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
    }
}
