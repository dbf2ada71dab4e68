//! Builds the demonstration program that `berth run hello` runs: static, small, nothing but std, so that an image
//! of it needs no other file.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::hash::Hasher;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=hello/main.rs");
    println!("cargo::rerun-if-changed=build.rs");
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
