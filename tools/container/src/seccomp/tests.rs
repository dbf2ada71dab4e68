//! Programs are interpreted against the meaning of the rules.

use berth_oci::runtime::{Seccomp, SyscallArg, SyscallRule, default, default_seccomp};
use berth_sys::child::BpfInstruction;
use proptest::prelude::*;

use super::compile::operation as op;
use super::names::{self, Architecture};
use super::rules::{ALLOW, ERRNO, KILL_THREAD};
use super::{compile, filter, rules};

fn native_number(name: &str) -> Option<u32> {
    Architecture::NATIVE.number(name, names::row(name))
}

const ENOSYS: u32 = 38;

/// What the kernel would do with the program.
fn interpret(program: &[BpfInstruction], architecture: u32, number: u32, args: [u64; 6]) -> u32 {
    let load = |offset: u32| match offset {
        0 => number,
        4 => architecture,
        offset => {
            let word = (offset - 16) / 4;
            (args[word as usize / 2] >> (32 * (word % 2))) as u32
        }
    };
    let (mut at, mut value) = (0usize, 0u32);
    loop {
        let i = program[at];
        at += 1;
        let mut jump = |yes: bool| at += usize::from(if yes { i.jt } else { i.jf });
        match i.code {
            op::LOAD => value = load(i.k),
            op::JUMP => at += i.k as usize,
            op::EQUAL => jump(value == i.k),
            op::GREATER => jump(value > i.k),
            op::AT_LEAST => jump(value >= i.k),
            op::AND => value &= i.k,
            op::RETURN => return i.k,
            code => panic!("operation {code:#x}"),
        }
    }
}

fn holds(arg: &SyscallArg, args: &[u64; 6], narrow: bool) -> bool {
    let cut = |value: u64| if narrow { value & 0xffff_ffff } else { value };
    let (given, value) = (cut(args[arg.index as usize]), cut(arg.value));
    match arg.op.as_str() {
        "SCMP_CMP_EQ" => given == value,
        "SCMP_CMP_NE" => given != value,
        "SCMP_CMP_LT" => given < value,
        "SCMP_CMP_LE" => given <= value,
        "SCMP_CMP_GT" => given > value,
        "SCMP_CMP_GE" => given >= value,
        _ => given & value == cut(arg.value_two),
    }
}

/// The meaning of a filter for a call of the machine's own architecture, said once more.
fn meaning(seccomp: &Seccomp, number: u32, args: [u64; 6]) -> u32 {
    let code = |action: &str, errno: Option<u32>| match action {
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_ERRNO" => ERRNO | errno.unwrap_or(1),
        _ => KILL_THREAD,
    };
    let default = code(&seccomp.default_action, seccomp.default_errno_ret);
    let is = |name: &String| native_number(name) == Some(number);
    let of_call = || seccomp.syscalls.iter().filter(|r| r.names.iter().any(is));
    let other = |r: &&SyscallRule| code(&r.action, r.errno_ret) != default;
    if let Some(rule) = of_call().filter(other).find(|r| r.args.is_empty()) {
        return code(&rule.action, rule.errno_ret);
    }
    for rule in of_call().filter(other) {
        let narrow = |arg: &SyscallArg| native_number("socket") == Some(number) && arg.index < 3;
        let repeated = |arg: &SyscallArg| rule.args.iter().filter(|a| a.index == arg.index).count() > 1;
        let mut results = rule.args.iter().map(|arg| holds(arg, &args, narrow(arg)));
        let matched = if rule.args.iter().any(repeated) { results.any(|r| r) } else { results.all(|r| r) };
        if matched {
            return code(&rule.action, rule.errno_ret);
        }
    }
    let named = seccomp.syscalls.iter().flat_map(|r| &r.names);
    let last = named.filter_map(|name| native_number(name)).max();
    if default != ALLOW && last.is_some_and(|last| number > last) { ERRNO | ENOSYS } else { default }
}

fn program(seccomp: &Seccomp) -> Vec<BpfInstruction> {
    compile::compile(&rules::sections(seccomp).unwrap())
}

const CALLS: [&str; 8] = ["read", "write", "socket", "clone", "openat", "personality", "mseal", "nonsense"];
const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_GT",
    "SCMP_CMP_GE",
    "SCMP_CMP_MASKED_EQ",
];

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..4, Just(u64::MAX), Just(1 << 32), Just((1 << 32) + 1), Just(0xffff_ffff)]
}

