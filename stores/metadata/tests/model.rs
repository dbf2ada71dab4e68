//! The records beside a model of them: whatever is done in whatever order, over restarts, the
//! answers are those of plain maps.

#![expect(clippy::unwrap_used, reason = "what fails in a test has failed the test")]

mod common;

use std::collections::BTreeMap;

use berth_core::{Deletion, Scope};
use berth_types::filter::Filters;
use berth_types::{ContainerUpdate, ErrorKind, FieldMask, Labels, LeaseResource};
use common::objects::{digest, labels};
use common::{Store, open, scope};
use proptest::prelude::*;
use testkit::Scratch;

/// One thing to do; numbers name namespaces and objects.
#[derive(Clone, Debug)]
enum Step {
    CreateImage(usize, usize),
    LabelImage(usize, usize, u8),
    DeleteImage(usize, usize),
    CreateContainer(usize, usize),
    LabelContainer(usize, usize, u8),
    DeleteContainer(usize, usize),
    CreateLease(usize, usize),
    AddResource(usize, usize, usize),
    DeleteResource(usize, usize, usize),
    DeleteLease(usize, usize),
    Prepare(usize, usize, Option<usize>),
    Commit(usize, usize),
    Remove(usize, usize),
    DeleteNamespace(usize),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let (n, o) = (|| 0..2_usize, || 0..3_usize);
    prop_oneof![
        (n(), o()).prop_map(|(n, o)| Step::CreateImage(n, o)),
        (n(), o(), 0..3_u8).prop_map(|(n, o, value)| Step::LabelImage(n, o, value)),
        (n(), o()).prop_map(|(n, o)| Step::DeleteImage(n, o)),
        (n(), o()).prop_map(|(n, o)| Step::CreateContainer(n, o)),
        (n(), o(), 0..3_u8).prop_map(|(n, o, value)| Step::LabelContainer(n, o, value)),
        (n(), o()).prop_map(|(n, o)| Step::DeleteContainer(n, o)),
        (n(), o()).prop_map(|(n, o)| Step::CreateLease(n, o)),
        (n(), o(), o()).prop_map(|(n, o, r)| Step::AddResource(n, o, r)),
        (n(), o(), o()).prop_map(|(n, o, r)| Step::DeleteResource(n, o, r)),
        (n(), o()).prop_map(|(n, o)| Step::DeleteLease(n, o)),
        (n(), o(), proptest::option::of(o())).prop_map(|(n, o, parent)| Step::Prepare(n, o, parent)),
        (n(), o()).prop_map(|(n, o)| Step::Commit(n, o)),
        (n(), o()).prop_map(|(n, o)| Step::Remove(n, o)),
        n().prop_map(Step::DeleteNamespace),
        Just(Step::Reopen),
    ]
}

/// Active snapshots are `a-N`, committed ones `c-N`.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    images: BTreeMap<String, Labels>,
    containers: BTreeMap<String, Labels>,
    leases: BTreeMap<String, Vec<String>>,
    snapshots: BTreeMap<String, Option<String>>,
    exists: bool,
}

type Outcome = Result<(), ErrorKind>;

fn label(value: u8) -> Labels {
    if value == 0 { Labels::new() } else { labels(&[("k", value.to_string())]) }
}

impl Model {
    fn relabel(map: &mut BTreeMap<String, Labels>, name: &str, value: u8) -> Outcome {
        let labels = map.get_mut(name).ok_or(ErrorKind::NotFound)?;
        *labels = label(value);
        Ok(())
    }

    fn insert<T>(
        &mut self,
        map: impl Fn(&mut Self) -> &mut BTreeMap<String, T>,
        name: String,
        value: T,
    ) -> Outcome {
        if map(self).contains_key(&name) {
            return Err(ErrorKind::AlreadyExists);
        }
        map(self).insert(name, value);
        self.exists = true;
        Ok(())
    }

    fn remove<T>(map: &mut BTreeMap<String, T>, name: &str) -> Outcome {
        map.remove(name).map(drop).ok_or(ErrorKind::NotFound)
    }

