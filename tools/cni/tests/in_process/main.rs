//! Networks in process beside the reference plugins: every host and every pod is a network namespace of the test.

#![expect(clippy::unwrap_used, reason = "a test")]

mod additions;
mod crashes;
mod lab;
mod oracle;
mod traffic;
