//! How a process ended, as the error stream tells it: a `metav1.Status` since version 4, text before.

use berth_types::{Error, Result};
use serde::Serialize;

use crate::negotiate::Version;

/// What became of a process.
#[derive(Debug)]
pub(crate) enum Outcome {
    Exit(i32),
    Failed(String),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    metadata: Empty,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Details<'a> {
    causes: [Cause<'a>; 1],
}

#[derive(Serialize)]
struct Cause<'a> {
    reason: &'a str,
    message: String,
}

impl Outcome {
    /// Of a command.
    pub(crate) fn of_exec(result: Result<i32>) -> Self {
        match result {
            Ok(code) => Self::Exit(code),
            Err(error) => Self::failed("error executing command in container", &error),
        }
    }

    /// Of an attachment, which has no exit code.
    pub(crate) fn of_attach(result: Result<()>) -> Self {
        match result {
            Ok(()) => Self::Exit(0),
            Err(error) => Self::failed("error attaching to container", &error),
        }
    }

    fn failed(what: &str, error: &Error) -> Self {
        Self::Failed(format!("Internal error occurred: {what}: {}", error.chain()))
    }

    /// What is sent; may be nothing.
    pub(crate) fn text(&self, version: Version) -> String {
        let message = match self {
            Self::Exit(0) => None,
            Self::Exit(code) => {
                Some(format!("command terminated with non-zero exit code: exit status {code}"))
            }
            Self::Failed(message) => Some(message.clone()),
        };
        if !version.has_status() {
            return message.unwrap_or_default();
        }
        let (reason, details, code) = match self {
            Self::Exit(0) => (None, None, None),
            Self::Exit(code) => {
                let cause = Cause { reason: "ExitCode", message: code.to_string() };
                (Some("NonZeroExitCode"), Some(Details { causes: [cause] }), None)
            }
            Self::Failed(_) => (Some("InternalError"), None, Some(500)),
        };
        let status = Status {
            metadata: Empty {},
            status: if message.is_some() { "Failure" } else { "Success" },
            message: message.as_deref(),
            reason,
            details,
            code,
        };
        serde_json::to_string(&status).expect("text and numbers are JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_what_a_client_reads_its_exit_code_from() {
        assert_eq!(Outcome::Exit(0).text(Version::V4), r#"{"metadata":{},"status":"Success"}"#);
        assert_eq!(
            Outcome::Exit(3).text(Version::V5),
            concat!(
                r#"{"metadata":{},"status":"Failure","#,
                r#""message":"command terminated with non-zero exit code: exit status 3","#,
                r#""reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#
            )
        );
        let failed = Outcome::of_exec(Err(Error::not_found("no container c")));
        assert!(failed.text(Version::V4).contains(r#""reason":"InternalError","code":500"#));
    }

    #[test]
    fn before_version_4_there_is_text_or_nothing() {
        assert_eq!(Outcome::Exit(0).text(Version::V3), "");
        assert_eq!(
            Outcome::of_attach(Err(Error::not_found("no container c"))).text(Version::V1),
            "Internal error occurred: error attaching to container: no container c"
        );
    }
}
