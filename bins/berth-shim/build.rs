//! Links the program at a fixed address.
//!
//! A position-independent static program relocates its constant pointers at each start, which makes some 80 KiB of
//! pages private to every shim of a machine. At a fixed address they stay as they are in the file, shared by all.
//! What is given up is the random place of the code of a program that is memory-safe and talks to root only.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |variable: &str, value: &str| std::env::var(variable).is_ok_and(|found| found == value);
    let is_static = std::env::var("CARGO_CFG_TARGET_FEATURE")
        .is_ok_and(|features| features.split(',').any(|feature| feature == "crt-static"));
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") && is_static {
        println!("cargo::rustc-link-arg-bins=-no-pie");
        println!("cargo::rustc-link-arg-bins=-static");
    }
}
