//! Restart policies.

use berth_types::{Error, Result};
use serde::{Deserialize, Serialize};

/// When a container is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartName {
    /// Never.
    #[default]
    No,
    /// After every end.
    Always,
    /// After an end with another status than 0.
    OnFailure,
    /// After every end that nobody asked for.
    UnlessStopped,
}

/// When and how often a container is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RestartPolicy {
    /// When.
    #[serde(default)]
    pub name: RestartName,
    /// How often at most after failures; 0 is without end.
    #[serde(default)]
    pub maximum_retry_count: u32,
}

impl RestartPolicy {
    /// The policy as containerd's restart monitor reads it; empty for no restarts.
    pub fn label(&self) -> String {
        match self.name {
            RestartName::No => String::new(),
            RestartName::Always => "always".to_owned(),
            RestartName::UnlessStopped => "unless-stopped".to_owned(),
            RestartName::OnFailure if self.maximum_retry_count == 0 => "on-failure".to_owned(),
            RestartName::OnFailure => format!("on-failure:{}", self.maximum_retry_count),
        }
    }
}

/// `no`, `always`, `unless-stopped`, `on-failure[:TIMES]`.
pub fn restart_policy(text: &str) -> Result<RestartPolicy> {
    let wrong = || {
        Error::invalid_argument(format!(
            "invalid restart policy '{text}': use no, always, unless-stopped or on-failure[:TIMES]"
        ))
    };
    let (name, times) = text.split_once(':').map_or((text, None), |(name, times)| (name, Some(times)));
    let name = match name {
        "" | "no" => RestartName::No,
        "always" => RestartName::Always,
        "on-failure" => RestartName::OnFailure,
        "unless-stopped" => RestartName::UnlessStopped,
        _ => return Err(wrong()),
    };
    let maximum_retry_count = match times {
        None => 0,
        Some(times) if name == RestartName::OnFailure => times.parse().map_err(|_| wrong())?,
        Some(_) => return Err(wrong()),
    };
    Ok(RestartPolicy { name, maximum_retry_count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_can_be_counted() {
        assert_eq!(restart_policy("on-failure:3").unwrap().label(), "on-failure:3");
        assert_eq!(restart_policy("unless-stopped").unwrap().label(), "unless-stopped");
        assert_eq!(restart_policy("no").unwrap(), RestartPolicy::default());
        for bad in ["sometimes", "always:3", "on-failure:x", "on-failure:-1"] {
            assert!(restart_policy(bad).is_err(), "{bad}");
        }
    }
}
