//! Errors and warnings: on standard error, and in the file that the caller reads them from.

use std::fs::File;
use std::io::Write as _;

use super::args::Globals;

pub(super) struct Log {
    file: Option<File>,
    json: bool,
}

impl Log {
    /// A log that cannot be opened is done without: what is logged is told on standard error as well.
    pub(super) fn open(globals: &Globals) -> Self {
        let open = |path| File::options().create(true).append(true).open(path);
        let file = globals.log.as_ref().and_then(|path| match open(path) {
            Ok(file) => Some(file),
            Err(error) => {
                eprintln!("cannot open log {}: {error}", path.display());
                None
            }
        });
        Self { file, json: globals.log_format == "json" }
    }

    pub(super) fn error(&self, text: &str) {
        self.append("error", text);
        eprintln!("{text}");
    }

    pub(super) fn warnings(&self, all: &[String]) {
        for text in all {
            self.append("warning", text);
            if self.file.is_none() {
                eprintln!("warning: {text}");
            }
        }
    }

    fn append(&self, level: &str, text: &str) {
        let Some(mut file) = self.file.as_ref() else { return };
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let line = if self.json {
            serde_json::json!({ "level": level, "msg": text, "time": time }).to_string()
        } else {
            format!("time={time:?} level={level} msg={text:?}")
        };
        // One write, so that lines of several writers do not mix. A full disk must not fail the command.
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}
