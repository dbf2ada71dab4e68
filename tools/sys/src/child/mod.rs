//! A child made by clone3(2), and the system calls that it may make before it runs its program.
//!
//! A process with threads can only be forked safely when the child touches nothing that another
//! thread may have held at that moment: no allocator, no locks, no standard I/O. So everything here
//! works on memory that the caller prepared, calls the kernel directly, and reports bare numbers.
//! rustix' functions are as harmless when they are given `&CStr`: they allocate only to convert paths.
//!
//! Called by berth-container. Sources: clone(2), signal-safety(7), seccomp(2), capabilities(7).

#![expect(unsafe_code, reason = "bare system calls")]

mod calls;
mod clone;

pub use calls::*;
pub use clone::{Born, CloneRequest, clone_child, exit};
