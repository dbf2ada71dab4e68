//! The services through a client in the same process: berth's own client over the shared suites, and a raw one for
//! what only the wire can say.

#![expect(clippy::unwrap_used, reason = "helpers of tests are part of the tests")]

mod catalog;
mod conformance;
mod content;
mod events;
mod moved;
mod records;
mod requests;
mod sandboxes;
mod served;
mod tasks;
mod transfers;
