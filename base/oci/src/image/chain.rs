//! Chain ids: the names of a layer together with all beneath it (image-spec, `config.md`).

use berth_types::Digest;
use sha2::{Digest as _, Sha256};

/// The chain id of every prefix of a list of diff ids: as many as there are diff ids.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(parent) => {
                let mut hash = Sha256::new();
                hash.update(parent.as_str());
                hash.update(" ");
                hash.update(diff_id.as_str());
                Digest::sha256(hash.finalize().into())
            }
        };
        chain.push(next);
    }
    chain
}

/// The chain id of the whole list, none for an image without layers.
pub fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    chain_ids(diff_ids).pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_layer_is_its_own_chain_and_the_next_hashes_both() {
        let a: Digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        let b: Digest = format!("sha256:{}", "b".repeat(64)).parse().unwrap();
        let chain = chain_ids(&[a.clone(), b.clone()]);
        assert_eq!(chain[0], a);
        let expected = Digest::sha256(Sha256::digest(format!("{a} {b}")).into());
        assert_eq!(chain[1], expected);
        assert_eq!(chain_id(&[]), None);
    }
}
