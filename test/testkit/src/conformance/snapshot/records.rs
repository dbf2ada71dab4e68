//! What is told of snapshots.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use berth_core::{SnapshotCommit, Snapshotter};
use berth_types::filter::Filters;
use berth_types::{ErrorKind, FieldMask, SnapshotKind};

use super::{Fixture, key, labels, new};
use crate::Scratch;

fn kind<T: std::fmt::Debug>(result: berth_types::Result<T>) -> ErrorKind {
    result.expect_err("this has to fail").kind()
}

pub(super) async fn an_active_snapshot_becomes_a_committed_one(f: Fixture) {
    let before = SystemTime::now();
    f.prepare("active", "").await.expect("prepare");
    let info = f.snapshots().stat(&key("active")).await.expect("stat");
    assert_eq!((info.kind, info.key, info.parent), (SnapshotKind::Active, key("active"), None));
    assert_eq!(info.created_at, info.updated_at);
    assert!(info.created_at >= before && info.created_at <= SystemTime::now());
    f.commit("base", "active").await.expect("commit");
    assert_eq!(kind(f.snapshots().stat(&key("active")).await), ErrorKind::NotFound);
    let info = f.snapshots().stat(&key("base")).await.expect("stat");
    assert_eq!((info.kind, info.parent), (SnapshotKind::Committed, None));
    f.prepare("active", "base").await.expect("the name is free again");
    let info = f.snapshots().stat(&key("active")).await.expect("stat");
    assert_eq!(info.parent, Some(key("base")));
    f.view("view", "base").await.expect("view");
    let info = f.snapshots().stat(&key("view")).await.expect("stat");
    assert_eq!((info.kind, info.parent), (SnapshotKind::View, Some(key("base"))));
}

pub(super) async fn names_are_taken_once(f: Fixture) {
    f.layer("base", "", |_| {}).await;
    f.prepare("a", "").await.expect("prepare");
    f.prepare("b", "base").await.expect("prepare");
    assert_eq!(kind(f.prepare("a", "").await), ErrorKind::AlreadyExists);
    assert_eq!(kind(f.prepare("base", "").await), ErrorKind::AlreadyExists);
    assert_eq!(kind(f.view("b", "base").await), ErrorKind::AlreadyExists);
    assert_eq!(kind(f.commit("base", "a").await), ErrorKind::AlreadyExists);
    assert_eq!(kind(f.commit("b", "a").await), ErrorKind::AlreadyExists);
    f.commit("c", "a").await.expect("the failed commits changed nothing");
}

pub(super) async fn parents_have_to_be_committed(f: Fixture) {
    f.prepare("active", "").await.expect("prepare");
    f.layer("base", "", |_| {}).await;
    f.view("view", "base").await.expect("view");
    for parent in ["active", "view"] {
        assert_eq!(kind(f.prepare("new", parent).await), ErrorKind::InvalidArgument, "{parent}");
        assert_eq!(kind(f.view("new", parent).await), ErrorKind::InvalidArgument, "{parent}");
    }
    assert_eq!(kind(f.prepare("new", "missing").await), ErrorKind::NotFound);
    assert_eq!(kind(f.view("new", "missing").await), ErrorKind::NotFound);
    f.prepare("new", "base").await.expect("the name is still free");
}

pub(super) async fn what_has_children_stays(f: Fixture) {
    f.layer("one", "", |_| {}).await;
    f.layer("two", "one", |_| {}).await;
    f.prepare("active", "two").await.expect("prepare");
    f.view("view", "two").await.expect("view");
    for parent in ["one", "two"] {
        assert_eq!(kind(f.snapshots().remove(&key(parent)).await), ErrorKind::FailedPrecondition);
    }
    f.snapshots().remove(&key("active")).await.expect("remove a leaf");
    assert_eq!(kind(f.snapshots().remove(&key("two")).await), ErrorKind::FailedPrecondition);
    for leaf in ["view", "two", "one"] {
        f.snapshots().remove(&key(leaf)).await.expect("remove a leaf");
    }
    assert!(f.snapshots().list(&Filters::default()).await.expect("list").is_empty());
}

