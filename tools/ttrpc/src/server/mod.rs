//! The server's side without a runtime: a connection that a poll loop drives, and answers from any thread.
//!
//! ```text
//!   poll loop ── readable() ──► Call { request, Responder } ──► handler, now or later, on any thread
//!       ▲                                                              │ send()
//!       └── flush() when the socket takes bytes again ◄── Outbox ◄─────┘ writes what the socket takes at once
//! ```
//! The loop registers the socket once, edge-triggered, for both directions: an answer that another thread could not
//! write whole continues with the next edge, so nobody has to wake the loop.

mod connection;
mod intake;
mod outbox;

pub use connection::{Call, Connection, Gone};
pub use intake::{Incoming, Intake};
pub use outbox::Responder;
