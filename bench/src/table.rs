//! The table of all figures, printed as they come and kept as a page.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::measure::Samples;

/// Everything that was measured.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

struct Row {
    scenario: &'static str,
    figure: String,
    unit: &'static str,
    berth: Samples,
    containerd: Samples,
    better: Better,
}

/// Which way a figure should go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    /// A time, a size.
    Less,
    /// A rate.
    More,
}

impl Row {
    /// How many times better berth is.
    fn ratio(&self) -> f64 {
        match self.better {
            Better::Less => self.containerd.median() / self.berth.median(),
            Better::More => self.berth.median() / self.containerd.median(),
        }
    }
}

impl Table {
    /// Adds a figure and prints it.
    pub(crate) fn add(
        &mut self,
        (scenario, figure, unit): (&'static str, &str, &'static str),
        better: Better,
        [berth, containerd]: [Samples; 2],
    ) {
        let row = Row { scenario, figure: figure.to_owned(), unit, berth, containerd, better };
        println!(
            "{:<10} {:<46} berth {:>24}  containerd {:>24} {:<6} × {:.1}",
            row.scenario,
            row.figure,
            row.berth.text(),
            row.containerd.text(),
            row.unit,
            row.ratio()
        );
        self.rows.push(row);
    }

    /// Writes the table as Markdown.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut text = String::from(
            "| | figure | berth | containerd 2.3.4, runc | unit | times better |\n|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let Row { scenario, figure, unit, berth, containerd, .. } = row;
            let (berth, containerd) = (berth.text(), containerd.text());
            writeln!(
                text,
                "| {scenario} | {figure} | {berth} | {containerd} | {unit} | {:.1} |",
                row.ratio()
            )?;
        }
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}
