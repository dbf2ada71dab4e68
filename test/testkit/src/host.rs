//! What a test can leave on the machine, found by its tag.

pub mod cgroups;
pub mod mounts;
pub mod processes;