pub(super) async fn what_is_not_there_is_not_found(f: Fixture) {
    let (missing, s) = (key("missing"), f.snapshots());
    assert_eq!(kind(s.stat(&missing).await), ErrorKind::NotFound);
    assert_eq!(kind(s.usage(&missing).await), ErrorKind::NotFound);
    assert_eq!(kind(s.mounts(&missing).await), ErrorKind::NotFound);
    assert_eq!(kind(s.remove(&missing).await), ErrorKind::NotFound);
    assert_eq!(kind(s.commit(&key("x"), &missing, labels(&[])).await), ErrorKind::NotFound);
    assert_eq!(kind(s.update(&missing, labels(&[]), &FieldMask::all()).await), ErrorKind::NotFound);
}

pub(super) async fn only_labels_change(f: Fixture) {
    f.layer("base", "", |_| {}).await;
    f.prepare("active", "base").await.expect("prepare");
    f.view("view", "base").await.expect("view");
    for name in ["base", "active", "view"] {
        let (name, s) = (key(name), f.snapshots());
        let before = s.stat(&name).await.expect("stat");
        let all = labels(&[("one", "1"), ("two", "2"), ("three", "3")]);
        let after = s.update(&name, all.clone(), &FieldMask::all()).await.expect("update");
        assert_eq!(after.labels, all);
        assert_eq!((after.kind, after.created_at), (before.kind, before.created_at));
        assert_eq!((&after.parent, &after.key), (&before.parent, &name));
        assert!(after.updated_at >= before.updated_at);
        let some = labels(&[("one", "changed"), ("four", "4")]);
        let mask = FieldMask::new(["labels.one", "labels.two"]);
        let after = s.update(&name, some, &mask).await.expect("update");
        assert_eq!(after.labels, labels(&[("one", "changed"), ("three", "3")]));
        let after =
            s.update(&name, labels(&[("x", "y")]), &FieldMask::new(["labels"])).await.expect("update");
        assert_eq!(after.labels, labels(&[("x", "y")]));
        assert_eq!(s.stat(&name).await.expect("stat"), after);
        for field in ["parent", "kind", "name"] {
            let refused = s.update(&name, labels(&[]), &FieldMask::new([field])).await;
            assert_eq!(kind(refused), ErrorKind::InvalidArgument, "{field}");
        }
    }
}

pub(super) async fn labels_do_not_pass_to_the_committed_one(f: Fixture) {
    let mut request = new("active", "");
    request.labels = labels(&[("mine", "1")]);
    f.snapshots().prepare(request).await.expect("prepare");
    let info = f.snapshots().stat(&key("active")).await.expect("stat");
    assert_eq!(info.labels, labels(&[("mine", "1")]));
    let committed = labels(&[("other", "2")]);
    f.snapshots().commit(&key("base"), &key("active"), committed.clone()).await.expect("commit");
    assert_eq!(f.snapshots().stat(&key("base")).await.expect("stat").labels, committed);
    let mut request = new("too-long", "");
    request.labels = labels(&[("long", &"x".repeat(5000))]);
    assert_eq!(kind(f.snapshots().prepare(request).await), ErrorKind::InvalidArgument);
}

pub(super) async fn filters_choose(f: Fixture) {
    f.layer("base", "", |_| {}).await;
    for (name, parent, value) in [("a", "base", "1"), ("b", "base", "2"), ("c", "", "2")] {
        let mut request = new(name, parent);
        request.labels = labels(&[("l", value)]);
        f.snapshots().prepare(request).await.expect("prepare");
    }
    f.view("v", "base").await.expect("view");
    for (filters, expected) in [
        (&[][..], "a b base c v"),
        (&["kind==active"], "a b c"),
        (&["kind==committed", "kind==view"], "base v"),
        (&["parent==base"], "a b v"),
        (&["name==b"], "b"),
        (&["labels.l==2"], "b c"),
        (&["labels.l==2,parent==base"], "b"),
        (&["name==nothing"], ""),
    ] {
        let found = f.snapshots().list(&Filters::parse(filters).expect("a filter")).await.expect("list");
        let names: BTreeSet<String> = found.iter().map(|info| info.key.to_string()).collect();
        let expected: BTreeSet<String> = expected.split_whitespace().map(str::to_owned).collect();
        assert_eq!(names, expected, "{filters:?}");
    }
    for info in f.snapshots().list(&Filters::default()).await.expect("list") {
        assert_eq!(f.snapshots().stat(&info.key).await.expect("stat"), info);
    }
}

