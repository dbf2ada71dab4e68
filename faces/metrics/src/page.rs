//! A page of figures in Prometheus' text format 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What the `Content-Type` of a page is.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a figure does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up, until the daemon starts again.
    Counter,
    /// How often something took how long: counters that [`Page::add_histogram`] adds together.
    Histogram,
}

/// How often something was measured, and how much it was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Upper bounds, rising, each with how many measurements were not above it and above the one before.
    pub buckets: Vec<(f64, u64)>,
    /// How many were above the last bound.
    pub above: u64,
    /// All measurements together.
    pub sum: f64,
}

/// Labels of one figure, in the order in which they are written.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// Families of figures, each with its lines, by name.
#[derive(Debug, Default)]
pub struct Page {
    families: BTreeMap<String, Family>,
}

#[derive(Debug)]
struct Family {
    kind: Kind,
    help: &'static str,
    lines: String,
}

impl Page {
    /// Adds one figure. The first one of a name says what the name means.
    pub fn add(&mut self, name: &str, kind: Kind, help: &'static str, labels: Labels<'_>, value: f64) {
        self.family(name, kind, help).line(name, labels, value);
    }

    /// Adds the counters of a histogram: `NAME_bucket` with the label `le`, `NAME_sum` and `NAME_count`.
    pub fn add_histogram(&mut self, name: &str, help: &'static str, labels: Labels<'_>, of: &Histogram) {
        let family = self.family(name, Kind::Histogram, help);
        let mut count = 0;
        let bounds = of.buckets.iter().map(|(bound, more)| (bound.to_string(), *more));
        for (bound, more) in bounds.chain([("+Inf".to_owned(), of.above)]) {
            count += more;
            let labels = [labels, &[("le", &bound)]].concat();
            family.line(&format!("{name}_bucket"), &labels, count as f64);
        }
        family.line(&format!("{name}_sum"), labels, of.sum);
        family.line(&format!("{name}_count"), labels, count as f64);
    }

    fn family(&mut self, name: &str, kind: Kind, help: &'static str) -> &mut Family {
        let new = || Family { kind, help, lines: String::new() };
        self.families.entry(name.to_owned()).or_insert_with(new)
    }

    /// The text.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        for (name, Family { kind, help, lines }) in &self.families {
            let kind = match kind {
                Kind::Gauge => "gauge",
                Kind::Counter => "counter",
                Kind::Histogram => "histogram",
            };
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            text.push_str(lines);
        }
        text
    }
}

impl Family {
    fn line(&mut self, name: &str, labels: Labels<'_>, value: f64) {
        let lines = &mut self.lines;
        lines.push_str(name);
        if !labels.is_empty() {
            for (index, (label, text)) in labels.iter().enumerate() {
                lines.push(if index == 0 { '{' } else { ',' });
                lines.push_str(label);
                lines.push_str("=\"");
                escape(text, lines);
                lines.push('"');
            }
            lines.push('}');
        }
        // Writing to a string cannot fail.
        let _ = writeln!(lines, " {value}");
    }
}

/// A label's text: the three characters that would end it are escaped.
fn escape(text: &str, into: &mut String) {
    for character in text.chars() {
        match character {
            '\\' => into.push_str("\\\\"),
            '"' => into.push_str("\\\""),
            '\n' => into.push_str("\\n"),
            other => into.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_stands_together_whatever_the_order_of_its_figures() {
        let mut page = Page::default();
        page.add("b", Kind::Gauge, "the second", &[("id", "1")], 1.0);
        page.add("a_total", Kind::Counter, "the first", &[], 2.5);
        page.add("b", Kind::Gauge, "the second", &[("id", "2")], 3e18);
        let expected = "# HELP a_total the first\n# TYPE a_total counter\na_total 2.5\n\
             # HELP b the second\n# TYPE b gauge\nb{id=\"1\"} 1\nb{id=\"2\"} 3000000000000000000\n";
        assert_eq!(page.render(), expected);
    }

    #[test]
    fn a_histogram_counts_up_to_each_bound() {
        let mut page = Page::default();
        let waits = Histogram { buckets: vec![(0.5, 2), (2.0, 1)], above: 4, sum: 30.25 };
        page.add_histogram("wait_seconds", "the wait", &[("of", "a")], &waits);
        let expected = "# HELP wait_seconds the wait\n# TYPE wait_seconds histogram\n\
             wait_seconds_bucket{of=\"a\",le=\"0.5\"} 2\nwait_seconds_bucket{of=\"a\",le=\"2\"} 3\n\
             wait_seconds_bucket{of=\"a\",le=\"+Inf\"} 7\nwait_seconds_sum{of=\"a\"} 30.25\n\
             wait_seconds_count{of=\"a\"} 7\n";
        assert_eq!(page.render(), expected);
    }

    #[test]
    fn a_label_cannot_end_its_line() {
        let mut page = Page::default();
        page.add("a", Kind::Gauge, "h", &[("id", "x\"} 1\nb\\")], 0.0);
        assert!(page.render().contains("a{id=\"x\\\"} 1\\nb\\\\\"} 0\n"), "{}", page.render());
    }
}
