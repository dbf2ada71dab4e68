//! The known word that somebody probably meant.

/// The one of `known` that is nearest to `word`.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known.into_iter().min_by_key(|candidate| distance(word, candidate))
}

/// Insertions, deletions, replacements and exchanges of neighbours that turn one word into the other.
pub(super) fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (i, &a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &b) in to.iter().enumerate() {
            let replaced = last[j] + usize::from(a != b);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a == to[j - 1] && from[i - 1] == b {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_near() {
        assert_eq!(distance("adress", "address"), 1);
        assert_eq!(distance("rooot", "root"), 1);
        assert_eq!(distance("satte", "state"), 1);
        assert_eq!(distance("sstat", "state"), 2);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(nearest("adress", ["uid", "gid", "address"]), Some("address"));
        assert_eq!(nearest("x", []), None);
    }
}
