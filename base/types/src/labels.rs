//! Labels: the strings that clients hang on records, some of which the garbage collector reads.

use std::collections::BTreeMap;

use crate::{Error, Result};

/// Labels by key.
pub type Labels = BTreeMap<String, String>;

/// Key and value together, as in containerd (`pkg/labels`).
const MAX_BYTES: usize = 4096;

/// Refuses labels whose key and value together pass 4096 bytes, naming the key.
pub fn validate_labels(labels: &Labels) -> Result<()> {
    for (key, value) in labels {
        let bytes = key.len() + value.len();
        if bytes > MAX_BYTES {
            let shown: String = key.chars().take(64).collect();
            return Err(Error::invalid_argument(format!(
                "label key and value length ({bytes} bytes) greater than maximum size ({MAX_BYTES} bytes), key: {shown}"
            )));
        }
    }
    Ok(())
}
