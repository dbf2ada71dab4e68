//! One answer out of many: what plugins ask for, one after the other, each seeing what those before it changed.

mod adjustment;
mod entries;
mod linux;
mod resources;
mod updates;

pub(crate) use adjustment::Creation;
pub(crate) use updates::Updates;

/// Something that a plugin asked for and cannot have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum MergeError {
    #[error(transparent)]
    Conflict(#[from] crate::owners::Conflict),
    #[error(
        "plugin {plugin:?} asked for an update of container {container} while it is being made; it has to ask for an adjustment"
    )]
    Unborn { plugin: String, container: String },
}

/// The name in a request for removal (`-name`).
pub(crate) fn removal(name: &str) -> Option<&str> {
    name.strip_prefix('-')
}

#[cfg(test)]
mod tests;
