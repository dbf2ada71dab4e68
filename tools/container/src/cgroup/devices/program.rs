//! Device rules as an eBPF program.
//!
//! The kernel runs it at every open and mknod with `struct bpf_cgroup_dev_ctx`: access type (device
//! kind in the lower half, access in the upper), major, minor. It returns 1 to allow. The last rule
//! that matches decides, so the rules are tried from the end; none matching denies.

use berth_oci::runtime::DeviceRule;

use super::{check, is_all};
use crate::error::Result;

/// One eBPF instruction, `struct bpf_insn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    pub code: u8,
    /// Destination register in the lower half, source in the upper.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// Operations of `<linux/bpf_common.h>` and `<linux/bpf.h>`, as far as used.
pub(super) mod operation {
    /// `BPF_LDX | BPF_MEM | BPF_W`.
    pub(in super::super) const LOAD: u8 = 0x61;
    /// `BPF_ALU64 | BPF_MOV | BPF_K`.
    pub(in super::super) const SET: u8 = 0xb7;
    /// `BPF_ALU64 | BPF_MOV | BPF_X`.
    pub(in super::super) const COPY: u8 = 0xbf;
    /// `BPF_ALU | BPF_AND | BPF_K` (32 bits).
    pub(in super::super) const AND: u8 = 0x54;
    /// `BPF_ALU | BPF_RSH | BPF_K` (32 bits).
    pub(in super::super) const SHIFT: u8 = 0x74;
    /// `BPF_JMP32 | BPF_JNE | BPF_K`.
    pub(in super::super) const JUMP_UNEQUAL: u8 = 0x56;
    /// `BPF_JMP32 | BPF_JEQ | BPF_K`.
    pub(in super::super) const JUMP_EQUAL: u8 = 0x16;
    /// `BPF_JMP | BPF_EXIT`.
    pub(in super::super) const EXIT: u8 = 0x95;
}

use operation::{AND, COPY, EXIT, JUMP_EQUAL, JUMP_UNEQUAL, LOAD, SET, SHIFT};

const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

/// Registers: kind, access, major, minor, scratch.
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// Makes the program.
pub(super) fn compile(rules: &[DeviceRule]) -> Result<Vec<Instruction>> {
    let one = |code, destination: u8, source: u8, offset, immediate| Instruction {
        code,
        registers: source << 4 | destination,
        offset,
        immediate,
    };
    let mut program = vec![
        one(LOAD, KIND, 1, 0, 0),
        one(COPY, ACCESS, KIND, 0, 0),
        one(AND, KIND, 0, 0, 0xffff),
        one(SHIFT, ACCESS, 0, 0, 16),
        one(LOAD, MAJOR, 1, 4, 0),
        one(LOAD, MINOR, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        check(rule)?;
        let mut block = conditions(rule);
        block.push(one(SET, 0, 0, 0, rule.allow.into()));
        block.push(one(EXIT, 0, 0, 0, 0));
        let length = block.len();
        for (at, instruction) in block.iter_mut().enumerate() {
            if matches!(instruction.code, JUMP_UNEQUAL | JUMP_EQUAL) {
                instruction.offset = (length - at - 1) as i16;
            }
        }
        let last = is_all(rule) && access_mask(rule) == 7;
        program.extend(block);
        if last {
            // Earlier rules can never be reached, and the verifier refuses what cannot be reached.
            return Ok(program);
        }
    }
    program.push(one(SET, 0, 0, 0, 0));
    program.push(one(EXIT, 0, 0, 0, 0));
    Ok(program)
}

/// `BPF_DEVCG_ACC_…`.
fn access_mask(rule: &DeviceRule) -> i32 {
    let bit = |c| match c {
        'm' => 1,
        'r' => 2,
        'w' => 4,
        _ => 0,
    };
    if rule.access.is_empty() { 7 } else { rule.access.chars().fold(0, |mask, c| mask | bit(c)) }
}

/// Jumps past the rule unless it matches; where to is filled in later.
fn conditions(rule: &DeviceRule) -> Vec<Instruction> {
    let unequal =
        |register, immediate| Instruction { code: JUMP_UNEQUAL, registers: register, offset: 0, immediate };
    let mut all = Vec::new();
    match rule.kind.as_str() {
        "b" => all.push(unequal(KIND, BLOCK)),
        "c" => all.push(unequal(KIND, CHARACTER)),
        _ => {}
    }
    let mask = access_mask(rule);
    if mask != 7 {
        let copy = Instruction { code: COPY, registers: ACCESS << 4 | SCRATCH, offset: 0, immediate: 0 };
        all.push(copy);
        // An allowing rule must cover all of the access; a denying one catches any part of it.
        if rule.allow {
            all.push(Instruction { code: AND, registers: SCRATCH, offset: 0, immediate: !mask & 7 });
            all.push(unequal(SCRATCH, 0));
        } else {
            all.push(Instruction { code: AND, registers: SCRATCH, offset: 0, immediate: mask });
            all.push(Instruction { code: JUMP_EQUAL, registers: SCRATCH, offset: 0, immediate: 0 });
        }
    }
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(number) = number.filter(|n| *n >= 0) {
            all.push(unequal(register, number as i32));
        }
    }
    all
}
