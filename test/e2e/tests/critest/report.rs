//! What critest reports, in ginkgo's JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

/// What is skipped on some machines, and why.
const SKIPPED: [(&str, &str); 3] = [
    ("AppArmor", "the kernel has none here; test/vm has one"),
    ("benchmark", "no test"),
    ("SELinux", "the kernel has none"),
];

/// Names of specs by what became of them.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Those that passed.
    pub(crate) passed: BTreeSet<String>,
    /// Those that did not, with what was said.
    pub(crate) failed: BTreeMap<String, String>,
    skipped: BTreeMap<String, String>,
}

impl Report {
    /// Reads a report; none when there is none.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let text = std::fs::read(path).ok()?;
        let suites: Value = serde_json::from_slice(&text).expect("ginkgo writes JSON");
        let mut report = Self::default();
        for spec in suites[0]["SpecReports"].as_array().expect("a report has specs") {
            report.take(spec);
        }
        Some(report)
    }

    fn take(&mut self, spec: &Value) {
        let outer = spec["ContainerHierarchyTexts"].as_array().into_iter().flatten();
        let words = outer.chain([&spec["LeafNodeText"]]).filter_map(Value::as_str);
        let name = words.collect::<Vec<_>>().join(" ");
        let why = spec["Failure"]["Message"].as_str().unwrap_or_default().to_owned();
        match spec["State"].as_str() {
            Some("passed") => drop(self.passed.insert(name)),
            // Without a reason it belongs to the other half.
            Some("skipped") if why.is_empty() => {}
            Some("skipped") => drop(self.skipped.insert(name, why)),
            _ => drop(self.failed.insert(name, why)),
        }
    }

    /// Demands that nothing failed, that nothing was skipped but what is known, and that at least so many passed.
    #[track_caller]
    pub(crate) fn demand(&self, least: usize) {
        assert!(self.failed.is_empty(), "failed: {:#?}", self.failed);
        let is_new = |name: &str| SKIPPED.iter().all(|(words, _)| !name.contains(words));
        let skipped: Vec<_> = self.skipped.iter().filter(|(name, _)| is_new(name)).collect();
        assert!(skipped.is_empty(), "skipped: {skipped:#?}");
        assert!(self.passed.len() >= least, "only {} passed", self.passed.len());
    }
}
