//! What is there, by id and by name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use berth_types::{Error, Result};

/// Something that a kubelet has made.
pub(crate) trait Item {
    /// What it is called in errors.
    const KIND: &'static str;

    /// Its id: 64 hexadecimal digits.
    fn id(&self) -> &str;

    /// What makes it this one to a kubelet; nothing else may have it at the same time.
    fn name(&self) -> &str;
}

/// All of one kind.
#[derive(Debug)]
pub(crate) struct Table<T>(Mutex<Items<T>>);

#[derive(Debug)]
struct Items<T> {
    by_id: BTreeMap<String, Arc<T>>,
    ids: BTreeMap<String, String>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(Mutex::new(Items { by_id: BTreeMap::new(), ids: BTreeMap::new() }))
    }
}

impl<T: Item> Table<T> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Items<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one with an id, or with the beginning of one that no other begins with.
    pub(crate) fn find(&self, id: &str) -> Result<Arc<T>> {
        let items = self.lock();
        if let Some(item) = items.by_id.get(id) {
            return Ok(item.clone());
        }
        let mut begun = items.by_id.range(id.to_owned()..).take_while(|(whole, _)| whole.starts_with(id));
        match (begun.next(), begun.next()) {
            (Some((_, item)), None) if !id.is_empty() => Ok(item.clone()),
            (Some(_), Some(_)) if !id.is_empty() => {
                Err(Error::invalid_argument(format!("{id:?} is the beginning of several {}s' ids", T::KIND)))
            }
            _ => Err(Error::not_found(format!("{} {id:?} is not there", T::KIND))),
        }
    }

    /// The one with a name.
    pub(crate) fn named(&self, name: &str) -> Option<Arc<T>> {
        let items = self.lock();
        items.ids.get(name).and_then(|id| items.by_id.get(id)).cloned()
    }

    /// All of them, by id.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        self.lock().by_id.values().cloned().collect()
    }

    /// Takes one in. AlreadyExists when something else has its name.
    pub(crate) fn insert(&self, item: Arc<T>) -> Result<()> {
        let mut items = self.lock();
        if let Some(other) = items.ids.get(item.name()) {
            let (kind, name) = (T::KIND, item.name());
            return Err(Error::already_exists(format!(
                "{kind} {name} is there already, with the id {other}: remove it, or make the next attempt"
            )));
        }
        items.ids.insert(item.name().to_owned(), item.id().to_owned());
        items.by_id.insert(item.id().to_owned(), item);
        Ok(())
    }

    /// Forgets one.
    pub(crate) fn remove(&self, item: &T) {
        let mut items = self.lock();
        items.by_id.remove(item.id());
        if items.ids.get(item.name()).is_some_and(|id| id == item.id()) {
            items.ids.remove(item.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Thing(&'static str, &'static str);

    impl Item for Thing {
        const KIND: &'static str = "thing";

        fn id(&self) -> &str {
            self.0
        }

        fn name(&self) -> &str {
            self.1
        }
    }

    #[test]
    fn things_are_found_by_id_by_its_beginning_and_by_name() {
        let table = Table::default();
        for thing in [Thing("ab12", "one"), Thing("ab34", "two"), Thing("ab3", "three")] {
            table.insert(Arc::new(thing)).unwrap();
        }
        assert_eq!(table.find("ab1").unwrap().1, "one");
        assert_eq!(table.find("ab3").unwrap().1, "three");
        assert!(table.find("ab").unwrap_err().message().contains("several"));
        assert!(table.find("").is_err() && table.find("c").is_err());
        assert!(table.insert(Arc::new(Thing("ff", "one"))).unwrap_err().message().contains("ab12"));
        table.remove(&Thing("ab12", "one"));
        assert!(table.named("one").is_none());
        table.insert(Arc::new(Thing("ff", "one"))).unwrap();
        assert_eq!(table.named("one").unwrap().0, "ff");
    }
}
