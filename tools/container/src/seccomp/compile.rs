//! Sections into instructions.
//!
//! ```text
//!   load architecture
//!   x86_64? -> load number; x32 bit? -> x32's tree (or kill), else x86_64's tree
//!   x86?    -> load number -> its tree
//!   else    -> kill
//! ```
//!
//! A tree is a comparison of the number with the first of the upper half of its ranges, the lower half
//! behind it, then the upper half. Jumps reach 255 instructions; farther ones take a detour.

use berth_sys::child::BpfInstruction;

use super::names::Architecture;
use super::rules::{Action, Condition, ERRNO, KILL_THREAD, Operator, Section, Treatment};

/// Operations of `<linux/bpf_common.h>`, as far as used.
pub(super) mod operation {
    /// Loads a word of `struct seccomp_data`.
    pub(in super::super) const LOAD: u16 = 0x20;
    /// Goes on `k` instructions farther.
    pub(in super::super) const JUMP: u16 = 0x05;
    /// Jumps when equal.
    pub(in super::super) const EQUAL: u16 = 0x15;
    /// Jumps when greater.
    pub(in super::super) const GREATER: u16 = 0x25;
    /// Jumps when greater or equal.
    pub(in super::super) const AT_LEAST: u16 = 0x35;
    /// Masks the accumulator.
    pub(in super::super) const AND: u16 = 0x54;
    /// Ends the program.
    pub(in super::super) const RETURN: u16 = 0x06;
}
use operation::{AND, AT_LEAST, EQUAL, GREATER, JUMP, LOAD, RETURN};

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

type Code = Vec<BpfInstruction>;

fn instruction(code: u16, k: u32) -> BpfInstruction {
    BpfInstruction { code, jt: 0, jf: 0, k }
}

fn end(action: Action) -> BpfInstruction {
    instruction(RETURN, action)
}

/// Makes the program.
pub(super) fn compile(sections: &[Section]) -> Code {
    let mut code = vec![instruction(LOAD, ARCHITECTURE)];
    for section in sections.iter().filter(|s| s.architecture != Architecture::X32) {
        let mut body = vec![instruction(LOAD, NUMBER)];
        if section.architecture == Architecture::X86_64 {
            let x32 = sections.iter().find(|s| s.architecture == Architecture::X32);
            let x32 = x32.map_or_else(|| vec![end(KILL_THREAD)], tree);
            body.extend(branch(AT_LEAST, Architecture::X32_BIT, tree(section), x32));
        } else {
            body.extend(tree(section));
        }
        // Into the body when equal, past it otherwise.
        let audit = section.architecture.audit();
        if let Ok(length) = u8::try_from(body.len()) {
            code.push(BpfInstruction { code: EQUAL, jt: 0, jf: length, k: audit });
        } else {
            code.push(BpfInstruction { code: EQUAL, jt: 1, jf: 0, k: audit });
            code.push(instruction(JUMP, body.len() as u32));
        }
        code.extend(body);
    }
    code.push(end(KILL_THREAD));
    code
}

/// A comparison with `k`: `no` follows, then `yes`.
fn branch(code: u16, k: u32, no: Code, yes: Code) -> Code {
    let mut all = match u8::try_from(no.len()) {
        Ok(length) => vec![BpfInstruction { code, jt: length, jf: 0, k }],
        Err(_) => {
            vec![BpfInstruction { code, jt: 0, jf: 1, k }, instruction(JUMP, no.len() as u32)]
        }
    };
    all.extend(no);
    all.extend(yes);
    all
}

/// Numbers from `first` on, up to the next range, that are treated alike.
struct Range<'s> {
    first: u32,
    leaf: Leaf<'s>,
}

/// What a range of numbers comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaf<'s> {
    Plain(Action),
    When(&'s [(Vec<Condition>, Action)]),
}

fn tree<'s>(section: &'s Section) -> Code {
    let default = Leaf::Plain(section.default);
    let mut ranges: Vec<Range<'s>> = Vec::new();
    let mut put = |first: u32, leaf: Leaf<'s>| {
        // Of two that begin together the later counts.
        if ranges.last().is_some_and(|last| last.first == first) {
            ranges.pop();
        }
        if ranges.last().is_none_or(|last| last.leaf != leaf) {
            ranges.push(Range { first, leaf });
        }
    };
    let base = section.architecture.base();
    put(base, default);
    let newer = Leaf::Plain(ERRNO | libc::ENOSYS as u32);
    let between = |number: u32| match section.last {
        Some(last) if number > last => newer,
        _ => default,
    };
    for (number, treatment) in &section.calls {
        if let Some(last) = section.last.filter(|last| number > last) {
            put(last.saturating_add(1), newer);
        }
        let leaf = match treatment {
            Treatment::Always(action) => Leaf::Plain(*action),
            Treatment::When(alternatives) => Leaf::When(alternatives),
        };
        put(*number, leaf);
        put(number.saturating_add(1), between(number.saturating_add(1)));
    }
    if let Some(last) = section.last.filter(|last| section.calls.keys().all(|number| number <= last)) {
        put(last.saturating_add(1), newer);
    }
    search(&ranges, section.default)
}

