//! Option words and destinations.

use berth_sys::mount::attributes::{Reach, attribute};

use super::{Words, clean};

fn parse(words: &[&str]) -> Words {
    Words::parse(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())
}

#[test]
fn words_are_attributes_propagation_or_data() {
    let words =
        parse(&["rbind", "ro", "nosuid", "rprivate", "rro", "noatime", "size=1m", "newinstance", "sync"]);
    assert_eq!(words.bind, Some(Reach::Tree));
    assert_eq!(words.set, attribute::RDONLY | attribute::NOSUID | attribute::NOATIME);
    assert_eq!(words.rset, attribute::RDONLY);
    assert_eq!(words.propagation, [(libc::MS_PRIVATE, true)]);
    assert_eq!(words.data, ["size=1m", "newinstance"]);
    assert_eq!(words.super_flags, ["sync"]);
}

#[test]
fn the_last_word_counts() {
    let words = parse(&["ro", "rw", "strictatime", "relatime", "exec", "noexec"]);
    assert_eq!(words.set, attribute::NOEXEC);
    assert_eq!(words.clear, attribute::RDONLY | attribute::ATIME);
}

#[test]
fn words_that_begin_like_recursive_ones_stay_data() {
    // `relatime` is no recursive `elatime`, `rootcontext=…` no recursive `ootcontext`.
    let words = parse(&["rootcontext=x", "relatime", "rshared", "remount"]);
    assert_eq!(words.data, ["rootcontext=x"]);
    assert_eq!(words.propagation, [(libc::MS_SHARED, true)]);
    assert_eq!(words.rset, 0);
}

#[test]
fn destinations_are_cleaned_before_they_are_judged() {
    for (path, cleaned) in [
        ("/a//b/./c", "/a/b/c"),
        ("/tmp/../proc/sys", "/proc/sys"),
        ("relative/x/", "/relative/x"),
        ("/../..", "/"),
    ] {
        assert_eq!(clean(path).unwrap(), cleaned);
    }
    assert!(clean("/a\0b").is_err());
}