pub(super) async fn committed_snapshots_have_no_mounts(f: Fixture) {
    f.layer("base", "", |_| {}).await;
    assert_eq!(kind(f.snapshots().mounts(&key("base")).await), ErrorKind::FailedPrecondition);
    assert_eq!(kind(f.commit("again", "base").await), ErrorKind::FailedPrecondition);
    let view = f.view("view", "base").await.expect("view");
    assert_eq!(f.snapshots().mounts(&key("view")).await.expect("mounts"), view);
    assert_eq!(kind(f.commit("seen", "view").await), ErrorKind::FailedPrecondition);
    let active = f.prepare("active", "base").await.expect("prepare");
    assert_eq!(f.snapshots().mounts(&key("active")).await.expect("mounts"), active);
}

pub(super) async fn one_of_many_makers_of_a_name_wins(f: Fixture) {
    f.layer("base", "", |_| {}).await;
    let tries = (0..8).map(|_| f.prepare("same", "base"));
    let results = futures::future::join_all(tries).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for result in results {
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        }
    }
    let commits = futures::future::join_all((0..8).map(|_| f.commit("done", "same"))).await;
    assert_eq!(commits.iter().filter(|result| result.is_ok()).count(), 1);
    assert_eq!(f.snapshots().stat(&key("done")).await.expect("stat").parent, Some(key("base")));
}

pub(super) async fn everything_is_there_after_reopening(open: &impl Fn(&Path) -> Arc<dyn Snapshotter>) {
    let scratch = Scratch::new();
    let root = scratch.path("root");
    let fixture = |scratch| Fixture { snapshots: Some(open(&root)), scratch };
    let mut f = fixture(scratch);
    f.layer("base", "", |point| std::fs::write(point.join("file"), "text").expect("write")).await;
    let active = f.prepare("active", "base").await.expect("prepare");
    f.view("view", "base").await.expect("view");
    f.prepare("gone", "base").await.expect("prepare");
    f.snapshots().remove(&key("gone")).await.expect("remove");
    let usage = f.snapshots().usage(&key("base")).await.expect("usage");
    let all = f.snapshots().list(&Filters::default()).await.expect("list");
    f.snapshots = None;
    f.snapshots = Some(open(&root));
    assert_eq!(f.snapshots().list(&Filters::default()).await.expect("list"), all);
    assert_eq!(f.snapshots().mounts(&key("active")).await.expect("mounts"), active);
    assert_eq!(f.snapshots().usage(&key("base")).await.expect("usage"), usage);
    f.snapshots().cleanup().await.expect("cleanup");
    let point = f.mount("active", &active);
    assert_eq!(std::fs::read_to_string(point.join("file")).expect("read"), "text");
    f.unmount("active");
    f.prepare("gone", "base").await.expect("the name is free");
}

