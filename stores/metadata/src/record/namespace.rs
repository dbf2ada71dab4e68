//! Namespaces.

use berth_types::{Labels, Namespace, Result};

use super::{Record, load, store};
use crate::codec::{Damaged, Decoder, Encoder};
use crate::key::{Kind, key, names};
use crate::ledger::Txn;
use crate::storage::Read;

/// What is stored of a namespace.
#[derive(Debug, Default)]
pub(crate) struct NamespaceRow {
    pub(crate) labels: Labels,
}

impl NamespaceRow {
    pub(crate) fn key(namespace: &str) -> Vec<u8> {
        key(Kind::Namespace, &[namespace])
    }
}

impl Record for NamespaceRow {
    fn write(&self, to: Encoder) -> Encoder {
        to.labels(&self.labels)
    }

    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Ok(Self { labels: from.labels()? })
    }
}

/// Makes the record of a namespace when something is first stored in it. No event tells of it,
/// as with containerd.
pub(crate) fn ensure_namespace(txn: &mut Txn<'_>, namespace: &Namespace) -> Result<()> {
    let key = NamespaceRow::key(namespace.as_str());
    if load::<NamespaceRow>(txn, &key)?.is_none() {
        store(txn, &key, &NamespaceRow::default())?;
    }
    Ok(())
}

/// The names of all namespaces.
pub(crate) fn namespaces(from: &dyn Read) -> Result<Vec<String>> {
    let mut all = Vec::new();
    from.scan(&key(Kind::Namespace, &[]), &mut |key, _| {
        let [name] = names(key)?;
        all.push(name);
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    Ok(all)
}
