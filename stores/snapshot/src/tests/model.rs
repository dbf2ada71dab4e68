//! Any sequence of calls against a model in a few lines, with openings anew between them, and every
//! place where the journal could have been cut by a crash.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use berth_core::{NewSnapshot, Snapshotter};
use berth_types::filter::Filters;
use berth_types::{ErrorKind, FieldMask, Labels, SnapshotKey, SnapshotKind};
use proptest::prelude::*;
use testkit::{Scratch, need};

use super::overlay;

#[derive(Clone, Debug)]
enum Step {
    Make(SnapshotKind, u8, Option<u8>),
    Commit(u8, u8),
    Remove(u8),
    Label(u8, u8),
    Cleanup,
    Reopen,
}

fn a_step() -> impl Strategy<Value = Step> {
    let name = || 0_u8..6;
    let made = prop_oneof![4 => Just(SnapshotKind::Active), 1 => Just(SnapshotKind::View)];
    prop_oneof![
        5 => (made, name(), proptest::option::of(name())).prop_map(|(kind, key, parent)| Step::Make(kind, key, parent)),
        4 => (name(), name()).prop_map(|(name, key)| Step::Commit(name, key)),
        3 => name().prop_map(Step::Remove),
        1 => (name(), 0_u8..9).prop_map(|(key, value)| Step::Label(key, value)),
        1 => Just(Step::Cleanup),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    kind: SnapshotKind,
    parent: Option<u8>,
    label: Option<u8>,
}

type Model = BTreeMap<u8, Known>;

fn key(name: u8) -> SnapshotKey {
    format!("name-{name}").parse().unwrap()
}

fn labels(value: u8) -> Labels {
    Labels::from([("l".to_owned(), value.to_string())])
}

/// What has to come of a step.
fn expect(model: &mut Model, step: &Step) -> Result<(), ErrorKind> {
    match *step {
        Step::Make(kind, name, parent) => {
            match parent.map(|parent| model.get(&parent).map(|known| known.kind)) {
                Some(None) => return Err(ErrorKind::NotFound),
                Some(Some(SnapshotKind::Active | SnapshotKind::View)) => {
                    return Err(ErrorKind::InvalidArgument);
                }
                Some(Some(SnapshotKind::Committed)) | None => {}
            }
            if model.contains_key(&name) {
                return Err(ErrorKind::AlreadyExists);
            }
            model.insert(name, Known { kind, parent, label: None });
        }
        Step::Commit(name, active) => {
            if model.contains_key(&name) {
                return Err(ErrorKind::AlreadyExists);
            }
            let known = model.get(&active).ok_or(ErrorKind::NotFound)?;
            if known.kind != SnapshotKind::Active {
                return Err(ErrorKind::FailedPrecondition);
            }
            let parent = known.parent;
            model.remove(&active);
            model.insert(name, Known { kind: SnapshotKind::Committed, parent, label: None });
        }
        Step::Remove(name) => {
            if !model.contains_key(&name) {
                return Err(ErrorKind::NotFound);
            }
            if model.values().any(|known| known.parent == Some(name)) {
                return Err(ErrorKind::FailedPrecondition);
            }
            model.remove(&name);
        }
        Step::Label(name, value) => model.get_mut(&name).ok_or(ErrorKind::NotFound)?.label = Some(value),
        Step::Cleanup | Step::Reopen => {}
    }
    Ok(())
}

async fn perform(snapshots: &dyn Snapshotter, step: &Step) -> Result<(), ErrorKind> {
    let done = match *step {
        Step::Make(kind, name, parent) => {
            let new = NewSnapshot { key: key(name), parent: parent.map(key), labels: Labels::new() };
            let made = if kind == SnapshotKind::View { snapshots.view(new) } else { snapshots.prepare(new) };
            made.await.map(drop)
        }
        Step::Commit(name, active) => snapshots.commit(&key(name), &key(active), Labels::new()).await,
        Step::Remove(name) => snapshots.remove(&key(name)).await,
        Step::Label(name, value) => {
            snapshots.update(&key(name), labels(value), &FieldMask::new(["labels.l"])).await.map(drop)
        }
        Step::Cleanup => snapshots.cleanup().await,
        Step::Reopen => Ok(()),
    };
    done.map_err(|error| error.kind())
}

async fn told(snapshots: &dyn Snapshotter) -> Model {
    let number = |key: &SnapshotKey| key.as_str().strip_prefix("name-").unwrap().parse().unwrap();
    let all = snapshots.list(&Filters::default()).await.unwrap();
    let known = all.into_iter().map(|info| {
        let label = info.labels.get("l").map(|value| value.parse().unwrap());
        (number(&info.key), Known { kind: info.kind, parent: info.parent.as_ref().map(number), label })
    });
    known.collect()
}

/// Every mount of an active snapshot names folders that are there.
async fn check_folders(snapshots: &dyn Snapshotter, model: &Model) {
    for (name, known) in model {
        if known.kind == SnapshotKind::Committed {
            continue;
        }
        for mount in snapshots.mounts(&key(*name)).await.unwrap() {
            let options = mount.options.iter().filter_map(|option| option.split_once('='));
            let folders =
                options.filter(|(key, _)| key.ends_with("dir")).flat_map(|(_, paths)| paths.split(':'));
            let source = (mount.kind == "bind").then_some(&*mount.source);
            for folder in folders.chain(source) {
                assert!(Path::new(folder).is_dir(), "{folder} of {name}");
            }
        }
    }
}

async fn run(root: &Path, crashed: &Path, steps: &[Step]) {
    let mut snapshots: Option<Arc<dyn Snapshotter>> = Some(overlay(root));
    let mut model = Model::new();
    let length = || fs::metadata(root.join("journal")).unwrap().len();
    // Where a crash would leave which state.
    let mut states = vec![(length(), model.clone())];
    for step in steps {
        if matches!(step, Step::Reopen) {
            // The folder is locked as long as the earlier one lives.
            drop(snapshots.take());
            snapshots = Some(overlay(root));
        }
        let current = snapshots.as_deref().unwrap();
        let expected = expect(&mut model, step);
        assert_eq!(perform(current, step).await, expected, "{step:?} on {model:?}");
        assert_eq!(told(current).await, model, "after {step:?}");
        check_folders(current, &model).await;
        states.push((length(), model.clone()));
    }
    drop(snapshots);
    let journal = fs::read(root.join("journal")).unwrap();
    for (number, (length, state)) in states.iter().enumerate() {
        let next = states.get(number + 1).map_or(journal.len() as u64, |(next, _)| *next);
        for cut in [*length, length + next.saturating_sub(*length) / 2, next.saturating_sub(1).max(*length)] {
            fs::create_dir_all(crashed).unwrap();
            fs::write(crashed.join("journal"), &journal[..cut as usize]).unwrap();
            assert_eq!(&told(&*overlay(crashed)).await, state, "cut at {cut}");
            fs::remove_dir_all(crashed).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_calls_does_what_the_model_does(steps in proptest::collection::vec(a_step(), 1..40)) {
        let Ok(()) = need::root() else { return Ok(()) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let scratch = Scratch::new();
        // Commits flush the filesystem; one in memory has nobody else's data to flush.
        let memory = scratch.path("memory");
        fs::create_dir(&memory).unwrap();
        let mount = berth_types::Mount { kind: "tmpfs".into(), source: "tmpfs".into(), ..Default::default() };
        berth_sys::mount::mount_all(&[mount], &memory).unwrap();
        runtime.block_on(run(&memory.join("root"), &memory.join("crashed"), &steps));
        berth_sys::mount::unmount_all(&memory).unwrap();
    }
}
