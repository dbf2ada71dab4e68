//! When a container that has ended is started again.

use std::str::FromStr;

/// A restart policy, as its label has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Never.
    No,
    /// Whatever its end was; also what no policy means.
    Always,
    /// After a failure, at most so often; 0 for ever.
    OnFailure(u32),
    /// Until a person stops it.
    UnlessStopped,
}

/// A policy that nobody knows.
#[derive(Debug, thiserror::Error)]
#[error("restart policy {0:?} is none of no, always, on-failure[:MAX], unless-stopped")]
pub(crate) struct UnknownPolicy(String);

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        match text.split_once(':') {
            None => match text {
                "" | "always" => Ok(Self::Always),
                "no" => Ok(Self::No),
                "unless-stopped" => Ok(Self::UnlessStopped),
                "on-failure" => Ok(Self::OnFailure(0)),
                _ => Err(UnknownPolicy(text.to_owned())),
            },
            Some(("on-failure", most)) => {
                most.parse().map(Self::OnFailure).map_err(|_| UnknownPolicy(text.to_owned()))
            }
            Some(_) => Err(UnknownPolicy(text.to_owned())),
        }
    }
}

impl Policy {
    /// Whether a container that ended with `status` is started again, given the labels that count
    /// restarts and remember a person's stop.
    pub(crate) fn restarts(self, status: u32, count: &str, stopped: &str) -> bool {
        match self {
            Self::No => false,
            Self::Always => true,
            Self::OnFailure(most) => {
                let Some(count) = number(count) else { return false };
                status != 0 && (most == 0 || count < most)
            }
            Self::UnlessStopped => !is_true(stopped),
        }
    }
}

/// The restarts so far; none without the label, unknown when it is no number.
pub(crate) fn number(count: &str) -> Option<u32> {
    if count.is_empty() { Some(0) } else { count.parse().ok() }
}

/// What Go's ParseBool takes for true.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restarts(policy: &str, status: u32, count: &str, stopped: &str) -> bool {
        policy.parse::<Policy>().unwrap().restarts(status, count, stopped)
    }

    #[test]
    fn policies_restart_as_containerds_do() {
        for (policy, status, count, stopped, expected) in [
            ("", 0, "", "", true),
            ("always", 0, "7", "true", true),
            ("no", 1, "", "", false),
            ("on-failure", 0, "", "", false),
            ("on-failure", 1, "100", "", true),
            ("on-failure:3", 1, "2", "", true),
            ("on-failure:3", 1, "3", "", false),
            ("on-failure:3", 1, "x", "", false),
            ("unless-stopped", 0, "", "", true),
            ("unless-stopped", 1, "", "true", false),
            ("unless-stopped", 1, "", "false", true),
        ] {
            assert_eq!(
                restarts(policy, status, count, stopped),
                expected,
                "{policy} {status} {count} {stopped}"
            );
        }
        for unknown in ["sometimes", "always:3", "on-failure:x", "on-failure:-1"] {
            assert!(unknown.parse::<Policy>().is_err(), "{unknown}");
        }
    }
}
