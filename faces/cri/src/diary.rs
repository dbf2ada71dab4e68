//! What is being done for a pod, and what was done last: for people who ask where one hangs.
//!
//! A [`Diary`] belongs to a pod and goes with it; of calls that failed the last ones are kept beyond that in
//! [`Failures`], since a kubelet makes its next try under another id. Nothing of it is stored: it is what this daemon
//! has seen.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use berth_types::Result;
use serde::Serialize;
use serde_json::{Value, json};
use tracing::Instrument as _;

use crate::time::nanoseconds;

/// The calls that are kept of a pod: its life, and that of its containers, many times over.
const CALLS: usize = 64;
/// The failures that are kept of all pods.
const FAILURES: usize = 32;

/// What was done for a pod, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Diary(Mutex<VecDeque<Arc<Mutex<Call>>>>);

/// A request of the kubelet's.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    /// The request, and what of the pod it is about.
    call: String,
    #[serde(flatten)]
    span: Span,
    steps: Vec<Step>,
}

/// A part of its work.
#[derive(Clone, Debug, Serialize)]
struct Step {
    step: String,
    #[serde(flatten)]
    span: Span,
}

/// When something began, how long it took or has been taking, and how it ended.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Span {
    /// Nanoseconds since 1970.
    began: i64,
    #[serde(skip)]
    since: Instant,
    /// None while it goes on.
    #[serde(skip)]
    took: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Span {
    fn begin() -> Self {
        Self { began: nanoseconds(SystemTime::now()), since: Instant::now(), took: None, error: None }
    }

    fn end<T>(&mut self, result: &Result<T>) {
        self.took = Some(self.since.elapsed());
        self.error = result.as_ref().err().map(berth_types::Error::chain);
    }

    /// Adds what only a clock knows.
    fn told(&self, mut value: Value) -> Value {
        value["isOver"] = json!(self.took.is_some());
        value["seconds"] = json!(self.took.unwrap_or_else(|| self.since.elapsed()).as_secs_f64());
        value
    }
}

impl Call {
    fn told(&self) -> Value {
        let mut value = self.span.told(json!(self));
        value["steps"] = self.steps.iter().map(|step| step.span.told(json!(step))).collect();
        value
    }
}

impl Diary {
    /// Begins a call.
    pub(crate) fn begin(&self, call: impl Into<String>) -> Work {
        let call = Arc::new(Mutex::new(Call { call: call.into(), span: Span::begin(), steps: Vec::new() }));
        let mut calls = lock(&self.0);
        if calls.len() == CALLS {
            calls.pop_front();
        }
        calls.push_back(call.clone());
        Work(call)
    }

    /// All of it, for people.
    pub(crate) fn told(&self) -> Value {
        lock(&self.0).iter().map(|call| lock(call).told()).collect()
    }
}

/// A call that is being worked on. One that nobody ends was given up.
#[derive(Debug)]
pub(crate) struct Work(Arc<Mutex<Call>>);

impl Work {
    /// Does a part of it.
    pub(crate) async fn step<T>(
        &self,
        what: impl Into<String>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let what = what.into();
        let traced = tracing::info_span!(target: "otel", "step", otel.name = what);
        let number = {
            let mut call = lock(&self.0);
            call.steps.push(Step { step: what, span: Span::begin() });
            call.steps.len() - 1
        };
        let result = work.instrument(traced).await;
        lock(&self.0).steps[number].span.end(&result);
        result
    }

    /// Ends it, as `result` says.
    pub(crate) fn end<T>(&self, result: &Result<T>) {
        lock(&self.0).span.end(result);
    }

    /// What it came to, for people.
    pub(crate) fn told(&self) -> Value {
        lock(&self.0).told()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let mut call = lock(&self.0);
        if call.span.took.is_none() {
            call.span.took = Some(call.span.since.elapsed());
            call.span.error = Some("it was given up".to_owned());
        }
    }
}

/// The last calls that failed, of pods that may be gone, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<VecDeque<Value>>);

impl Failures {
    /// Keeps one, with what says whose it is.
    pub(crate) fn keep(&self, pod: Value, work: &Work) {
        let mut failures = lock(&self.0);
        if failures.len() == FAILURES {
            failures.pop_front();
        }
        let mut value = pod;
        value["failed"] = work.told();
        failures.push_back(value);
    }

    /// All of them, for people.
    pub(crate) fn told(&self) -> Value {
        lock(&self.0).iter().cloned().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use berth_types::Error;

    use super::*;

    #[tokio::test]
    async fn a_diary_tells_what_goes_on_what_failed_and_what_was_given_up() {
        let diary = Diary::default();
        let work = diary.begin("RunPodSandbox");
        work.step("files", async { Ok(()) }).await.unwrap();
        let failed = work.step("network", async { Err::<(), _>(Error::unavailable("no address")) }).await;
        let told = diary.told();
        assert_eq!(told[0]["isOver"], false);
        assert_eq!(told[0]["steps"][1]["error"], "no address");
        assert_eq!(told[0]["steps"][0].get("error"), None);
        work.end(&failed);
        drop(work);
        drop(diary.begin("StopPodSandbox"));
        let told = diary.told();
        assert_eq!((&told[0]["error"], &told[1]["error"]), (&json!("no address"), &json!("it was given up")));
    }

    #[test]
    fn old_calls_and_failures_make_room() {
        let (diary, failures) = (Diary::default(), Failures::default());
        for number in 0..CALLS + 10 {
            let work = diary.begin(format!("call {number}"));
            failures.keep(json!({}), &work);
        }
        assert_eq!(diary.told().as_array().map(Vec::len), Some(CALLS));
        assert_eq!(diary.told()[0]["call"], "call 10");
        assert_eq!(failures.told().as_array().map(Vec::len), Some(FAILURES));
    }
}
