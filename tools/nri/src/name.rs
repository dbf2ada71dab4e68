//! What a plugin is called: `NN-name`. The index says when its turn is among the others.

use std::fmt;

/// A plugin's index and name, well-formed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PluginName {
    /// Two digits.
    pub(crate) index: String,
    /// Of letters, digits and `_.+-`.
    pub(crate) base: String,
}

/// Why a name is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum NameError {
    #[error("{0:?} is not the name of a plugin: it has to be two digits, a dash and a name")]
    File(String),
    #[error("{0:?} is not the index of a plugin: it has to be two digits")]
    Index(String),
    #[error("{0:?} is not the name of a plugin: it has to be of letters, digits and _.+-")]
    Base(String),
}

impl PluginName {
    pub(crate) fn new(index: &str, base: &str) -> Result<Self, NameError> {
        if index.len() != 2 || !index.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NameError::Index(index.to_owned()));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte);
        if base.is_empty() || !base.bytes().all(plain) {
            return Err(NameError::Base(base.to_owned()));
        }
        Ok(Self { index: index.to_owned(), base: base.to_owned() })
    }

    /// Reads the name of a plugin's file.
    pub(crate) fn of_file(name: &str) -> Result<Self, NameError> {
        let (index, base) = name.split_once('-').ok_or_else(|| NameError::File(name.to_owned()))?;
        Self::new(index, base)
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.index, self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_an_index_and_a_plugin() {
        let name = PluginName::of_file("07-device-injector").unwrap();
        assert_eq!((name.index.as_str(), name.base.as_str()), ("07", "device-injector"));
        assert_eq!(name.to_string(), "07-device-injector");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in ["logger", "7-logger", "x7-logger", "07-", "07-a/b", "007-logger"] {
            assert!(PluginName::of_file(name).is_err(), "{name}");
        }
    }
}
