//! Rules by architecture and number.

use std::collections::BTreeMap;

use berth_oci::runtime::{Seccomp, SyscallArg, SyscallRule};

use super::names::{self, Architecture, Named};
use crate::error::{Error, Result};

/// What a filter returns: the kernel's `SECCOMP_RET_…` with its data.
pub(super) type Action = u32;

pub(super) const KILL_PROCESS: Action = 0x8000_0000;
pub(super) const KILL_THREAD: Action = 0;
pub(super) const TRAP: Action = 0x0003_0000;
pub(super) const ERRNO: Action = 0x0005_0000;
pub(super) const NOTIFY: Action = 0x7fc0_0000;
pub(super) const TRACE: Action = 0x7ff0_0000;
pub(super) const LOG: Action = 0x7ffc_0000;
pub(super) const ALLOW: Action = 0x7fff_0000;

/// Numbers from here on are no new calls but x32's (which have their bit) or private ones of an
/// architecture.
const PRIVATE: u32 = 0xf_0000;

/// What to do with the calls of one architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub architecture: Architecture,
    /// By number.
    pub calls: BTreeMap<u32, Treatment>,
    /// For the numbers between.
    pub default: Action,
    /// Numbers above this one fail with ENOSYS; `None`: they get the default.
    pub last: Option<u32>,
}

/// What to do with one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// Always this.
    Always(Action),
    /// The first of these whose conditions all hold, else the default.
    When(Vec<(Vec<Condition>, Action)>),
}

/// A comparison of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub index: u32,
    pub operator: Operator,
    /// Compared with; the mask for `Masked`.
    pub value: u64,
    /// The masked value.
    pub second: u64,
    /// The kernel looks at the lower half only, so no more may be compared: a caller could put
    /// anything into the upper one.
    pub narrow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Masked,
}

/// Sorts the rules into sections.
pub(super) fn sections(seccomp: &Seccomp) -> Result<Vec<Section>> {
    let default = action(&seccomp.default_action, seccomp.default_errno_ret)?;
    let mut architectures = vec![Architecture::NATIVE];
    for name in &seccomp.architectures {
        match names::architecture(name) {
            Named::Here(architecture) if !architectures.contains(&architecture) => {
                architectures.push(architecture);
            }
            // Another family's: this machine runs none of its calls.
            Named::Here(_) | Named::Elsewhere => {}
            Named::Unknown => {
                return Err(Error::Config { what: format!("seccomp architecture {name:?} is not known") });
            }
        }
    }
    let open = matches!(default & 0xffff_0000, ALLOW | LOG | TRACE);
    let names = seccomp.syscalls.iter().map(|rule| &rule.names);
    let rows: Vec<Vec<_>> = names.map(|names| names.iter().map(|name| names::row(name)).collect()).collect();
    let mut sections = Vec::new();
    for architecture in architectures {
        let mut section = Section { architecture, calls: BTreeMap::new(), default, last: None };
        for (rule, rows) in seccomp.syscalls.iter().zip(&rows) {
            let action = action(&rule.action, rule.errno_ret)?;
            for (name, row) in rule.names.iter().zip(rows) {
                let Some(number) = architecture.number(name, *row) else { continue };
                if number & !Architecture::X32_BIT < PRIVATE {
                    section.last = section.last.max(Some(number));
                }
                if action != default {
                    add(&mut section, number, rule, name, action)?;
                }
            }
        }
        if open {
            section.last = None;
        }
        sections.push(section);
    }
    Ok(sections)
}

fn add(section: &mut Section, number: u32, rule: &SyscallRule, name: &str, action: Action) -> Result<()> {
    let current = section.calls.entry(number).or_insert_with(|| Treatment::When(Vec::new()));
    let Treatment::When(alternatives) = current else { return Ok(()) };
    if rule.args.is_empty() {
        *current = Treatment::Always(action);
        return Ok(());
    }
    let mut conditions = Vec::new();
    for arg in &rule.args {
        conditions.push(condition(arg, name)?);
    }
    let repeated = |c: &Condition| conditions.iter().filter(|o| o.index == c.index).count() > 1;
    if conditions.iter().any(repeated) {
        alternatives.extend(conditions.into_iter().map(|c| (vec![c], action)));
    } else {
        alternatives.push((conditions, action));
    }
    Ok(())
}

fn condition(arg: &SyscallArg, call: &str) -> Result<Condition> {
    let operator = match arg.op.as_str() {
        "SCMP_CMP_EQ" => Operator::Equal,
        "SCMP_CMP_NE" => Operator::Unequal,
        "SCMP_CMP_LT" => Operator::Less,
        "SCMP_CMP_LE" => Operator::LessOrEqual,
        "SCMP_CMP_GT" => Operator::Greater,
        "SCMP_CMP_GE" => Operator::GreaterOrEqual,
        "SCMP_CMP_MASKED_EQ" => Operator::Masked,
        other => return Err(Error::Config { what: format!("seccomp operator {other:?} is not known") }),
    };
    if arg.index > 5 {
        return Err(Error::Config { what: format!("seccomp argument index {} is not 0 to 5", arg.index) });
    }
    let narrow = matches!(call, "socket" | "socketpair") && arg.index < 3;
    Ok(Condition { index: arg.index, operator, value: arg.value, second: arg.value_two, narrow })
}

fn action(name: &str, errno: Option<u32>) -> Result<Action> {
    let data = || {
        let value = errno.unwrap_or(libc::EPERM as u32);
        if value > 0xffff {
            return Err(Error::Config { what: format!("seccomp errnoRet {value} does not fit in 16 bits") });
        }
        Ok(value)
    };
    if errno.is_some() && !matches!(name, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE") {
        return Err(Error::Config { what: format!("seccomp action {name:?} takes no errnoRet") });
    }
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        "SCMP_ACT_TRAP" => TRAP,
        "SCMP_ACT_ERRNO" => ERRNO | data()?,
        "SCMP_ACT_TRACE" => TRACE | data()?,
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_LOG" => LOG,
        "SCMP_ACT_NOTIFY" => NOTIFY,
        other => return Err(Error::Config { what: format!("seccomp action {other:?} is not known") }),
    })
}
