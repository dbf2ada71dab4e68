//! One configuration over another, by containerd's rules for imports.

use toml::{Table, Value};

/// Entries of these are replaced as a whole.
const BY_ENTRY: [&str; 3] = ["timeouts", "proxy_plugins", "stream_processors"];

/// Lays `from` over `to`: a value replaces a value unless it says nothing (an empty text, a zero), lists at the
/// top grow by what they lack, tables are laid over one another.
pub(super) fn merge(to: &mut Table, from: Table) {
    for (key, value) in from {
        match (to.get_mut(&key), value) {
            (Some(Value::Array(present)), Value::Array(more)) => {
                let lacking: Vec<Value> = more.into_iter().filter(|item| !present.contains(item)).collect();
                present.extend(lacking);
            }
            (Some(Value::Table(present)), Value::Table(more)) if BY_ENTRY.contains(&key.as_str()) => {
                present.extend(more);
            }
            (Some(Value::Table(present)), Value::Table(more)) => overlay(present, more),
            (Some(_), value) if says_nothing(&value) => {}
            (_, value) => {
                to.insert(key, value);
            }
        }
    }
}

/// Lays one table over another, at every depth; anything but a table replaces what was there.
pub(super) fn overlay(to: &mut Table, from: Table) {
    for (key, value) in from {
        match (to.get_mut(&key), value) {
            (Some(Value::Table(present)), Value::Table(more)) => overlay(present, more),
            (_, value) => {
                to.insert(key, value);
            }
        }
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Integer(number) => *number == 0,
        _ => false,
    }
}
