//! The program is interpreted against the rules' meaning.

use berth_oci::runtime::DeviceRule;
use proptest::prelude::*;

use super::program::{Instruction, compile, operation as op};
use super::{add_defaults, line};

/// What the kernel would do with the program.
fn interpret(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
    let context = [access << 16 | kind, major, minor];
    let mut registers = [0u64; 11];
    let mut at = 0usize;
    loop {
        let i = program[at];
        let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
        at += 1;
        match i.code {
            op::LOAD => registers[to] = context[i.offset as usize / 4].into(),
            op::SET => registers[to] = i.immediate as u64,
            op::COPY => registers[to] = registers[from],
            op::AND => registers[to] = (registers[to] as u32 & i.immediate as u32).into(),
            op::SHIFT => registers[to] = (registers[to] as u32 >> i.immediate).into(),
            op::JUMP_UNEQUAL if registers[to] as u32 != i.immediate as u32 => at += i.offset as usize,
            op::JUMP_EQUAL if registers[to] as u32 == i.immediate as u32 => at += i.offset as usize,
            op::JUMP_UNEQUAL | op::JUMP_EQUAL => {}
            op::EXIT => return registers[0] != 0,
            code => panic!("operation {code:#x}"),
        }
    }
}

/// The last rule that matches decides.
fn meaning(rules: &[DeviceRule], kind: u32, access: u32, major: u32, minor: u32) -> bool {
    let matches = |rule: &&DeviceRule| {
        let kinds = match rule.kind.as_str() {
            "b" => kind == 1,
            "c" => kind == 2,
            _ => true,
        };
        let mask: u32 = if rule.access.is_empty() {
            7
        } else {
            rule.access
                .chars()
                .map(|c| match c {
                    'm' => 1,
                    'r' => 2,
                    _ => 4,
                })
                .sum()
        };
        let covers = if mask == 7 {
            true
        } else if rule.allow {
            access & !mask == 0
        } else {
            access & mask != 0
        };
        kinds
            && covers
            && rule.major.is_none_or(|m| m < 0 || m == i64::from(major))
            && rule.minor.is_none_or(|m| m < 0 || m == i64::from(minor))
    };
    rules.iter().rev().find(matches).is_some_and(|rule| rule.allow)
}

fn rule() -> impl Strategy<Value = DeviceRule> {
    let kinds = prop::sample::select(vec!["", "a", "b", "c"]);
    let accesses = prop::sample::select(vec!["", "r", "w", "m", "rw", "rm", "wm", "rwm"]);
    let number = || prop::option::of(-1i64..4);
    (any::<bool>(), kinds, number(), number(), accesses).prop_map(|(allow, kind, major, minor, access)| {
        DeviceRule { allow, kind: kind.into(), major, minor, access: access.into() }
    })
}

proptest! {
    #[test]
    fn the_program_means_what_the_rules_mean(
        rules in prop::collection::vec(rule(), 0..8),
        kind in 1u32..3, access in 1u32..8, major in 0u32..4, minor in 0u32..4,
    ) {
        let program = compile(&rules).unwrap();
        prop_assert_eq!(
            interpret(&program, kind, access, major, minor),
            meaning(&rules, kind, access, major, minor)
        );
    }
}

#[test]
fn lines_are_those_of_the_device_cgroup() {
    let all = DeviceRule { access: "rwm".into(), ..Default::default() };
    assert_eq!(line(&all).unwrap(), "a");
    let one =
        DeviceRule { kind: "c".into(), major: Some(10), minor: Some(-1), access: "rw".into(), allow: true };
    assert_eq!(line(&one).unwrap(), "c 10:* rw");
    assert!(line(&DeviceRule { kind: "p".into(), ..Default::default() }).is_err());
}

#[test]
fn a_container_that_may_use_everything_is_not_told_the_defaults() {
    let mut open = vec![DeviceRule { allow: true, access: "rwm".into(), ..Default::default() }];
    add_defaults(&mut open);
    assert_eq!(open.len(), 1);
    let mut closed = vec![DeviceRule { access: "rwm".into(), ..Default::default() }];
    add_defaults(&mut closed);
    assert_eq!(closed.len(), 11);
}
