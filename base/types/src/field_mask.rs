//! Which fields an update means.

/// The paths of an update, such as `labels`, `labels.foo` or `spec`. Empty means every
/// field that may change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldMask(Vec<String>);

impl FieldMask {
    /// A mask of these paths.
    pub fn new(paths: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(paths.into_iter().map(Into::into).collect())
    }

    /// The mask that means every field.
    pub fn all() -> Self {
        Self::default()
    }

    /// Whether no path was given, which means every field.
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// The paths as they were given.
    pub fn paths(&self) -> &[String] {
        &self.0
    }

    /// Applies the part of this mask under `field.` (as `labels.KEY`) or `field` itself to a map:
    /// a named key takes the new value or goes away; the whole field replaces the map.
    pub fn merge_map(
        &self,
        field: &str,
        current: &mut std::collections::BTreeMap<String, String>,
        new: &std::collections::BTreeMap<String, String>,
    ) {
        if self.is_all() || self.0.iter().any(|path| path == field) {
            current.clone_from(new);
            return;
        }
        for path in &self.0 {
            let Some(key) = path.strip_prefix(field).and_then(|rest| rest.strip_prefix('.')) else {
                continue;
            };
            match new.get(key) {
                Some(value) if !value.is_empty() => current.insert(key.to_owned(), value.clone()),
                _ => current.remove(key),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_named_key_changes_alone() {
        let mut current =
            BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b.c".to_owned(), "2".to_owned())]);
        let new = BTreeMap::from([("a".to_owned(), "9".to_owned())]);
        FieldMask::new(["labels.b.c"]).merge_map("labels", &mut current, &new);
        assert_eq!(current, BTreeMap::from([("a".to_owned(), "1".to_owned())]));
    }

    #[test]
    fn the_whole_field_replaces_the_map() {
        let mut current = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        FieldMask::all().merge_map("labels", &mut current, &BTreeMap::new());
        assert!(current.is_empty());
    }
}
