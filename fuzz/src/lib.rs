//! Parsers against bytes that nobody wrote.
//!
//! A target takes bytes and holds when whatever they are it ends, does not panic, and what it took for good means
//! the same when it is written and read again. Each has a folder of seeds, `corpus/NAME`; [`Mutants`] makes others of
//! them, the same ones from the same number. A short run of each is a test; `cargo run --release -p fuzz -- NAME
//! SECONDS` is a long one. What it finds is put into the corpus, and so is tested from then on.
//!
//! There is no coverage to guide it: that needs a compiler of its own. The seeds and the words of each format stand
//! in for it.

mod layers;
mod mutants;
mod targets;

pub use mutants::Mutants;
pub use targets::{TARGETS, Target};
