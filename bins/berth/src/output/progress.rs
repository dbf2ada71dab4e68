//! Bars for what takes time, on a terminal only.

use std::collections::HashMap;
use std::fmt::Write;
use std::io::{IsTerminal, Read};
use std::sync::Arc;
use std::time::Duration;

use berth_transfer::{Object, Progress, Reporter, State};
use indicatif::{
    HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

/// The bar itself takes what a terminal of 80 columns has left.
const BAR: &str = "{prefix:12} {msg:12} [{wide_bar}] {bytes}/{total_bytes} {binary_bytes_per_sec}{left}";
const FLOW: &str = "{prefix:12} {msg:12} {bytes:>10} {binary_bytes_per_sec}";
const PLAIN: &str = "{prefix:12} {msg}";
/// How often bars are drawn anew when nothing is heard: a rate falls also while nothing comes.
const TICK: Duration = Duration::from_millis(200);

/// A bar for each object of an operation.
pub(crate) struct Bars {
    reporter: Reporter,
    shown: Option<(MultiProgress, JoinHandle<()>)>,
}

impl Bars {
    /// Shows bars on standard error if that is a terminal and nobody wants quiet. Inside the runtime.
    pub(crate) fn new(quiet: bool) -> Self {
        if quiet || !std::io::stderr().is_terminal() {
            return Self { reporter: Reporter::none(), shown: None };
        }
        let (sender, receiver) = unbounded_channel();
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(20));
        let drawing = tokio::spawn(draw(all.clone(), receiver));
        Self { reporter: Reporter::to(sender), shown: Some((all, drawing)) }
    }

    /// Where an operation reports to.
    pub(crate) fn reporter(&self) -> Reporter {
        self.reporter.clone()
    }

    /// Takes the bars away.
    pub(crate) fn finish(self) {
        if let Some((all, drawing)) = self.shown {
            drawing.abort();
            let _ = all.clear();
        }
    }
}

/// A spinner while something is under way of which nothing is known but that.
pub(crate) fn spinner(text: &str) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let spinner = ProgressBar::new_spinner().with_message(text.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(100));
    Some(spinner)
}

/// Reads `input` with a bar that says how far it is, how fast, and where its length is known how long it will take.
pub(crate) fn reading<R: Read>(input: R, word: &str, name: &str, length: Option<u64>) -> Reading<R> {
    let bar = std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr_with_hz(20));
        bar.set_style(style(if length.is_some() { BAR } else { FLOW }));
        bar.set_prefix(beginning(name));
        bar.set_message(word.to_owned());
        bar.enable_steady_tick(TICK);
        bar
    });
    Reading { input, bar }
}

/// An input whose reading is shown. The bar goes when it is dropped.
pub(crate) struct Reading<R> {
    input: R,
    bar: Option<ProgressBar>,
}

impl<R: Read> Read for Reading<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.input.read(into)?;
        if let Some(bar) = &self.bar {
            bar.inc(count as u64);
        }
        Ok(count)
    }
}

impl<R> Drop for Reading<R> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ").with_key("left", left)
}

/// The time that the rest will take; nothing as long as there is no rate to tell it by.
fn left(state: &ProgressState, line: &mut dyn Write) {
    if state.per_sec() > 0.0 && state.len().is_some_and(|length| length > state.pos()) {
        // A line that cannot be written to is one that nobody sees.
        let _ = write!(line, ", {:#} left", HumanDuration(state.eta()));
    }
}

async fn draw(all: MultiProgress, mut heard: UnboundedReceiver<Progress>) {
    let mut bars: HashMap<Arc<str>, ProgressBar> = HashMap::new();
    let mut clock = tokio::time::interval(TICK);
    loop {
        let step = tokio::select! {
            step = heard.recv() => step,
            _ = clock.tick() => {
                bars.values().for_each(ProgressBar::tick);
                continue;
            }
        };
        let Some(step) = step else { return };
        let bar = bars.entry(Arc::clone(&step.name)).or_insert_with(|| {
            let bar = all.add(ProgressBar::new(step.total));
            bar.set_prefix(short(&step));
            bar
        });
        let (word, template) = match step.state {
            State::Waiting => ("waiting", PLAIN),
            State::Transferring if step.total > 0 => ("transferring", BAR),
            State::Transferring => ("transferring", FLOW),
            State::Exists => ("exists", PLAIN),
            State::Complete => ("done", PLAIN),
            State::Unpacking => ("unpacking", PLAIN),
            State::Unpacked => ("unpacked", PLAIN),
        };
        bar.set_style(style(template));
        bar.set_message(word);
        bar.set_length(step.total);
        bar.set_position(step.offset);
    }
}

/// What stands before a bar: a digest's beginning, or the end of a name.
fn short(step: &Progress) -> String {
    let name = step.name.split_once(':').map_or(&*step.name, |(_, hex)| hex);
    match step.object {
        Object::Reference | Object::File => beginning(&step.name),
        _ => name.chars().take(12).collect(),
    }
}

/// The beginning of a path's last part.
fn beginning(name: &str) -> String {
    name.rsplit('/').next().unwrap_or(name).chars().take(12).collect()
}
