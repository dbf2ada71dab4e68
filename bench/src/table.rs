//! The table of all figures, printed as they come and kept in a page.

use std::path::Path;

use anyhow::{Context, Result};

use crate::machine;
use crate::measure::Samples;

/// Between these lines a page's table is replaced.
const BEGIN: &str = "<!-- figures: written by bench -->";
const END: &str = "<!-- end of figures -->";

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
    /// How many times better berth is: of the medians, and the spread of the rounds' own; nothing without a peer.
    fn ratio(&self) -> String {
        let (more, less) = match self.better {
            Better::Less => (&self.containerd, &self.berth),
            Better::More => (&self.berth, &self.containerd),
        };
        let ratio = more.median() / less.median();
        if ratio.is_nan() { "–".to_owned() } else { more.over(less).text_around(ratio) }
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
            "{:<9} {:<46} berth {:>20}  containerd {:>20} {:<4} × {}",
            row.scenario,
            row.figure,
            row.berth.text(),
            row.containerd.text(),
            row.unit,
            row.ratio()
        );
        self.rows.push(row);
    }

    /// Writes the table as Markdown: between the marks of a page that has them, else as a page of its own. Rows of
    /// scenarios that were not measured now stay there, with their day and machine.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let old = std::fs::read_to_string(path).unwrap_or_default();
        let mut rows: Vec<String> =
            rows_of(&old).filter(|row| !self.measured(row)).map(str::to_owned).collect();
        let measured = format!("{}, {}", jiff::Timestamp::now().strftime("%Y-%m-%d"), machine::description());
        for row in &self.rows {
            let Row { scenario, figure, unit, berth, containerd, .. } = row;
            let (berth, containerd, ratio) = (berth.text(), containerd.text(), row.ratio());
            rows.push(format!(
                "| {scenario} | {figure} | {unit} | {berth} | {containerd} | {ratio} | {measured} |"
            ));
        }
        let mut table = format!(
            "{BEGIN}\n| | figure | unit | berth | containerd 2.3.4, runc | times better | measured |\n\
             |---|---|---|---|---|---|---|\n{}\n",
            rows.join("\n")
        );
        table.push_str(END);
        let page = match (old.find(BEGIN), old.find(END)) {
            (Some(begin), Some(end)) if begin < end => {
                format!("{}{table}{}", &old[..begin], &old[end + END.len()..])
            }
            _ => table + "\n",
        };
        std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Whether a row of a page belongs to a scenario of this table.
    fn measured(&self, row: &str) -> bool {
        self.rows.iter().any(|own| row.starts_with(&format!("| {} |", own.scenario)))
    }
}

/// The rows of figures that a page has.
fn rows_of(page: &str) -> impl Iterator<Item = &str> {
    let table =
        page.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).map_or("", |(table, _)| table);
    table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| |"))
}