    fn apply(&mut self, step: &Step) -> Outcome {
        match *step {
            Step::CreateImage(_, o) => self.insert(|model| &mut model.images, format!("i{o}"), label(1)),
            Step::LabelImage(_, o, value) => Self::relabel(&mut self.images, &format!("i{o}"), value),
            Step::DeleteImage(_, o) => Self::remove(&mut self.images, &format!("i{o}")),
            Step::CreateContainer(_, o) => {
                self.insert(|model| &mut model.containers, format!("c{o}"), label(1))
            }
            Step::LabelContainer(_, o, value) => Self::relabel(&mut self.containers, &format!("c{o}"), value),
            Step::DeleteContainer(_, o) => Self::remove(&mut self.containers, &format!("c{o}")),
            Step::CreateLease(_, o) => self.insert(|model| &mut model.leases, format!("l{o}"), Vec::new()),
            Step::DeleteLease(_, o) => Self::remove(&mut self.leases, &format!("l{o}")),
            Step::AddResource(_, o, r) => {
                let held = self.leases.get_mut(&format!("l{o}")).ok_or(ErrorKind::NotFound)?;
                let id = format!("r{r}");
                if !held.contains(&id) {
                    held.push(id);
                    held.sort();
                }
                Ok(())
            }
            Step::DeleteResource(_, o, r) => {
                let held = self.leases.get_mut(&format!("l{o}")).ok_or(ErrorKind::NotFound)?;
                held.retain(|id| *id != format!("r{r}"));
                Ok(())
            }
            Step::Prepare(_, o, parent) => {
                let name = format!("a-{o}");
                if self.snapshots.contains_key(&name) {
                    return Err(ErrorKind::AlreadyExists);
                }
                let parent = parent.map(|parent| format!("c-{parent}"));
                if parent.as_ref().is_some_and(|parent| !self.snapshots.contains_key(parent)) {
                    return Err(ErrorKind::NotFound);
                }
                self.insert(|model| &mut model.snapshots, name, parent)
            }
            Step::Commit(_, o) => {
                let (name, active) = (format!("c-{o}"), format!("a-{o}"));
                if self.snapshots.contains_key(&name) {
                    return Err(ErrorKind::AlreadyExists);
                }
                let parent = self.snapshots.remove(&active).ok_or(ErrorKind::NotFound)?;
                self.snapshots.insert(name, parent);
                Ok(())
            }
            Step::Remove(_, o) => {
                // Whichever there is; the committed one first.
                let name = self.victim(o);
                if self.snapshots.values().any(|parent| parent.as_ref() == Some(&name)) {
                    return Err(ErrorKind::FailedPrecondition);
                }
                Self::remove(&mut self.snapshots, &name)
            }
            Step::DeleteNamespace(_) => {
                if !(self.images.is_empty() && self.containers.is_empty() && self.snapshots.is_empty()) {
                    return Err(ErrorKind::FailedPrecondition);
                }
                if !self.exists {
                    return Err(ErrorKind::NotFound);
                }
                *self = Self::default();
                Ok(())
            }
            Step::Reopen => Ok(()),
        }
    }

    fn victim(&self, o: usize) -> String {
        let committed = format!("c-{o}");
        if self.snapshots.contains_key(&committed) { committed } else { format!("a-{o}") }
    }
}

fn place(step: &Step) -> usize {
    match *step {
        Step::CreateImage(n, _)
        | Step::LabelImage(n, _, _)
        | Step::DeleteImage(n, _)
        | Step::CreateContainer(n, _)
        | Step::LabelContainer(n, _, _)
        | Step::DeleteContainer(n, _)
        | Step::CreateLease(n, _)
        | Step::AddResource(n, _, _)
        | Step::DeleteResource(n, _, _)
        | Step::DeleteLease(n, _)
        | Step::Prepare(n, _, _)
        | Step::Commit(n, _)
        | Step::Remove(n, _)
        | Step::DeleteNamespace(n) => n,
        Step::Reopen => 0,
    }
}

fn resource(number: usize) -> LeaseResource {
    LeaseResource { id: format!("r{number}"), kind: "ingests".into() }
}

