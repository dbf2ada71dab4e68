//! Files of variables and labels.

use berth_types::{Error, Result};

/// The lines of an `--env-file`: `NAME=VALUE`, `NAME` alone to take it over, `#` comments.
pub fn env_file(text: &str, file: &str) -> Result<Vec<String>> {
    lines(text, file)
}

/// The lines of a `--label-file`.
pub fn label_file(text: &str, file: &str) -> Result<Vec<String>> {
    lines(text, file)
}

fn lines(text: &str, file: &str) -> Result<Vec<String>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(Error::invalid_argument(format!(
                "{file}: line {}: variable '{name}' contains whitespace or is empty",
                number + 1
            )));
        }
        found.push(line.to_owned());
    }
    Ok(found)
}

/// Gives every `NAME` without a value the one that `own` knows, and drops it if there is none.
pub fn with_inherited(list: Vec<String>, own: impl Fn(&str) -> Option<String>) -> Result<Vec<String>> {
    let mut found = Vec::with_capacity(list.len());
    for entry in list {
        if entry.is_empty() || entry.starts_with('=') {
            return Err(Error::invalid_argument(format!("invalid environment variable: {entry}")));
        }
        if entry.contains('=') {
            found.push(entry);
        } else if let Some(value) = own(&entry) {
            found.push(format!("{entry}={value}"));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_empty_lines_are_passed_over() {
        let text = "\u{feff}# c\n\nA=1\n  B=a b # no comment\nC\n";
        assert_eq!(env_file(text, "f").unwrap(), ["A=1", "B=a b # no comment", "C"]);
        assert!(env_file("A B=1", "f").unwrap_err().to_string().contains("line 1"));
        assert!(env_file("=1", "f").is_err());
    }

    #[test]
    fn a_bare_name_takes_the_callers_value_or_goes() {
        let own = |name: &str| (name == "A").then(|| "1".to_owned());
        let list = ["A", "B", "C=3"].map(str::to_owned).to_vec();
        assert_eq!(with_inherited(list, own).unwrap(), ["A=1", "C=3"]);
        assert!(with_inherited(vec!["=x".to_owned()], own).is_err());
    }
}
