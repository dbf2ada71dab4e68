//! What is done with a mount before it is mounted, by the words before its type.

use berth_types::{ActiveMount, Error, Mount, Result};

use crate::roots::Roots;
use crate::{format, mkdir, mkfs};

/// A word before a mount's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Where earlier mounts are is filled in.
    Format,
    /// A filesystem is made in a file, if it is not there.
    Mkfs,
    /// Folders are made, if they are not there.
    Mkdir,
}

impl Step {
    /// The words before a type, and the type behind them. What is no word of ours belongs to the type.
    pub(crate) fn of(kind: &str) -> (Vec<Self>, &str) {
        let mut steps = Vec::new();
        let mut rest = kind;
        while let Some((word, behind)) = rest.split_once('/') {
            let Some(step) = Self::named(word) else { break };
            steps.push(step);
            rest = behind;
        }
        (steps, rest)
    }

    fn named(word: &str) -> Option<Self> {
        [Self::Format, Self::Mkfs, Self::Mkdir].into_iter().find(|step| step.word() == word)
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Mkfs => "mkfs",
            Self::Mkdir => "mkdir",
        }
    }

    /// Does it. Blocking; what it has made stays, as it does when it finds it made.
    pub(crate) fn take(self, mount: Mount, earlier: &[ActiveMount], roots: &Roots) -> Result<Mount> {
        match self {
            Self::Format => format::fill(mount, earlier),
            Self::Mkfs => mkfs::make(mount, roots),
            Self::Mkdir => mkdir::make(mount, roots),
        }
    }
}

/// The options for a step, which begin with `prefix`, and the mount without them.
pub(crate) fn options_for(mut mount: Mount, prefix: &str) -> (Vec<String>, Mount) {
    let own = mount.options.extract_if(.., |option| option.starts_with(prefix));
    let own = own.map(|option| option[prefix.len()..].to_owned()).collect();
    (own, mount)
}

/// An option that cannot be meant.
pub(crate) fn wrong(prefix: &str, option: &str, why: &str) -> Error {
    Error::invalid_argument(format!("mount option {prefix}{option}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_taken_off_from_the_front() {
        assert_eq!(Step::of("format/mkdir/overlay"), (vec![Step::Format, Step::Mkdir], "overlay"));
        assert_eq!(Step::of("mkfs/ext4"), (vec![Step::Mkfs], "ext4"));
        assert_eq!(Step::of("overlay"), (vec![], "overlay"));
        assert_eq!(Step::of("other/format/x"), (vec![], "other/format/x"));
        assert_eq!(Step::of("format/other/x"), (vec![Step::Format], "other/x"));
        assert_eq!(Step::of(""), (vec![], ""));
    }
}
