//! Builds the demonstration program that `berth run hello` runs: static, small, nothing but std, so that an image
//! of it needs no other file; and links the program at a fixed address.
//!
//! A position-independent static program relocates its constant pointers at each start: half a megabyte of pages that
//! are read, written and thrown away by every command, which is a third of the time that a small one takes. As with
//! the shim, what is given up is the random place of the code of a memory-safe program.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::hash::Hasher;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=hello/main.rs");
    println!("cargo::rerun-if-changed=build.rs");
    link_at_a_fixed_address();
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let program = PathBuf::from(variable("OUT_DIR")).join("hello");
    let status = Command::new(variable("RUSTC"))
        .args(["--edition", "2024", "--crate-name", "hello", "--crate-type", "bin"])
        .args(["--target", &variable("TARGET")])
        .args(["-C", "opt-level=s", "-C", "panic=abort", "-C", "lto=fat", "-C", "strip=symbols"])
        .args(["-C", "target-feature=+crt-static", "-C", "codegen-units=1"])
        .arg("-o")
        .arg(&program)
        .arg("hello/main.rs")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status()
        .expect("rustc can be run");
    assert!(status.success(), "the demonstration program does not build");
    let mut hash = DefaultHasher::new();
    hash.write(&std::fs::read(&program).expect("rustc wrote it"));
    println!("cargo::rustc-env=BERTH_HELLO={}", program.display());
    println!("cargo::rustc-env=BERTH_HELLO_HASH={:016x}", hash.finish());
}

fn link_at_a_fixed_address() {
    let is = |variable: &str, value: &str| env::var(variable).is_ok_and(|found| found == value);
    let is_static = env::var("CARGO_CFG_TARGET_FEATURE")
        .is_ok_and(|features| features.split(',').any(|feature| feature == "crt-static"));
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") && is_static {
        println!("cargo::rustc-link-arg-bins=-no-pie");
        println!("cargo::rustc-link-arg-bins=-static");
    }
}
