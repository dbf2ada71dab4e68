//! `fuzz NAME SECONDS [NUMBER]`: a long run of one target. An input for which it does not hold is put into its corpus.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fuzz::{Mutants, TARGETS};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let names = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    let name = words.first().with_context(|| format!("which one? {}", names()))?;
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.with_context(|| format!("{name} is none of {}", names()))?;
    let seconds = words.get(1).map_or(Ok(60), |word| word.parse()).context("how many seconds?")?;
    let number = words.get(2).map_or(Ok(1), |word| word.parse()).context("which number?")?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut seeds = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        seeds.push(std::fs::read(entry?.path())?);
    }
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut count = 0_u64;
    for input in Mutants::new(&seeds, target.words, number) {
        if Instant::now() > until {
            break;
        }
        count += 1;
        if std::panic::catch_unwind(|| (target.run)(&input)).is_err() {
            let found = folder.join(format!("found-{number}-{count}"));
            std::fs::write(&found, &input).with_context(|| format!("cannot write {}", found.display()))?;
            anyhow::bail!("{name} does not hold for {}", found.display());
        }
    }
    println!("{name} holds for {count} inputs");
    Ok(())
}
