//! What a plugin is told when it joins, in as many messages as it takes.

use prost::Message;

use crate::host::Snapshot;
use crate::plugin::{CallError, Plugin};
use crate::proto::{ContainerUpdate, SynchronizeRequest, SynchronizeResponse};

/// The most that a message may have: ttrpc's 4 MiB less what is around it.
const BUDGET: usize = berth_ttrpc::frame::MAX_DATA - (64 << 10);
/// What an element of a list takes beside itself: its tag and its length.
const AROUND: usize = 8;

/// Why a plugin cannot join.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SynchronizeError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the state of the node takes several messages, which the plugin does not understand")]
    Unsplit,
}

/// Tells the plugin what there is; the answer is what it wants changed.
pub(crate) async fn synchronize(
    plugin: &Plugin,
    snapshot: Snapshot,
) -> Result<Vec<ContainerUpdate>, SynchronizeError> {
    let mut messages = messages(snapshot, BUDGET).into_iter().peekable();
    while let Some(mut message) = messages.next() {
        message.more = messages.peek().is_some();
        let SynchronizeResponse { update, more } = plugin.call("Synchronize", &message).await?;
        if !message.more {
            return Ok(update);
        }
        if !more || !update.is_empty() {
            return Err(SynchronizeError::Unsplit);
        }
    }
    Ok(Vec::new())
}

/// At least one message; none has more than `budget` bytes unless a single pod or container does.
fn messages(snapshot: Snapshot, budget: usize) -> Vec<SynchronizeRequest> {
    let mut messages = vec![SynchronizeRequest::default()];
    let mut left = budget;
    for pod in snapshot.pods {
        let size = pod.encoded_len() + AROUND;
        room(&mut messages, &mut left, size, budget).pods.push(pod);
    }
    for container in snapshot.containers {
        let size = container.encoded_len() + AROUND;
        room(&mut messages, &mut left, size, budget).containers.push(container);
    }
    messages
}

/// The message that has room for `size` bytes more.
fn room<'a>(
    messages: &'a mut Vec<SynchronizeRequest>,
    left: &mut usize,
    size: usize,
    budget: usize,
) -> &'a mut SynchronizeRequest {
    let last = messages.len() - 1;
    let is_empty = messages[last].pods.is_empty() && messages[last].containers.is_empty();
    if size > *left && !is_empty {
        messages.push(SynchronizeRequest::default());
        *left = budget;
    }
    *left = left.saturating_sub(size);
    let last = messages.len() - 1;
    &mut messages[last]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Container, PodSandbox};

    #[test]
    fn what_is_too_long_for_one_message_goes_into_several_none_of_which_is_too_long() {
        let pod = |number| PodSandbox { id: format!("pod-{number}"), ..PodSandbox::default() };
        let container = |number| Container { id: format!("container-{number}"), ..Container::default() };
        let snapshot =
            Snapshot { pods: (0..50).map(pod).collect(), containers: (0..80).map(container).collect() };
        let messages = messages(snapshot, 200);
        assert!(messages.len() > 10);
        assert!(messages.iter().all(|message| message.encoded_len() <= 200));
        let pods: Vec<_> = messages.iter().flat_map(|message| &message.pods).collect();
        let containers: Vec<_> = messages.iter().flat_map(|message| &message.containers).collect();
        assert!(pods.len() == 50 && containers.len() == 80);
        assert!(pods[49].id == "pod-49" && containers[0].id == "container-0");
    }

    #[test]
    fn a_node_without_pods_is_one_empty_message() {
        assert_eq!(messages(Snapshot::default(), 200), [SynchronizeRequest::default()]);
    }
}
