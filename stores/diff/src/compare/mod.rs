//! Taking a layer off two trees.

use berth_core::{CompareRequest, ContentStore};
use berth_types::{Descriptor, Error, Result};

pub(crate) async fn compare(_content: &dyn ContentStore, _request: CompareRequest) -> Result<Descriptor> {
    Err(Error::not_implemented("comparing trees"))
}
