//! `format/`: where earlier mounts of a list are, filled in.
//!
//! | in source, target and options | becomes |
//! |---|---|
//! | `{{ mount N }}` | where mount N is mounted |
//! | `{{ source N }}`, `{{ target N }}` | what mount N says |
//! | `{{ overlay FROM TO }}` | where these mounts are, from the first to the last of them, with colons between |
//!
//! Mounts are counted from 0. containerd reads these as Go templates; nothing else of those is known here.

use berth_types::{ActiveMount, Error, Mount, Result};

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

/// Fills in what a mount leaves open.
pub(crate) fn fill(mut mount: Mount, earlier: &[ActiveMount]) -> Result<Mount> {
    mount.source = filled(&mount.source, earlier)?;
    mount.target = filled(&mount.target, earlier)?;
    for option in &mut mount.options {
        *option = filled(option, earlier)?;
    }
    Ok(mount)
}

fn filled(text: &str, earlier: &[ActiveMount]) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(OPEN) {
        let (place, after) =
            behind.split_once(CLOSE).ok_or_else(|| wrong(text, "a place is not closed with }}"))?;
        out.push_str(before);
        out.push_str(&value(place, earlier).map_err(|why| wrong(text, &why))?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn value(place: &str, earlier: &[ActiveMount]) -> Result<String, String> {
    let words: Vec<&str> = place.split_whitespace().collect();
    let one = |number: &str| -> Result<&ActiveMount, String> {
        earlier
            .get(index(number)?)
            .ok_or_else(|| format!("index out of bounds: {number}, has {} active mounts", earlier.len()))
    };
    match words[..] {
        ["mount", number] => Ok(one(number)?.point.clone()),
        ["source", number] => Ok(one(number)?.mount.source.clone()),
        ["target", number] => Ok(one(number)?.mount.target.clone()),
        ["overlay", from, to] => {
            one(from)?;
            one(to)?;
            let (from, to) = (index(from)?, index(to)?);
            let points = earlier[from.min(to)..=from.max(to)].iter().map(|mount| mount.point.as_str());
            let points: Vec<&str> = if from > to { points.rev().collect() } else { points.collect() };
            Ok(points.join(":"))
        }
        _ => Err(format!("{{{{{place}}}}} is none of mount N, source N, target N and overlay FROM TO")),
    }
}

fn index(number: &str) -> Result<usize, String> {
    number.parse().map_err(|_| format!("{number:?} is not the number of a mount"))
}

fn wrong(text: &str, why: &str) -> Error {
    Error::invalid_argument(format!("cannot fill in {text:?}: {why}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn earlier() -> Vec<ActiveMount> {
        let active = |number: usize| ActiveMount {
            mount: Mount { source: format!("/s{number}"), target: format!("t{number}"), ..Mount::default() },
            mounted_at: None,
            point: format!("/m{number}"),
            data: std::collections::BTreeMap::new(),
        };
        (0..3).map(active).collect()
    }

    #[test]
    fn places_are_filled_in() {
        for (text, wanted) in [
            ("{{ mount 0 }}/upper", "/m0/upper"),
            ("{{mount 2}}:{{  source 1 }}:{{target 0}}", "/m2:/s1:t0"),
            ("lowerdir={{ overlay 0 2 }}", "lowerdir=/m0:/m1:/m2"),
            ("lowerdir={{ overlay 2 1 }}", "lowerdir=/m2:/m1"),
            ("{{ overlay 1 1 }}", "/m1"),
            ("as it is { }} }", "as it is { }} }"),
        ] {
            assert_eq!(filled(text, &earlier()).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn places_that_are_not_there_are_named() {
        for text in [
            "{{ mount 3 }}",
            "{{ overlay 0 3 }}",
            "{{ mount -1 }}",
            "{{ mount",
            "{{ }}",
            "{{ if 1 }}",
            "{{ mount 1 2 }}",
        ] {
            let error = filled(text, &earlier()).unwrap_err();
            assert_eq!(error.kind(), berth_types::ErrorKind::InvalidArgument);
            assert!(error.message().contains("cannot fill in"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer(text: String) {
            let _ = filled(&text, &earlier());
        }
    }
}
