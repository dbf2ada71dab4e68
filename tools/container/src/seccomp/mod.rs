//! The configuration's system call filter as a classic BPF program.
//!
//! The program first tells architectures apart, then finds the call's number by binary search over
//! ranges of calls that are treated alike, so that it is short (loading is what costs) and any call
//! passes a dozen comparisons at most.
//!
//! Meaning, as runc with libseccomp has it: the machine's own architecture is always filtered, others
//! as listed, calls of any other kill the thread. Names that an architecture does not have are passed
//! over. A rule without conditions outranks those with; among those the first that holds decides.
//! Several conditions on one argument are alternatives, else all must hold. Calls newer than any that
//! the filter names fail with ENOSYS rather than the default action, so that C libraries fall back.

mod compile;
mod names;
mod rules;
mod table;
mod x32;

use berth_oci::runtime::Seccomp;

use crate::error::{Error, Result};
use crate::plan::Filter;

const FLAG_TSYNC: u32 = 1;
/// Matches are noted in the kernel's log.
pub(crate) const FLAG_LOG: u32 = 1 << 1;
const FLAG_SPEC_ALLOW: u32 = 1 << 2;
const FLAG_NEW_LISTENER: u32 = 1 << 3;
const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// Compiles a filter; `None` when everything is allowed.
pub(crate) fn filter(seccomp: &Seccomp) -> Result<Option<Filter>> {
    let sections = rules::sections(seccomp)?;
    let listener = seccomp.syscalls.iter().any(|rule| rule.action == "SCMP_ACT_NOTIFY");
    check_listener(seccomp, listener)?;
    if seccomp.syscalls.is_empty() && seccomp.default_action == "SCMP_ACT_ALLOW" {
        return Ok(None);
    }
    let program = compile::compile(&sections);
    if program.len() > 4096 {
        let what = format!("the seccomp filter takes {} instructions; the kernel allows 4096", program.len());
        return Err(Error::Config { what });
    }
    Ok(Some(Filter { program, flags: flags(seccomp, listener)?, listener }))
}

fn check_listener(seccomp: &Seccomp, listener: bool) -> Result<()> {
    let invalid = |what: &str| Err(Error::Config { what: what.into() });
    if seccomp.default_action == "SCMP_ACT_NOTIFY" {
        return invalid("SCMP_ACT_NOTIFY cannot be used as default action");
    }
    let mut notified = seccomp.syscalls.iter().filter(|rule| rule.action == "SCMP_ACT_NOTIFY");
    if notified.any(|rule| rule.names.iter().any(|name| matches!(name.as_str(), "write" | "sendmsg"))) {
        // The new process hands its listener over with these, and nobody would answer yet.
        return invalid("SCMP_ACT_NOTIFY cannot be used for the write and sendmsg syscalls");
    }
    if listener && seccomp.listener_path.is_empty() {
        return invalid("seccomp.listenerPath is not set, but SCMP_ACT_NOTIFY is used");
    }
    Ok(())
}

fn flags(seccomp: &Seccomp, listener: bool) -> Result<u32> {
    let mut flags = if listener { FLAG_NEW_LISTENER } else { 0 };
    if seccomp.flags.is_empty() {
        // As runc: filtered programs do not pay for a mitigation that they did not ask for.
        flags |= FLAG_SPEC_ALLOW;
    }
    for flag in &seccomp.flags {
        flags |= match flag.as_str() {
            // One thread: there is nothing to synchronise, and with a listener it is refused.
            "SECCOMP_FILTER_FLAG_TSYNC" if listener => 0,
            "SECCOMP_FILTER_FLAG_TSYNC" => FLAG_TSYNC,
            "SECCOMP_FILTER_FLAG_LOG" => FLAG_LOG,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => FLAG_SPEC_ALLOW,
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => FLAG_WAIT_KILLABLE_RECV,
            other => return Err(Error::Config { what: format!("seccomp flag {other:?} is not known") }),
        };
    }
    Ok(flags)
}

#[cfg(test)]
mod tests;
