//! The log, on standard error, in containerd's two forms: `time=… level=… msg=…` and JSON.

use std::fmt::{self, Write as _};

use anyhow::{Result, bail};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::traces::{TARGET, Traces};

/// Changes the level of a log that has begun.
pub(crate) struct Handle {
    filter: reload::Handle<Targets, tracing_subscriber::Registry>,
    traces: bool,
}

/// How an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

/// Begins the log. An empty level is info, an empty format is text.
///
/// Spans of traces go to `traces` alone; without it they are not made.
pub(crate) fn start(level: &str, format: &str, traces: Option<&Traces>) -> Result<Handle> {
    let form = match format {
        "" | "text" => Form::Text,
        "json" => Form::Json,
        other => bail!("unknown log format {other:?}: text and json are known"),
    };
    let (filter, handle) = reload::Layer::new(targets(parse(level)?, traces.is_some()));
    let layer = tracing_subscriber::fmt::layer().event_format(form).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(filter).with(layer).with(traces.map(Traces::layer)).init();
    Ok(Handle { filter: handle, traces: traces.is_some() })
}

impl Handle {
    /// Sets the level; an unknown one changes nothing.
    pub(crate) fn set(&self, level: &str) -> Result<()> {
        let level = parse(level)?;
        self.filter.reload(targets(level, self.traces))?;
        Ok(())
    }
}

/// containerd's names of levels.
fn parse(level: &str) -> Result<LevelFilter> {
    Ok(match level {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "" | "info" => LevelFilter::INFO,
        "warn" | "warning" => LevelFilter::WARN,
        "error" | "fatal" | "panic" => LevelFilter::ERROR,
        other => {
            bail!("unknown log level {other:?}: trace, debug, info, warn, error, fatal and panic are known")
        }
    })
}

/// The wire's own libraries tell every frame at debug; they get a say from warn on.
fn targets(level: LevelFilter, traces: bool) -> Targets {
    let quiet = level.min(LevelFilter::WARN);
    ["h2", "hyper", "hyper_util", "tonic", "tower"]
        .into_iter()
        .fold(Targets::new().with_default(level), |targets, name| targets.with_target(name, quiet))
        .with_target(TARGET, if traces { LevelFilter::INFO } else { LevelFilter::OFF })
}

impl<S, N> FormatEvent<S, N> for Form
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            tracing::Level::TRACE => "trace",
            tracing::Level::DEBUG => "debug",
            tracing::Level::INFO => "info",
            tracing::Level::WARN => "warning",
            tracing::Level::ERROR => "error",
        };
        let line = line(*self, &now(), level, fields);
        writer.write_str(&line)
    }
}

/// The time with nine digits of fraction, as containerd logs it.
fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

fn line(form: Form, time: &str, level: &str, fields: Fields) -> String {
    let Fields { message, others } = fields;
    match form {
        Form::Text => {
            let mut line = format!("time={time:?} level={level} msg={}", quoted(&message));
            for (name, value) in others {
                // Writing to a String cannot fail.
                let _ = write!(line, " {name}={}", quoted(&value));
            }
            line.push('\n');
            line
        }
        Form::Json => {
            let mut object = serde_json::Map::new();
            for (name, value) in others {
                object.insert(name.to_owned(), value.into());
            }
            object.insert("level".to_owned(), level.into());
            object.insert("msg".to_owned(), message.into());
            object.insert("time".to_owned(), time.into());
            format!("{}\n", serde_json::Value::Object(object))
        }
    }
}

/// A value as it is if it is one plain word, in quotes otherwise: no value can begin a line of its own.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+:".contains(c);
    if !value.is_empty() && value.chars().all(plain) { value.to_owned() } else { format!("{value:?}") }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
        } else {
            self.others.push((field.name(), value));
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    /// With its causes: a log line is all that there will be.
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut next = value.source();
        while let Some(cause) = next {
            let _ = write!(text, ": {cause}");
            next = cause.source();
        }
        self.add(field, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        Fields { message: "it is so".into(), others: vec![("id", "a-b".into()), ("error", "x\ny=z".into())] }
    }

    #[test]
    fn a_line_of_text_is_containerds() {
        assert_eq!(
            line(Form::Text, "2026-01-02T03:04:05.000000006Z", "info", fields()),
            "time=\"2026-01-02T03:04:05.000000006Z\" level=info msg=\"it is so\" id=a-b error=\"x\\ny=z\"\n"
        );
    }

    #[test]
    fn a_line_of_json_has_the_same_words() {
        let text = line(Form::Json, "t", "warning", fields());
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["msg"], "it is so");
        assert_eq!(value["level"], "warning");
        assert_eq!(value["error"], "x\ny=z");
    }

    #[test]
    fn levels_are_containerds() {
        assert_eq!(parse("").unwrap(), LevelFilter::INFO);
        assert_eq!(parse("panic").unwrap(), LevelFilter::ERROR);
        assert!(parse("loud").unwrap_err().to_string().contains("loud"));
    }
}
