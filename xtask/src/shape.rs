//! The measures of a file: at most 600 lines, and each crate's root opens with what it is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// No file is longer.
const LONGEST: usize = 600;

const FOLDERS: [&str; 10] =
    ["base", "tools", "stores", "engines", "faces", "bins", "test", "bench", "fuzz", "xtask"];

/// Fails with every file that is too long or does not introduce itself.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        gather(&root.join(folder), &mut files)?;
    }
    let mut wrong = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(file).display();
        let lines = text.lines().count();
        if lines > LONGEST {
            wrong.push(format!("{name} has {lines} lines, more than {LONGEST}"));
        }
        let is_root = file.ends_with("src/lib.rs") || file.ends_with("src/main.rs");
        if is_root && !text.starts_with("//!") {
            wrong.push(format!("{name} does not open with `//!`"));
        }
    }
    if !wrong.is_empty() {
        bail!("{} files out of shape:\n  {}", wrong.len(), wrong.join("\n  "));
    }
    eprintln!("shape: {} files, none over {LONGEST} lines", files.len());
    Ok(())
}

fn gather(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            gather(&path, files)?;
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            files.push(path);
        }
    }
    Ok(())
}
