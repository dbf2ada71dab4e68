//! What a runtime is told about a container and its pod, under containerd's names. Shims group containers by them.

use std::collections::BTreeMap;

use berth_oci::runtime::Spec;

use super::Inputs;
use crate::pod::Pod;

const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
const SANDBOX_NAME: &str = "io.kubernetes.cri.sandbox-name";
const SANDBOX_NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";
const SANDBOX_UID: &str = "io.kubernetes.cri.sandbox-uid";
const SANDBOX_LOGS: &str = "io.kubernetes.cri.sandbox-log-directory";
const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";
const IMAGE_NAME: &str = "io.kubernetes.cri.image-name";

/// Those of a pod's first process.
pub(crate) fn of_pod(pod: &Pod) -> BTreeMap<String, String> {
    let mut all = passed_on(&pod.config.annotations, &pod.handler.pod_annotations);
    all.insert(CONTAINER_TYPE.to_owned(), "sandbox".to_owned());
    all.insert(SANDBOX_LOGS.to_owned(), pod.config.log_directory.clone());
    all.extend(names_of(pod));
    all
}

pub(super) fn apply(spec: &mut Spec, inputs: &Inputs<'_>) {
    let Inputs { pod, config, .. } = inputs;
    let all = &mut spec.annotations;
    all.extend(passed_on(&pod.config.annotations, &pod.handler.pod_annotations));
    all.extend(passed_on(&config.annotations, &pod.handler.container_annotations));
    all.insert(CONTAINER_TYPE.to_owned(), "container".to_owned());
    let metadata = config.metadata.clone().unwrap_or_default();
    all.insert(CONTAINER_NAME.to_owned(), metadata.name);
    let image = config.image.clone().unwrap_or_default();
    let name = if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image };
    all.insert(IMAGE_NAME.to_owned(), name);
    all.extend(names_of(pod));
}

fn names_of(pod: &Pod) -> [(String, String); 4] {
    let metadata = pod.metadata();
    [
        (SANDBOX_ID, pod.id.to_string()),
        (SANDBOX_NAME, metadata.name),
        (SANDBOX_NAMESPACE, metadata.namespace),
        (SANDBOX_UID, metadata.uid),
    ]
    .map(|(key, value)| (key.to_owned(), value))
}

/// The annotations whose key one of the shell patterns matches.
fn passed_on<'a>(
    annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
    patterns: &[String],
) -> BTreeMap<String, String> {
    let passes = |key: &str| patterns.iter().any(|pattern| matches(pattern.as_bytes(), key.as_bytes()));
    annotations
        .into_iter()
        .filter(|(key, _)| passes(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Go's `path.Match` as far as annotations need it: `*` and `?` stand for anything but a slash.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            let end = text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
            (0..=end).any(|taken| matches(rest, &text[taken..]))
        }
        ([b'?', rest @ ..], [byte, tail @ ..]) => *byte != b'/' && matches(rest, tail),
        ([b'\\', wanted, rest @ ..] | [wanted, rest @ ..], [byte, tail @ ..]) => {
            wanted == byte && matches(rest, tail)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_shells() {
        let fits = |pattern: &str, text: &str| matches(pattern.as_bytes(), text.as_bytes());
        assert!(fits("io.katacontainers.*", "io.katacontainers.config"));
        assert!(fits("*.example.com/*", "a.example.com/key") && fits("a?c", "abc") && fits("*", "plain"));
        assert!(!fits("io.*", "io.a/b") && !fits("a", "ab") && !fits("", "a") && !fits("a?", "a"));
    }
}
