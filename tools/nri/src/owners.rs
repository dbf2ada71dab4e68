//! Who asked for what: of two plugins that set the same thing, the second is refused.
//!
//! A plugin may take over what another one set by removing it first, in the same answer; the thing then belongs to
//! it, and a third plugin's wish is refused in its name.

use crate::proto::{Field, OwningPlugins};

/// The owner of a thing that a plugin removed: `-NN-name`.
const CLEARED: char = '-';

/// The ledger of one request, as validators are shown it.
#[derive(Debug, Default)]
pub(crate) struct Owners(OwningPlugins);

/// Two plugins want the same thing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("plugins {second:?} and {first:?} both tried to set {what} of container {container}")]
pub(crate) struct Conflict {
    pub(crate) container: String,
    pub(crate) first: String,
    pub(crate) second: String,
    pub(crate) what: String,
}

/// What a plugin wants to set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) container: &'a str,
    pub(crate) plugin: &'a str,
}

impl Owners {
    /// Notes that the plugin sets the field, or refuses it.
    pub(crate) fn claim(&mut self, by: Claim<'_>, field: Field) -> Result<(), Conflict> {
        let fields = self.0.owners.entry(by.container.to_owned()).or_default();
        let owner = fields.simple.get(&(field as i32));
        free(by, owner, || field.as_str_name().to_owned())?;
        fields.simple.insert(field as i32, by.plugin.to_owned());
        Ok(())
    }

    /// The same for one entry of a field that has many, such as a mount by its destination.
    pub(crate) fn claim_entry(&mut self, by: Claim<'_>, field: Field, key: &str) -> Result<(), Conflict> {
        let fields = self.0.owners.entry(by.container.to_owned()).or_default();
        let entries = &mut fields.compound.entry(field as i32).or_default().owners;
        free(by, entries.get(key), || format!("{} {key}", field.as_str_name()))?;
        entries.insert(key.to_owned(), by.plugin.to_owned());
        Ok(())
    }

    /// Notes that the plugin removed the field, which it alone may set now.
    pub(crate) fn clear(&mut self, by: Claim<'_>, field: Field) {
        let fields = self.0.owners.entry(by.container.to_owned()).or_default();
        fields.simple.insert(field as i32, format!("{CLEARED}{}", by.plugin));
    }

    /// The same for one entry.
    pub(crate) fn clear_entry(&mut self, by: Claim<'_>, field: Field, key: &str) {
        let fields = self.0.owners.entry(by.container.to_owned()).or_default();
        let entries = &mut fields.compound.entry(field as i32).or_default().owners;
        entries.insert(key.to_owned(), format!("{CLEARED}{}", by.plugin));
    }

    /// Notes a plugin beside those that set the field already: hooks add up.
    pub(crate) fn share(&mut self, by: Claim<'_>, field: Field) {
        let fields = self.0.owners.entry(by.container.to_owned()).or_default();
        let owners = fields.simple.entry(field as i32).or_default();
        if !owners.is_empty() {
            owners.push(',');
        }
        owners.push_str(by.plugin);
    }

    /// The ledger as a message.
    pub(crate) fn into_message(self) -> OwningPlugins {
        self.0
    }
}

/// Whether what `owner` has may be set by this plugin.
fn free(by: Claim<'_>, owner: Option<&String>, what: impl Fn() -> String) -> Result<(), Conflict> {
    let first = match owner {
        None => return Ok(()),
        Some(owner) => match owner.strip_prefix(CLEARED) {
            Some(clearer) if clearer == by.plugin => return Ok(()),
            Some(clearer) => clearer,
            None => owner,
        },
    };
    Err(Conflict {
        container: by.container.to_owned(),
        first: first.to_owned(),
        second: by.plugin.to_owned(),
        what: what(),
    })
}
