//! berthd and a containerd 2.3 beside it: each command of `ctr` goes to both, and what they print has to be the same
//! but for what cannot be: pids, times, the order of labels.

use testkit::image::Image;
use testkit::{Daemon, Invocation, Kind, Outcome, Setup, programs};

/// The two daemons.
#[derive(Debug)]
pub struct Both {
    /// berthd.
    pub berth: Daemon,
    /// containerd 2.3.4.
    pub containerd: Daemon,
}

/// What is compared of texts that go to standard error.
#[derive(Clone, Copy, Debug)]
pub enum Errors {
    /// Every word.
    Text,
    /// The class at the end: `not found`, `invalid argument`.
    Class,
}

impl Both {
    /// Starts both, with containerd's own shim, so that what differs is the daemon.
    pub fn start() -> Option<Self> {
        let containerd = Daemon::start(Kind::Containerd).ok()?;
        containerd.ctr().ok()?;
        let config = programs::containerd("containerd-shim-runc-v2").map(|shim| {
            let shim = shim.display();
            format!("[plugins.'io.berth.runtime.v1.shims'.runtimes]\n'io.containerd.runc.v2' = '{shim}'\n")
        });
        let setup = Setup { config: config.unwrap_or_default(), ..Setup::default() };
        let berth = Daemon::with(Kind::Berth, setup).ok()?;
        Some(Self { berth, containerd })
    }

    /// Runs `ctr` on containerd and on berthd.
    pub fn each(&self, line: &str, input: &str) -> [Outcome; 2] {
        [&self.containerd, &self.berth].map(|daemon| ctr(daemon, line).input(input).outcome())
    }

    /// Demands that a command does the same on both.
    #[track_caller]
    pub fn same(&self, line: &str) {
        self.compare(line, "", Errors::Text);
    }

    /// Demands the same but for the words of an error, whose class has to be the same.
    #[track_caller]
    pub fn same_class(&self, line: &str) {
        self.compare(line, "", Errors::Class);
    }

    /// Demands the same of a command that reads `input`.
    #[track_caller]
    pub fn same_with(&self, line: &str, input: &str) {
        self.compare(line, input, Errors::Text);
    }

    /// Demands the same lines in any order.
    #[track_caller]
    pub fn same_set(&self, line: &str) {
        let [wanted, found] = self.each(line, "").map(|outcome| {
            let mut lines: Vec<_> = outcome.stdout_text().lines().map(words).collect();
            lines.sort();
            lines
        });
        assert_eq!(found, wanted, "`ctr {line}`: berthd on the left, containerd on the right");
    }

    /// Demands the same, as far as `errors` says.
    #[track_caller]
    pub fn compare(&self, line: &str, input: &str, errors: Errors) {
        let [wanted, found] = self.each(line, input);
        let (wanted, found) =
            (Self::essence(&wanted, &self.containerd, errors), Self::essence(&found, &self.berth, errors));
        assert_eq!(found, wanted, "`ctr {line}`: berthd on the left, containerd on the right");
    }

    fn essence(outcome: &Outcome, daemon: &Daemon, errors: Errors) -> (i32, Vec<Vec<String>>, String) {
        let own = |text: &str| text.replace(daemon.tag(), "TAG");
        let lines = own(&outcome.stdout_text()).lines().map(words).collect();
        let complaints = own(&outcome.stderr_text());
        let mut complaints = complaints.lines().filter(|line| !line.contains("DEPRECATION"));
        let complaint = complaints.next_back().unwrap_or_default().to_owned();
        let complaint = match errors {
            Errors::Text => words(&complaint).join(" "),
            Errors::Class => complaint.rsplit(": ").next().unwrap_or_default().to_owned(),
        };
        (outcome.code(), lines, complaint)
    }

    /// Imports an image into both, through content, diff and snapshots.
    pub fn import(&self, image: &Image) {
        for daemon in [&self.containerd, &self.berth] {
            let archive = daemon.scratch().file("image.tar", image.oci_archive());
            ctr(daemon, "images import --local").arg(archive).ok();
            // What only the import held is collected now, and not in between two commands.
            ctr(daemon, "leases create --id collects").ok();
            ctr(daemon, "leases rm --sync collects").ok();
        }
    }

    /// Stops both and demands that nothing is left.
    pub fn finish(self) {
        self.containerd.finish();
        self.berth.finish();
    }
}

/// `ctr` 2.3 with the words of a line.
pub fn ctr(daemon: &Daemon, line: &str) -> Invocation {
    daemon.ctr().expect("it was there at the start").line(line)
}

/// The words of a line: numbers of three digits and more and times stand for themselves, lists of labels are sorted.
fn words(line: &str) -> Vec<String> {
    const AGES: [&str; 8] = ["Less", "than", "a", "second", "seconds", "About", "minute", "minutes"];
    let raw: Vec<&str> = line.split_whitespace().collect();
    let is_age = |at: usize| raw.get(at).is_some_and(|word| AGES.contains(word));
    let kept = raw.iter().enumerate().filter(|(at, word)| {
        let counts_age = word.bytes().all(|byte| byte.is_ascii_digit()) && is_age(at + 1);
        !is_age(*at) && !counts_age
    });
    kept.map(|(_, word)| {
        let digits = word.trim_end_matches(',');
        if digits.len() >= 3 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return "NUMBER".to_owned();
        }
        if is_time(word) {
            return "TIME".to_owned();
        }
        let mut parts: Vec<String> = word.split(',').map(without_time).collect();
        parts.sort();
        parts.join(",")
    })
    .collect()
}

/// `2026-01-02T03:04:05…` within quotes or not.
fn is_time(word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    word.len() >= 19 && word.as_bytes()[10] == b'T' && word[..4].bytes().all(|byte| byte.is_ascii_digit())
}

/// A label whose value is a time.
fn without_time(label: &str) -> String {
    match label.split_once('=') {
        Some((key, value)) if is_time(value) => format!("{key}=TIME"),
        _ => label.to_owned(),
    }
}
