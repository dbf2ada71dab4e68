//! What the end-to-end tests share: the larger foreign programs and the command line, set up around a daemon of the
//! test kit.

mod both;
mod cli;
mod crictl;
mod docker;
mod node;
mod pty;

pub use both::{Both, Errors, ctr};
pub use cli::{Cli, IMAGE};
pub use crictl::crictl;
pub use docker::Docker;
pub use node::{Answer, Asked, Client, Node, container, create, give_own_users, pod, run_pod};
pub use pty::Pty;