/// A snapshotter either gives a parent with the commit, or refuses and leaves all as it was.
pub(super) async fn a_parent_can_come_with_the_commit(f: Fixture) {
    f.layer("one", "", |point| std::fs::write(point.join("one"), "1").expect("write")).await;
    f.layer("other", "", |_| {}).await;
    f.prepare("alone", "").await.expect("prepare");
    let onto = |name: &'static str, active: &'static str, parent: &'static str| {
        let (name, active, parent) = (key(name), key(active), key(parent));
        let snapshots = f.snapshots();
        async move { snapshots.commit_onto(&name, &active, &parent, labels(&[])).await }
    };
    f.prepare("placed", "one").await.expect("prepare");
    let error = onto("elsewhere", "placed", "other").await.expect_err("it has another parent");
    assert!(matches!(error.kind(), ErrorKind::InvalidArgument | ErrorKind::NotImplemented), "{error:?}");
    onto("kept", "placed", "one").await.expect("it has this parent");
    match onto("two", "alone", "one").await {
        Ok(()) => {
            let info = f.snapshots().stat(&key("two")).await.expect("stat");
            assert_eq!((info.kind, info.parent), (SnapshotKind::Committed, Some(key("one"))));
            let mounts = f.view("view", "two").await.expect("view");
            let point = f.mount("view", &mounts);
            assert_eq!(std::fs::read_to_string(point.join("one")).expect("read"), "1");
            f.unmount("view");
            f.prepare("next", "").await.expect("prepare");
            onto("three", "next", "missing").await.expect_err("there is no such parent");
            f.snapshots().remove(&key("next")).await.expect("the failed commit holds nothing");
            f.snapshots().remove(&key("view")).await.expect("remove");
            f.snapshots().remove(&key("kept")).await.expect("remove");
            let error = f.snapshots().remove(&key("one")).await.expect_err("it has a child");
            assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
            f.snapshots().remove(&key("two")).await.expect("remove");
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotImplemented, "{error:?}");
            f.snapshots().remove(&key("alone")).await.expect("it is still active");
            f.snapshots().remove(&key("kept")).await.expect("remove");
        }
    }
    f.snapshots().remove(&key("one")).await.expect("nothing builds on it any more");
}

/// Several commits are as if each was made by itself; a name that is there is taken for done.
pub(super) async fn several_are_committed_at_once(f: Fixture) {
    f.layer("there", "", |point| std::fs::write(point.join("there"), "0").expect("write")).await;
    for name in ["one", "two", "again"] {
        let parent = if name == "one" { "there" } else { "" };
        let mounts = f.prepare(&format!("{name}-active"), parent).await.expect("prepare");
        std::fs::write(f.mount(name, &mounts).join(name), name).expect("write");
        f.unmount(name);
    }
    let commit = |name: &str, active: &str, parent: Option<&str>| SnapshotCommit {
        name: key(name),
        key: key(&format!("{active}-active")),
        parent: parent.map(key),
        labels: labels(&[]),
    };
    let all = |commits: Vec<SnapshotCommit>| f.snapshots().commit_all(commits);
    let missing = vec![commit("first", "two", None), commit("second", "missing", None)];
    let error = all(missing).await.expect_err("one of them is not there");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    if f.snapshots().stat(&key("first")).await.is_ok() {
        // It was done before the other one failed.
        f.snapshots().remove(&key("first")).await.expect("remove");
        let mounts = f.prepare("two-active", "").await.expect("prepare");
        std::fs::write(f.mount("two", &mounts).join("two"), "two").expect("write");
        f.unmount("two");
    }
    let chain = vec![
        commit("there", "again", None),
        commit("one", "one", Some("there")),
        commit("two", "two", Some("one")),
    ];
    match all(chain.clone()).await {
        Ok(()) => {
            let info = f.snapshots().stat(&key("two")).await.expect("stat");
            assert_eq!((info.kind, info.parent), (SnapshotKind::Committed, Some(key("one"))));
            let mounts = f.view("view", "two").await.expect("view");
            let point = f.mount("view", &mounts);
            for (name, text) in [("there", "0"), ("one", "one"), ("two", "two")] {
                assert_eq!(std::fs::read_to_string(point.join(name)).expect("read"), text);
            }
            f.unmount("view");
            assert!(f.snapshots().usage(&key("two")).await.expect("usage").inodes >= 2);
        }
        // A parent cannot come with the commit.
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotImplemented, "{error:?}");
            let without = SnapshotCommit { parent: None, ..chain[2].clone() };
            let rest = if f.snapshots().stat(&key("one")).await.is_ok() {
                vec![without]
            } else {
                vec![chain[0].clone(), chain[1].clone(), without]
            };
            all(rest).await.expect("none gets a parent");
            for name in ["one", "two"] {
                let kind = f.snapshots().stat(&key(name)).await.expect("stat").kind;
                assert_eq!(kind, SnapshotKind::Committed);
            }
        }
    }
    let left = f.snapshots().stat(&key("again-active")).await.expect_err("it was needless");
    assert_eq!(left.kind(), ErrorKind::NotFound);
}
