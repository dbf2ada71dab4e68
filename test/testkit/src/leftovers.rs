//! What a test left on the machine that it should not have.

use std::fmt;

use crate::{Scratch, cgroups, mounts, processes, wait};

/// Everything that still carries a tag.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Leftovers(Vec<String>);

impl Leftovers {
    /// Looks for processes, mounts, cgroups of containers and runtime state of `scratch`.
    ///
    /// An empty cgroup or state folder of a namespace is none: containerd leaves those too.
    pub fn of(scratch: &Scratch) -> Self {
        let tag = scratch.tag();
        let mut found = Vec::new();
        found.extend(processes::tagged(tag).iter().map(|one| format!("process {} {}", one.pid, one.command)));
        found.extend(
            mounts::beneath(scratch.folder()).iter().map(|point| format!("mount {}", point.display())),
        );
        found.extend(containers_in(&cgroups::tagged(tag), tag).map(|path| format!("cgroup {path}")));
        found.extend(containers_in(&scratch.shared_state(), "").map(|path| format!("state {path}")));
        Self(found)
    }

    /// Demands that nothing is left within a minute: exits are told before all is torn down.
    #[track_caller]
    pub fn none(scratch: &Scratch) {
        let mut last = Self::default();
        let deadline = std::time::Instant::now() + wait::SOON / 4;
        wait::until("nothing but the report", wait::SOON, || {
            last = Self::of(scratch);
            (last.0.is_empty() || std::time::Instant::now() > deadline).then_some(())
        });
        assert!(last.0.is_empty(), "left behind:\n  {last}");
    }
}

/// The folders one below those given: cgroups and state of single containers. A cgroup whose own
/// name is a container's (in a namespace without the tag) counts itself.
fn containers_in<'a>(parents: &'a [std::path::PathBuf], tag: &'a str) -> impl Iterator<Item = String> + 'a {
    parents.iter().flat_map(move |parent| {
        let is_namespace = parent.file_name().is_some_and(|name| name.to_string_lossy().ends_with(tag));
        let children = std::fs::read_dir(parent).into_iter().flatten().flatten();
        let children = children.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut found: Vec<String> = children.map(|entry| entry.path().display().to_string()).collect();
        if !is_namespace {
            found.push(parent.display().to_string());
        }
        found
    })
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n  "))
    }
}