fn rule() -> impl Strategy<Value = SyscallRule> {
    let arg = (0u32..6, value(), value(), prop::sample::select(OPERATORS.to_vec()))
        .prop_map(|(index, value, value_two, op)| SyscallArg { index, value, value_two, op: op.into() });
    let action = prop_oneof![
        Just(("SCMP_ACT_ALLOW", None)),
        Just(("SCMP_ACT_ERRNO", Some(7))),
        Just(("SCMP_ACT_ERRNO", None)),
        Just(("SCMP_ACT_KILL", None)),
    ];
    let names = prop::collection::vec(prop::sample::select(CALLS.to_vec()), 1..4);
    (names, action, prop::collection::vec(arg, 0..4)).prop_map(|(names, (action, errno_ret), args)| {
        let names = names.into_iter().map(str::to_owned).collect();
        SyscallRule { names, action: action.into(), errno_ret, args }
    })
}

proptest! {
    #[test]
    fn the_program_means_what_the_rules_mean(
        rules in prop::collection::vec(rule(), 0..10),
        open in any::<bool>(),
        call in prop::sample::select(CALLS.to_vec()),
        args in prop::array::uniform6(value()),
        any_number in 0u32..600,
    ) {
        let action = if open { "SCMP_ACT_ALLOW" } else { "SCMP_ACT_ERRNO" };
        let seccomp = Seccomp { default_action: action.into(), syscalls: rules, ..Default::default() };
        let program = program(&seccomp);
        let native = Architecture::NATIVE.audit();
        for number in [native_number(call).unwrap_or(600), any_number] {
            prop_assert_eq!(interpret(&program, native, number, args), meaning(&seccomp, number, args));
        }
    }
}

#[test]
fn the_default_filter_is_short_and_refuses_what_it_must() {
    let seccomp = default_seccomp(Some(&default::capabilities()));
    let filter = filter(&seccomp).unwrap().unwrap();
    assert!(filter.program.len() < 1000, "{}", filter.program.len());
    let native = Architecture::NATIVE.audit();
    let call = |name: &str, first: u64| {
        let number = native_number(name).unwrap();
        interpret(&filter.program, native, number, [first, 0, 0, 0, 0, 0])
    };
    assert_eq!(call("read", 0), ALLOW);
    assert_eq!(call("io_uring_setup", 0), ERRNO | 1);
    assert_eq!(call("clone3", 0), ERRNO | ENOSYS);
    assert_eq!(call("clone", 0x0200_0000), ERRNO | 1);
    assert_eq!(call("clone", 0x11), ALLOW);
    for (family, allowed) in [(2, true), (38, false), (39, true), (40, false), (41, true)] {
        assert_eq!(call("socket", family) == ALLOW, allowed, "{family}");
    }
    // The kernel takes an int: bits above it are no way around the filter.
    assert_eq!(call("socket", (1 << 32) + 38), ERRNO | 1);
    assert_eq!(interpret(&filter.program, native, 9999, [0; 6]), ERRNO | ENOSYS);
    assert_eq!(interpret(&filter.program, 0x1234, 0, [0; 6]), KILL_THREAD);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn other_architectures_are_filtered_when_listed_and_killed_otherwise() {
    let mut seccomp = default_seccomp(Some(&default::capabilities()));
    let listed = program(&seccomp);
    let (native, x86) = (Architecture::X86_64.audit(), Architecture::X86.audit());
    assert_eq!(interpret(&listed, x86, 3, [0; 6]), ALLOW);
    assert_eq!(interpret(&listed, native, 0x4000_0000, [0; 6]), ALLOW);
    seccomp.architectures.clear();
    let alone = program(&seccomp);
    assert_eq!(interpret(&alone, x86, 3, [0; 6]), KILL_THREAD);
    assert_eq!(interpret(&alone, native, 0x4000_0000, [0; 6]), KILL_THREAD);
    assert_eq!(interpret(&alone, native, 0, [0; 6]), ALLOW);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let with = |change: &dyn Fn(&mut Seccomp)| {
        let mut seccomp = Seccomp { default_action: "SCMP_ACT_ERRNO".into(), ..Default::default() };
        seccomp.syscalls.push(SyscallRule {
            names: vec!["read".into()],
            action: "SCMP_ACT_ALLOW".into(),
            ..Default::default()
        });
        change(&mut seccomp);
        filter(&seccomp).is_err()
    };
    assert!(!with(&|_| {}));
    assert!(with(&|s| s.default_action = "SCMP_ACT_NOTIFY".into()));
    assert!(with(&|s| s.default_action = "ALLOW".into()));
    assert!(with(&|s| s.syscalls[0].action = "SCMP_ACT_NOTIFY".into()));
    assert!(with(&|s| s.syscalls[0].errno_ret = Some(3)));
    assert!(with(&|s| s.architectures.push("SCMP_ARCH_PDP11".into())));
    assert!(with(&|s| s.flags.push("FAST".into())));
    let bad = SyscallArg { index: 6, op: "SCMP_CMP_EQ".into(), ..Default::default() };
    assert!(with(&|s| s.syscalls[0].args = vec![bad.clone()]));
    assert!(!with(&|s| s.architectures.push("SCMP_ARCH_S390X".into())));
}
