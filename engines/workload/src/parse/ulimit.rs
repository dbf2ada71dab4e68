//! Resource limits of a process.

use berth_types::{Error, Result};
use serde::{Deserialize, Serialize};

/// A limit of setrlimit(2), as Docker keeps it; -1 is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ulimit {
    /// The name in lower case without `RLIMIT_`.
    pub name: String,
    /// What may not be passed.
    pub hard: i64,
    /// What holds now.
    pub soft: i64,
}

const NAMES: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `NAME=SOFT[:HARD]`; the hard limit is the soft one unless given.
pub fn ulimit(text: &str) -> Result<Ulimit> {
    let wrong = |why: &str| {
        Error::invalid_argument(format!("invalid ulimit argument: {text} ({why}, like nofile=1024:2048)"))
    };
    let (name, values) = text.split_once('=').ok_or_else(|| wrong("no '='"))?;
    if !NAMES.contains(&name) {
        return Err(wrong(&format!("{name} is none of {}", NAMES.join(", "))));
    }
    let number = |value: &str| match value {
        "unlimited" => Ok(-1),
        value => value.parse::<i64>().ok().filter(|limit| *limit >= -1).ok_or_else(|| wrong("no number")),
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(values)?, number(values)?),
    };
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(wrong("the soft limit is above the hard one"));
    }
    Ok(Ulimit { name: name.to_owned(), hard, soft })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulimits_have_one_or_two_values() {
        assert_eq!(
            ulimit("nofile=1024:2048").unwrap(),
            Ulimit { name: "nofile".into(), hard: 2048, soft: 1024 }
        );
        assert_eq!(ulimit("core=-1").unwrap().hard, -1);
        assert_eq!(ulimit("core=unlimited").unwrap().soft, -1);
        for bad in ["nofile", "nofile=", "files=1", "nofile=2:1", "nofile=a", "nofile=-1:5", "nofile=-2"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }
}
