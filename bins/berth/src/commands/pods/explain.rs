//! `pods explain`: one screen that says where a pod hangs, or what failed last.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use berth_client::Pods as Remote;
use berth_proto::runtime::v1 as proto;
use berth_workload::human;
use clap::Args;

use super::underway::{Call, Failed, Span, Underway};
use super::{Found, Name, find};
use crate::failure::{Failure, Outcome};
use crate::output;

/// Calls that are shown: the last ones, and every one that goes on.
const CALLS: usize = 8;
/// Failures of earlier tries that are shown.
const FAILURES: usize = 3;

/// Flags of `pods explain`.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    #[command(flatten)]
    name: Name,
}

/// What is known of a pod.
#[derive(Default)]
struct Known {
    pod: Found,
    /// None while it is being made.
    status: Option<proto::PodSandboxStatus>,
    calls: Vec<Call>,
    containers: Vec<proto::ContainerStatus>,
    failures: Vec<Failed>,
}

impl Explain {
    pub(super) async fn run(self, pods: &Remote) -> Outcome {
        let underway = Underway::of(pods).await?;
        let text = &self.name.pod;
        let found = find(pods, &underway, text).await?;
        let failures: Vec<Failed> =
            underway.failures.into_iter().filter(|failed| failed.pod.is(text)).collect();
        let Some(pod) = found else {
            let Some(last) = failures.last() else {
                return Err(Failure::new(format!(
                    "no such pod: {text} is neither there nor being made, and no call for it failed lately: \
                     has the kubelet asked for it? (berth pods ps)"
                )));
            };
            let known = Known { pod: last.pod.clone(), failures, ..Known::default() };
            output::text(&known.told())?;
            return Ok(0);
        };
        let is_making = underway.making.contains(&pod);
        let answer = pods.inspect(&pod.id).await?;
        let mut known = Known { failures, ..Known::default() };
        if let Some(text) = answer.info.get("calls") {
            known.calls = serde_json::from_str(text).map_err(|error| {
                Failure::new(format!("what was done for the pod cannot be read: {error}"))
            })?;
        }
        for container in pods.containers(&pod.id).await? {
            known.containers.push(pods.container(&container.id).await?);
        }
        known.status = answer.status.filter(|_| !is_making);
        known.pod = pod;
        output::text(&known.told())?;
        Ok(0)
    }
}

impl Known {
    fn told(&self) -> String {
        let mut text = format!("{}\n{}\n", self.title(), self.verdict());
        if !self.calls.is_empty() {
            text.push('\n');
            text.push_str(&output::table::align(&self.lines()));
        }
        if !self.containers.is_empty() {
            text.push_str("\nContainers:\n");
            let lines: Vec<String> = self.containers.iter().map(container).collect();
            text.push_str(&output::table::align(&lines));
        }
        let earlier = self.failures.len().saturating_sub(FAILURES);
        if !self.failures.is_empty() {
            text.push_str("\nFailed lately:\n");
        }
        for Failed { failed, .. } in &self.failures[earlier..] {
            let error = failed.span.error.as_deref().unwrap_or("without a word");
            // Writing to a text cannot fail.
            let _ = writeln!(text, "  {} {}: {error}", failed.call, ago(&failed.span));
        }
        text
    }

    fn title(&self) -> String {
        let Found { id, namespace, name, attempt } = &self.pod;
        let short = id.get(..13).unwrap_or(id);
        let of = if short.is_empty() { String::new() } else { format!(" ({short}, attempt {attempt})") };
        let Some(status) = &self.status else {
            let what = if self.calls.is_empty() { "is not there" } else { "is being made" };
            return format!("Pod {namespace}/{name}{of} {what}.");
        };
        let state =
            if status.state() == proto::PodSandboxState::SandboxReady { "ready" } else { "not ready" };
        let made = UNIX_EPOCH + Duration::from_nanos(status.created_at.unsigned_abs());
        let address = match &status.network {
            Some(network) if !network.ip.is_empty() => format!(", address {}", network.ip),
            _ => String::new(),
        };
        format!("Pod {namespace}/{name}{of} is {state}, made {}{address}.", human::ago(made))
    }

