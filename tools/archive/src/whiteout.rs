//! How a layer says that something below it is gone (OCI image specification, layer.md).

/// What the last name of an entry's path means to the layers below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteout<'n> {
    /// The sibling of this name is removed.
    Name(&'n [u8]),
    /// Everything that lower layers put into this directory is hidden.
    Opaque,
    /// Bookkeeping of AUFS, without a meaning for others.
    Aufs,
    /// `.wh.` followed by nothing, `.` or `..`: no such file can be meant.
    Invalid,
}

const PREFIX: &[u8] = b".wh.";
const META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

impl<'n> Whiteout<'n> {
    /// The file name that hides a whole directory.
    pub const OPAQUE_NAME: &'static [u8] = OPAQUE;

    /// Reads a last name; `None` for an ordinary one.
    pub fn parse(name: &'n [u8]) -> Option<Self> {
        let hidden = name.strip_prefix(PREFIX)?;
        Some(match name {
            OPAQUE => Self::Opaque,
            _ if name.starts_with(META) => Self::Aufs,
            _ if matches!(hidden, b"" | b"." | b"..") => Self::Invalid,
            _ => Self::Name(hidden),
        })
    }

    /// The name of the marker that removes `name`.
    pub fn marker(name: &[u8]) -> Vec<u8> {
        [PREFIX, name].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_told_from_names() {
        assert_eq!(Whiteout::parse(b"file"), None);
        assert_eq!(Whiteout::parse(b".wh"), None);
        assert_eq!(Whiteout::parse(b".wh.file"), Some(Whiteout::Name(b"file")));
        assert_eq!(Whiteout::parse(b".wh..wh..opq"), Some(Whiteout::Opaque));
        assert_eq!(Whiteout::parse(b".wh..wh.plnk"), Some(Whiteout::Aufs));
        for bad in [&b".wh."[..], b".wh..", b".wh..."] {
            assert_eq!(Whiteout::parse(bad), Some(Whiteout::Invalid));
        }
        assert_eq!(Whiteout::parse(&Whiteout::marker(b"x")), Some(Whiteout::Name(b"x")));
    }
}
