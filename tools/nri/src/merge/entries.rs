//! Fields with entries: lists in which an entry has a name, and maps. `-name` removes the entry of that name.

use std::collections::{BTreeMap, BTreeSet};

use super::removal;
use crate::owners::{Claim, Conflict, Owners};
use crate::proto::{Field, KeyValue, LinuxDevice, Mount};

/// An entry of a list.
pub(super) trait Named: Clone {
    /// Its name, `-` included when it is to be removed.
    fn name(&self) -> &str;

    /// A request to remove what has this name.
    fn removal(name: &str) -> Self;
}

macro_rules! named {
    ($($kind:ident . $field:ident),*) => {$(
        impl Named for $kind {
            fn name(&self) -> &str {
                &self.$field
            }

            fn removal(name: &str) -> Self {
                Self { $field: format!("-{name}"), ..Self::default() }
            }
        }
    )*};
}

named!(Mount.destination, LinuxDevice.path, KeyValue.key);

/// What one plugin asked of a list.
pub(super) struct Wishes<T> {
    pub(super) set: Vec<T>,
    pub(super) names: BTreeSet<String>,
}

/// Adds a plugin's wishes for a list to those `collected`. The answer's names are those that it sets or removes, by
/// which the caller takes the old entries out of what the next plugin sees.
pub(super) fn list<T: Named>(
    owners: &mut Owners,
    by: Claim<'_>,
    field: Field,
    asked: Vec<T>,
    collected: &mut Vec<T>,
) -> Result<Wishes<T>, Conflict> {
    let (removals, set): (Vec<T>, Vec<T>) =
        asked.into_iter().partition(|entry| removal(entry.name()).is_some());
    let removed: BTreeSet<String> =
        removals.iter().filter_map(|entry| removal(entry.name())).map(str::to_owned).collect();
    collected.retain(|entry| {
        let taken_over = removed.contains(entry.name());
        if taken_over {
            owners.clear_entry(by, field, entry.name());
        }
        !taken_over
    });
    let mut names = removed;
    for name in &names {
        collected.push(T::removal(name));
    }
    for entry in &set {
        owners.claim_entry(by, field, entry.name())?;
        collected.push(entry.clone());
        names.insert(entry.name().to_owned());
    }
    Ok(Wishes { set, names })
}

/// Adds a plugin's wishes for a map to those `collected`, and to the map that the next plugin sees.
pub(super) fn map<V: Clone + Default>(
    owners: &mut Owners,
    by: Claim<'_>,
    field: Field,
    asked: BTreeMap<String, V>,
    collected: &mut BTreeMap<String, V>,
    seen: &mut BTreeMap<String, V>,
) -> Result<(), Conflict> {
    for name in asked.keys().filter_map(|name| removal(name)) {
        if collected.remove(name).is_some() {
            owners.clear_entry(by, field, name);
        }
        seen.remove(name);
        collected.insert(format!("-{name}"), V::default());
    }
    for (name, value) in asked.into_iter().filter(|(name, _)| removal(name).is_none()) {
        owners.claim_entry(by, field, &name)?;
        collected.insert(name.clone(), value.clone());
        seen.insert(name, value);
    }
    Ok(())
}
