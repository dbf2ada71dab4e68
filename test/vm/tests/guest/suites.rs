//! Test executables of other crates, run in the guest as they are.

use std::time::Duration;

use vm::Guest;

/// The longest that one may take: an emulated machine on a busy one is slow.
const LIMIT: Duration = Duration::from_mins(10);

#[track_caller]
fn passes(name: &str, without: &[&str]) {
    let Ok(guest) = Guest::shared() else { return };
    let skipped: String = without.iter().map(|test| format!(" --skip {test}")).collect();
    let script = format!("/berth/tests/{name} --test-threads 2{skipped} 2>&1");
    let answer = guest.run_within(&script, LIMIT);
    assert_eq!(answer.code, 0, "{answer}");
}

#[test]
fn the_runtime_makes_what_it_promises_inside() {
    // Linux 6.1 refuses to pivot to a mount that was detached before; no program of ours asks for it.
    passes("inside", &["a_detached_mount_can_be_the_root"]);
}

#[test]
fn the_runtime_leads_lives_there_too() {
    passes("life", &[]);
}

#[test]
fn the_runtime_is_as_safe_there() {
    passes("security", &[]);
}

#[test]
fn the_shim_passes_its_tests_there() {
    // Pipes and figures are the same everywhere, and emulated they are half of the time.
    passes("shim", &["stdio::", "figures::"]);
}
