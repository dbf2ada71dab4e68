//! The device program of a v2 cgroup: loaded, attached in place of the one before.

#![expect(unsafe_code, reason = "bpf(2) takes a different struct for every command")]

use std::ffi::c_char;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use berth_oci::runtime::DeviceRule;
use berth_sys::child::bpf;
use rustix::io;

use super::program::{Instruction, compile};
use crate::error::{Doing as _, Result};

const BPF_PROG_LOAD: u32 = 5;
const BPF_PROG_ATTACH: u32 = 8;
const BPF_PROG_DETACH: u32 = 9;
const BPF_PROG_GET_FD_BY_ID: u32 = 13;
const BPF_PROG_QUERY: u32 = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs of ancestors run too; any of them can deny.
const BPF_F_ALLOW_MULTI: u32 = 2;

#[derive(Default)]
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[derive(Default)]
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

#[derive(Default)]
#[repr(C)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
}

#[derive(Default)]
#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    flags: u32,
}

/// Attaches a program for these rules to the cgroup, then takes off the ones that were there.
pub(in super::super) fn attach(own: &Path, rules: &[DeviceRule]) -> Result<()> {
    let doing = || format!("cannot set device rules of cgroup {}", own.display());
    let program = load(&compile(rules)?).doing(doing)?;
    let directory = File::open(own).doing(doing)?;
    let before = attached(&directory).doing(doing)?;
    let mut request = Attach {
        target: directory.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
        ..Attach::default()
    };
    // SAFETY: the struct is what the command takes, as far as it is filled.
    unsafe { bpf(BPF_PROG_ATTACH, &mut request) }.doing(doing)?;
    for old in before {
        let mut request = Attach {
            target: directory.as_raw_fd() as u32,
            program: old.as_raw_fd() as u32,
            kind: BPF_CGROUP_DEVICE,
            ..Attach::default()
        };
        // SAFETY: as above.
        unsafe { bpf(BPF_PROG_DETACH, &mut request) }.doing(doing)?;
    }
    Ok(())
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license: *const c_char = c"Apache-2.0".as_ptr();
    let mut request = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: license as u64,
        ..Load::default()
    };
    request.name[..13].copy_from_slice(b"berth_devices");
    // SAFETY: instructions and license are live, their length and NUL are as the command takes them.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &mut request) }?;
    // SAFETY: a new descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The device programs attached to this very cgroup.
fn attached(directory: &File) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0u32; 64];
    let mut request = Query {
        target: directory.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        ..Query::default()
    };
    // SAFETY: ids is live and its length is passed; the kernel writes there and into the request.
    unsafe { bpf(BPF_PROG_QUERY, &mut request) }?;
    let mut programs = Vec::new();
    for id in ids.into_iter().take_while(|id| *id != 0) {
        let mut request = ById { id, ..ById::default() };
        // SAFETY: the struct is what the command takes.
        let Ok(fd) = (unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut request) }) else { continue };
        // SAFETY: a new descriptor, owned by nobody else.
        programs.push(unsafe { OwnedFd::from_raw_fd(fd as i32) });
    }
    Ok(programs)
}
