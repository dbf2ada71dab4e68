//! What can have happened to a file.

/// One difference; the path is relative, without slashes at its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) path: Vec<u8>,
    pub(crate) what: What,
}

/// What happened at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// It is new, or not as before.
    Written,
    /// It is a new directory in the place of one whose content is gone.
    Replaced,
    /// It is as before, and one of several names of its inode.
    SameLinked,
    /// It is gone.
    Removed,
}

/// `above/name`.
pub(super) fn join(above: &[u8], name: &[u8]) -> Vec<u8> {
    if above.is_empty() {
        return name.to_vec();
    }
    [above, b"/", name].concat()
}