async fn apply(store: &Store, scope: &Scope, model: &Model, step: &Step) -> Outcome {
    let metadata = &store.metadata;
    let (images, containers, leases) =
        (metadata.images(scope), metadata.containers(scope), metadata.leases(scope));
    let snapshots = store.snapshots(scope);
    let done = match *step {
        Step::CreateImage(_, o) => {
            let target = berth_types::Descriptor::new("type", digest("x"), 1);
            let mut image = berth_types::Image::new(format!("i{o}").parse().unwrap(), target);
            image.labels = label(1);
            images.create(image).await.map(drop)
        }
        Step::LabelImage(_, o, value) => {
            let target = berth_types::Descriptor::new("type", digest("x"), 1);
            let mut image = berth_types::Image::new(format!("i{o}").parse().unwrap(), target);
            image.labels = label(value);
            images.update(image, &FieldMask::new(["labels.k"])).await.map(drop)
        }
        Step::DeleteImage(_, o) => {
            images.delete(&format!("i{o}").parse().unwrap(), None, Deletion::Later).await
        }
        Step::CreateContainer(_, o) => containers.create(container(o, 1)).await.map(drop),
        Step::LabelContainer(_, o, value) => {
            let mask = FieldMask::new(["labels"]);
            containers.update(ContainerUpdate { container: container(o, value), mask }).await.map(drop)
        }
        Step::DeleteContainer(_, o) => containers.delete(&format!("c{o}").parse().unwrap()).await,
        Step::CreateLease(_, o) => {
            leases.create(Some(format!("l{o}").parse().unwrap()), Labels::new()).await.map(drop)
        }
        Step::AddResource(_, o, r) => {
            leases.add_resource(&format!("l{o}").parse().unwrap(), resource(r)).await
        }
        Step::DeleteResource(_, o, r) => {
            leases.delete_resource(&format!("l{o}").parse().unwrap(), resource(r)).await
        }
        Step::DeleteLease(_, o) => leases.delete(&format!("l{o}").parse().unwrap(), Deletion::Later).await,
        Step::Prepare(_, o, parent) => {
            let parent = parent.map(|parent| format!("c-{parent}")).unwrap_or_default();
            store.active(scope, &format!("a-{o}"), &parent, Labels::new()).await
        }
        Step::Commit(_, o) => {
            let (name, key) = (format!("c-{o}").parse().unwrap(), format!("a-{o}").parse().unwrap());
            snapshots.commit(&name, &key, Labels::new()).await
        }
        Step::Remove(_, o) => snapshots.remove(&model.victim(o).parse().unwrap()).await,
        Step::DeleteNamespace(_) => metadata.namespaces().delete(&scope.namespace).await,
        Step::Reopen => Ok(()),
    };
    done.map_err(|error| error.kind())
}

fn container(number: usize, value: u8) -> berth_types::Container {
    let runtime = berth_types::RuntimeInfo { name: "runtime".into(), options: None };
    let mut container = berth_types::Container::new(format!("c{number}").parse().unwrap(), runtime);
    container.spec = Some(berth_types::Any::new("spec", *b"{}"));
    container.labels = label(value);
    container
}

/// What the store says is there, as a model.
async fn observe(store: &Store, scope: &Scope) -> Model {
    let all = Filters::default();
    let metadata = &store.metadata;
    let images = metadata.images(scope).list(&all).await.unwrap();
    let containers = metadata.containers(scope).list(&all).await.unwrap();
    let mut leases = BTreeMap::new();
    for lease in metadata.leases(scope).list(&all).await.unwrap() {
        let held = metadata.leases(scope).resources(&lease.id).await.unwrap();
        leases.insert(lease.id.to_string(), held.into_iter().map(|resource| resource.id).collect());
    }
    let snapshots = store.snapshots(scope).list(&all).await.unwrap();
    let namespaces = metadata.namespaces().list().await.unwrap();
    Model {
        images: images.into_iter().map(|image| (image.name.to_string(), image.labels)).collect(),
        containers: containers.into_iter().map(|one| (one.id.to_string(), one.labels)).collect(),
        leases,
        snapshots: snapshots
            .into_iter()
            .map(|info| (info.key.to_string(), info.parent.map(|parent| parent.to_string())))
            .collect(),
        exists: namespaces.iter().any(|record| record.name == scope.namespace),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_answers_as_the_model_does(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let scratch = Scratch::new();
            let mut store = open(scratch.folder());
            let scopes = [scope("one"), scope("two")];
            let mut models = [Model::default(), Model::default()];
            for (index, step) in steps.iter().enumerate() {
                if matches!(step, Step::Reopen) {
                    store.metadata.close().await.unwrap();
                    drop(store);
                    store = open(scratch.folder());
                }
                let number = place(step);
                let answer = apply(&store, &scopes[number], &models[number], step).await;
                let wanted = models[number].apply(step);
                assert_eq!(answer, wanted, "step {index} of {steps:?}");
            }
            for (scope, model) in scopes.iter().zip(&models) {
                assert_eq!(&observe(&store, scope).await, model, "{steps:?}");
            }
            store.metadata.close().await.unwrap();
        });
    }
}
