//! `images`: the images.

use std::collections::BTreeSet;

use berth_workload::{ImageRow, human, parse};
use clap::Args;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::table;

const TABLE: &str = "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const DIGESTS: &str = "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const HEADS: table::Heads<'static> = &[
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("ID", "IMAGE ID"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Platform", "PLATFORM"),
    ("Name", "NAME"),
];

/// Flags of `images`.
#[derive(Debug, Args)]
pub(crate) struct Images {
    /// Show all (there are no hidden ones)
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Show only what passes: reference=, label=, before=, since=, until=, dangling=
    #[arg(short, long)]
    filter: Vec<String>,
    /// A Go template, `table TEMPLATE` or `json`
    #[arg(long)]
    format: Option<String>,
    /// Show everything at full length
    #[arg(long)]
    no_trunc: bool,
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
    /// REPOSITORY[:TAG]
    repository: Option<String>,
}

impl Images {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let all = context.workload.image_rows().await?;
        let mut rows = Vec::new();
        for row in &all {
            if self.named(row) && self.passes(row, &all)? {
                rows.push(row);
            }
        }
        if self.quiet && self.format.is_none() {
            let mut seen = BTreeSet::new();
            for row in rows.iter().filter(|row| seen.insert(row.id().clone())) {
                crate::output::line(&id(row, self.no_trunc))?;
            }
            return Ok(0);
        }
        let documents: Vec<Value> = rows.iter().map(|row| document(row, self.no_trunc)).collect();
        let default = if self.digests { DIGESTS } else { TABLE };
        table::print(&documents, self.format.as_deref(), default, HEADS)?;
        Ok(0)
    }

    fn named(&self, row: &ImageRow) -> bool {
        let Some(wanted) = &self.repository else { return true };
        let full = format!("{}:{}", row.repository, row.tag);
        let whole = row.image.name.as_str();
        row.repository == *wanted || full == *wanted || whole == *wanted || matches_glob(wanted, &full)
    }

    fn passes(&self, row: &ImageRow, all: &[ImageRow]) -> Result<bool, Failure> {
        for text in &self.filter {
            let (key, value) = text.split_once('=').ok_or_else(|| {
                Failure::new(format!("invalid argument \"{text}\" for --filter: expected KEY=VALUE"))
            })?;
            let made = |name: &str| {
                let other = all.iter().find(|other| {
                    other.repository == name
                        || format!("{}:{}", other.repository, other.tag) == name
                        || other.id().hex().starts_with(name)
                });
                other.map(|other| other.created).ok_or_else(|| Failure::new(format!("No such image: {name}")))
            };
            let holds = match key {
                "reference" => {
                    matches_glob(value, &format!("{}:{}", row.repository, row.tag))
                        || matches_glob(value, &row.repository)
                }
                "label" => {
                    let (key, wanted) = value.split_once('=').map_or((value, None), |(k, v)| (k, Some(v)));
                    row.image.labels.get(key).is_some_and(|own| wanted.is_none_or(|wanted| wanted == own))
                }
                "dangling" => (row.tag == "<none>") == (value == "true" || value == "1"),
                "before" => row.created < made(value)?,
                "since" => row.created > made(value)?,
                "until" => row.created < parse::instant(value, std::time::SystemTime::now())?,
                _ => return Err(Failure::new(format!("invalid filter '{text}'"))),
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn id(row: &ImageRow, whole: bool) -> String {
    if whole { row.id().to_string() } else { row.id().short().to_owned() }
}

/// One image as templates see it.
pub(crate) fn document(row: &ImageRow, whole: bool) -> Value {
    json!({
        "Repository": row.repository,
        "Tag": row.tag,
        "ID": id(row, whole),
        "Digest": row.id().as_str(),
        "CreatedSince": human::ago(row.created),
        "CreatedAt": human::created_at(row.created),
        "Size": row.size.map_or_else(|| "N/A".to_owned(), |size| human::size(size, 3)),
        "Platform": row.platform,
        "Name": row.image.name.as_str(),
        "Containers": "N/A",
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
        "VirtualSize": row.size.map_or_else(|| "N/A".to_owned(), |size| human::size(size, 4)),
    })
}

/// `*` is anything but a slash, `?` one character.
fn matches_glob(pattern: &str, text: &str) -> bool {
    fn matches(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => {
                matches(rest, text)
                    || matches!(text, [first, tail @ ..] if *first != b'/' && matches(pattern, tail))
            }
            ([b'?', rest @ ..], [first, tail @ ..]) => *first != b'/' && matches(rest, tail),
            ([a, rest @ ..], [b, tail @ ..]) => a == b && matches(rest, tail),
            _ => false,
        }
    }
    matches(pattern.as_bytes(), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_stop_at_slashes() {
        assert!(matches_glob("busy*:1.?", "busybox:1.2"));
        assert!(!matches_glob("*", "a/b"));
        assert!(matches_glob("*/*", "a/b"));
    }
}
