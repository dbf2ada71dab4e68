//! Bars for what takes time, on a terminal only.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use berth_transfer::{Object, Progress, Reporter, State};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

const BAR: &str = "{prefix:14} {msg:14} [{bar:30}] {bytes:>10}/{total_bytes:10} {binary_bytes_per_sec}";
const FLOW: &str = "{prefix:14} {msg:14} {bytes:>10} {binary_bytes_per_sec}";
const PLAIN: &str = "{prefix:14} {msg}";

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

async fn draw(all: MultiProgress, mut heard: UnboundedReceiver<Progress>) {
    let mut bars: HashMap<Arc<str>, ProgressBar> = HashMap::new();
    while let Some(step) = heard.recv().await {
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
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(word);
        bar.set_length(step.total);
        bar.set_position(step.offset);
    }
}

/// What stands before a bar: a digest's beginning, or the end of a name.
fn short(step: &Progress) -> String {
    let name = step.name.split_once(':').map_or(&*step.name, |(_, hex)| hex);
    match step.object {
        Object::Reference | Object::File => {
            let name = step.name.rsplit('/').next().unwrap_or(&step.name);
            name.chars().take(14).collect()
        }
        _ => name.chars().take(12).collect(),
    }
}
