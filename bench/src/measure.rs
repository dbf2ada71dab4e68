//! Samples of one figure, and what is said of them.

use std::time::{Duration, Instant};

/// Values of one figure on one subject, in the figure's unit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// Adds one.
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Adds a time, in milliseconds.
    pub(crate) fn push_time(&mut self, time: Duration) {
        self.push(time.as_secs_f64() * 1e3);
    }

    /// The value below which `part` of the samples are; not a number without samples.
    fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = (sorted.len().saturating_sub(1)) as f64 * part;
        sorted.get(at.round() as usize).copied().unwrap_or(f64::NAN)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The middle one.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// `MEDIAN (P10–P90)`; a single sample stands alone.
    pub(crate) fn text(&self) -> String {
        if self.0.is_empty() { "–".to_owned() } else { self.text_around(self.median()) }
    }

    /// The same around another middle.
    pub(crate) fn text_around(&self, middle: f64) -> String {
        let (low, high) = (self.quantile(0.1), self.quantile(0.9));
        // As many digits as say something.
        let digits = usize::from(middle < 1000.0);
        if self.0.len() < 2 {
            return format!("{middle:.digits$}");
        }
        format!("{middle:.digits$} ({low:.digits$}–{high:.digits$})")
    }

    /// The quotient of each with the other's of the same round.
    pub(crate) fn over(&self, others: &Self) -> Self {
        Self(self.0.iter().zip(&others.0).map(|(one, other)| one / other).collect())
    }
}

/// How long `step` takes.
pub(crate) fn time<T>(step: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let value = step();
    (began.elapsed(), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_stands_in_the_middle_and_its_spread_around_it() {
        let mut samples = Samples::default();
        (0..=10).rev().for_each(|value| samples.push(f64::from(value)));
        assert_eq!(samples.text(), "5.0 (1.0–9.0)");
    }
}