fn search(ranges: &[Range<'_>], default: Action) -> Code {
    match ranges {
        [] => vec![end(default)],
        [one] => leaf(one.leaf, default),
        _ => {
            let (lower, upper) = ranges.split_at(ranges.len() / 2);
            let middle = upper.first().map_or(0, |range| range.first);
            branch(AT_LEAST, middle, search(lower, default), search(upper, default))
        }
    }
}

fn leaf(leaf: Leaf<'_>, default: Action) -> Code {
    match leaf {
        Leaf::Plain(action) => vec![end(action)],
        Leaf::When(alternatives) => {
            let mut code = Code::new();
            for (conditions, action) in alternatives {
                code.extend(alternative(conditions, *action));
            }
            code.push(end(default));
            code
        }
    }
}

/// Where a jump of a condition goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Next,
    /// Past so many instructions.
    Past(u8),
    /// Past the alternative.
    Fail,
}

/// Code that returns the action when all conditions hold, and falls through otherwise.
fn alternative(conditions: &[Condition], action: Action) -> Code {
    let mut parts: Vec<(BpfInstruction, To, To)> = Vec::new();
    for condition in conditions {
        parts.extend(compare(condition));
    }
    parts.push((end(action), To::Next, To::Next));
    let length = parts.len();
    let resolve = |at: usize, to: To| match to {
        To::Next => 0,
        To::Past(n) => n,
        // Six conditions of six instructions at most: it always fits.
        To::Fail => u8::try_from(length - at - 1).unwrap_or(u8::MAX),
    };
    let place = |(at, (one, yes, no)): (usize, (BpfInstruction, To, To))| BpfInstruction {
        jt: resolve(at, yes),
        jf: resolve(at, no),
        ..one
    };
    parts.into_iter().enumerate().map(place).collect()
}

/// A comparison of 64 bits, the upper half first; of 32 where the kernel looks at no more.
fn compare(condition: &Condition) -> Vec<(BpfInstruction, To, To)> {
    use To::{Fail, Next, Past};
    let offset = ARGUMENTS + 8 * condition.index;
    let (low_at, high_at) =
        if cfg!(target_endian = "little") { (offset, offset + 4) } else { (offset + 4, offset) };
    let (low, high) = (condition.value as u32, (condition.value >> 32) as u32);
    let load = |at| (instruction(LOAD, at), Next, Next);
    let jump = |code, k, yes, no| (instruction(code, k), yes, no);
    let last = |low: u32| match condition.operator {
        Operator::Equal | Operator::Masked => jump(EQUAL, low, Next, Fail),
        Operator::Unequal => jump(EQUAL, low, Fail, Next),
        Operator::Greater => jump(GREATER, low, Next, Fail),
        Operator::GreaterOrEqual => jump(AT_LEAST, low, Next, Fail),
        Operator::Less => jump(AT_LEAST, low, Fail, Next),
        Operator::LessOrEqual => jump(GREATER, low, Fail, Next),
    };
    if condition.operator == Operator::Masked {
        let (second_low, second_high) = (condition.second as u32, (condition.second >> 32) as u32);
        let mut parts = Vec::new();
        if !condition.narrow {
            parts.extend([
                load(high_at),
                (instruction(AND, high), Next, Next),
                jump(EQUAL, second_high, Next, Fail),
            ]);
        }
        parts.extend([load(low_at), (instruction(AND, low), Next, Next), last(second_low)]);
        return parts;
    }
    if condition.narrow {
        return vec![load(low_at), last(low)];
    }
    let mut parts = vec![load(high_at)];
    match condition.operator {
        Operator::Equal | Operator::Masked => parts.push(jump(EQUAL, high, Next, Fail)),
        Operator::Unequal => parts.push(jump(EQUAL, high, Next, Past(2))),
        Operator::Greater | Operator::GreaterOrEqual => {
            parts.push(jump(GREATER, high, Past(3), Next));
            parts.push(jump(EQUAL, high, Next, Fail));
        }
        Operator::Less | Operator::LessOrEqual => {
            parts.push(jump(GREATER, high, Fail, Next));
            parts.push(jump(EQUAL, high, Next, Past(2)));
        }
    }
    parts.extend([load(low_at), last(low)]);
    parts
}
