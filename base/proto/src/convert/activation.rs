//! Activated mounts.

use std::time::SystemTime;

use berth_types::{Activation, ActiveMount};

use super::{from_labels, labels, mounts, mounts_from, time, timestamp};
use crate::containerd::types as wire;

impl From<ActiveMount> for wire::ActiveMount {
    fn from(active: ActiveMount) -> Self {
        let ActiveMount { mount, mounted_at, point, data } = active;
        Self {
            mount: Some(mount.into()),
            mounted_at: mounted_at.and_then(timestamp),
            mount_point: point,
            data: labels(data),
        }
    }
}

impl From<wire::ActiveMount> for ActiveMount {
    fn from(active: wire::ActiveMount) -> Self {
        let wire::ActiveMount { mount, mounted_at, mount_point, data } = active;
        let mounted_at = Some(time(mounted_at)).filter(|at| *at != SystemTime::UNIX_EPOCH);
        Self {
            mount: mount.unwrap_or_default().into(),
            mounted_at,
            point: mount_point,
            data: from_labels(data),
        }
    }
}

impl From<Activation> for wire::ActivationInfo {
    fn from(activation: Activation) -> Self {
        let Activation { name, active, system, labels: marks } = activation;
        Self {
            name,
            active: active.into_iter().map(Into::into).collect(),
            system: mounts(system),
            labels: labels(marks),
        }
    }
}

impl From<wire::ActivationInfo> for Activation {
    fn from(activation: wire::ActivationInfo) -> Self {
        let wire::ActivationInfo { name, active, system, labels: marks } = activation;
        Self {
            name,
            active: active.into_iter().map(Into::into).collect(),
            system: mounts_from(system),
            labels: from_labels(marks),
        }
    }
}