    /// What to know first.
    fn verdict(&self) -> String {
        let going: Vec<&Call> = self.calls.iter().filter(|call| !call.span.is_over).collect();
        if let Some(call) = going.first() {
            let step = call.steps.iter().rev().find(|step| !step.span.is_over);
            let part = step.map_or_else(String::new, |step| {
                format!(", for the last {} with: {}", seconds(step.span.seconds), step.step)
            });
            return format!("{} has been going on for {}{part}.", call.call, seconds(call.span.seconds));
        }
        if let Some(call) = self.calls.last()
            && let Some(error) = &call.span.error
        {
            return format!("Nothing is under way. {} failed {}: {error}", call.call, ago(&call.span));
        }
        if self.status.is_none() && !self.failures.is_empty() {
            return "Nothing is under way: its last try failed, and the kubelet has not made the next."
                .to_owned();
        }
        "Nothing is under way, and nothing failed last.".to_owned()
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec!["CALL\tBEGAN\tTOOK\tEND".to_owned()];
        let old = self.calls.len().saturating_sub(CALLS);
        let shown = self.calls.iter().enumerate().filter(|(at, call)| *at >= old || !call.span.is_over);
        for (_, call) in shown {
            lines.push(format!(
                "{}\t{}\t{}\t{}",
                call.call,
                ago(&call.span),
                took(&call.span),
                end(&call.span)
            ));
            for step in call.steps.iter().filter(|step| is_worth_a_line(&step.span)) {
                lines.push(format!("  {}\t\t{}\t{}", step.step, took(&step.span), end(&step.span)));
            }
        }
        lines
    }
}

/// Whether a step can be what somebody looks for.
fn is_worth_a_line(span: &Span) -> bool {
    !span.is_over || span.error.is_some() || span.seconds >= 0.001
}

fn container(status: &proto::ContainerStatus) -> String {
    let metadata = status.metadata.clone().unwrap_or_default();
    let at = |nanoseconds: i64| human::ago(UNIX_EPOCH + Duration::from_nanos(nanoseconds.unsigned_abs()));
    let state = match status.state() {
        proto::ContainerState::ContainerRunning => format!("running, started {}", at(status.started_at)),
        proto::ContainerState::ContainerExited => {
            let why = if status.message.is_empty() { String::new() } else { format!(": {}", status.message) };
            format!("ended {} with {} ({}){why}", at(status.finished_at), status.exit_code, status.reason)
        }
        proto::ContainerState::ContainerCreated => "made, not started".to_owned(),
        proto::ContainerState::ContainerUnknown => "unknown".to_owned(),
    };
    let image = status.image.clone().unwrap_or_default().image;
    format!("  {}\tattempt {}\t{image}\t{state}", metadata.name, metadata.attempt)
}

fn ago(span: &Span) -> String {
    human::ago(UNIX_EPOCH + Duration::from_nanos(span.began.unsigned_abs()))
}

fn took(span: &Span) -> String {
    if span.is_over { seconds(span.seconds) } else { format!("{} so far", seconds(span.seconds)) }
}

fn end(span: &Span) -> &str {
    match (&span.error, span.is_over) {
        (Some(error), _) => error,
        (None, true) => "well",
        (None, false) => "goes on",
    }
}

/// `870µs`, `25ms`, `12.3s`, `5m12s`.
fn seconds(seconds: f64) -> String {
    match seconds {
        short if short < 0.001 => format!("{:.0}µs", short * 1e6),
        short if short < 1.0 => format!("{:.0}ms", short * 1e3),
        short if short < 60.0 => format!("{short:.1}s"),
        long => format!("{:.0}m{:02.0}s", (long / 60.0).floor(), (long % 60.0).floor()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn calls() -> Vec<Call> {
        let calls = json!([
            { "call": "RunPodSandbox", "began": 1, "seconds": 0.025, "isOver": true, "steps": [
                { "step": "network", "began": 1, "seconds": 0.0201, "isOver": true } ] },
            { "call": "StartContainer web", "began": 2, "seconds": 75.0, "isOver": false, "steps": [
                { "step": "image", "began": 2, "seconds": 0.0004, "isOver": true },
                { "step": "make its task", "began": 2, "seconds": 12.34, "isOver": false } ] },
        ]);
        serde_json::from_value(calls).unwrap()
    }

    #[test]
    fn what_hangs_is_said_first() {
        let pod = Found { namespace: "default".into(), name: "web".into(), ..Found::default() };
        let known = Known { pod, calls: calls(), ..Known::default() };
        let told = known.told();
        let mut lines = told.lines();
        assert_eq!(lines.next(), Some("Pod default/web is being made."));
        assert_eq!(
            lines.next(),
            Some("StartContainer web has been going on for 1m15s, for the last 12.3s with: make its task.")
        );
        assert!(told.contains("  make its task") && told.contains("12.3s so far"), "{told}");
        assert!(told.contains("20ms") && !told.contains("400µs"), "{told}");
    }

    #[test]
    fn a_pod_whose_last_try_failed_is_explained_by_it() {
        let failures = json!([{ "namespace": "default", "name": "web", "failed":
            { "call": "RunPodSandbox", "began": 1, "seconds": 5.0, "isOver": true, "error": "no address is left" } }]);
        let failures: Vec<Failed> = serde_json::from_value(failures).unwrap();
        let known = Known { pod: failures[0].pod.clone(), failures, ..Known::default() };
        let told = known.told();
        assert!(
            told.starts_with("Pod default/web is not there.\nNothing is under way: its last try failed"),
            "{told}"
        );
        assert!(told.contains("no address is left"), "{told}");
    }
}
