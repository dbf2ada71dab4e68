//! The set of events that a plugin is told of: bit n - 1 stands for event n.

use crate::proto::Event;

/// A set of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Events(i32);

/// A plugin asked for events that do not exist.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("it subscribed to events that NRI 0.12 does not have ({0:#x})")]
pub(crate) struct UnknownEvents(i32);

impl Events {
    const ALL: i32 = (1 << (Event::Last as i32 - 1)) - 1;

    /// Reads a subscription; an empty one is for everything.
    pub(crate) fn subscribed(mask: i32) -> Result<Self, UnknownEvents> {
        match mask & !Self::ALL {
            0 if mask == 0 => Ok(Self(Self::ALL)),
            0 => Ok(Self(mask)),
            unknown => Err(UnknownEvents(unknown)),
        }
    }

    pub(crate) fn has(self, event: Event) -> bool {
        let bit = event as i32 - 1;
        bit >= 0 && self.0 & (1 << bit) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_that_names_no_event_gets_all() {
        let all = Events::subscribed(0).unwrap();
        assert!(all.has(Event::RunPodSandbox) && all.has(Event::ValidateContainerAdjustment));
        assert!(!all.has(Event::Unknown));
    }

    #[test]
    fn only_what_was_subscribed_to_is_told() {
        let one = Events::subscribed(1 << 3).unwrap();
        assert!(one.has(Event::CreateContainer));
        assert!(!one.has(Event::PostCreateContainer));
    }

    #[test]
    fn an_event_of_the_future_is_refused() {
        assert_eq!(Events::subscribed(1 << 20), Err(UnknownEvents(1 << 20)));
        assert!(Events::subscribed(-1).is_err());
    }
}
