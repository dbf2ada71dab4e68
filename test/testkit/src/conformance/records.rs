//! What the records of a daemon have to do: namespaces, images, containers and leases, and the
//! events that tell of them. As containerd does it, whoever answers.
//!
//! ```no_run
//! # async fn test(catalog: std::sync::Arc<dyn berth_core::Catalog>) {
//! use testkit::conformance::records::{self, Records};
//! records::all(&Records::of(catalog)).await;
//! # }
//! ```
//! Each check works in a namespace of its own, which it leaves behind with what is in it.

#![expect(clippy::unwrap_used, reason = "a suite is a test, and its failures panic")]

mod containers;
mod events;
mod images;
mod leases;
mod namespaces;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use berth_core::{Catalog, Containers, Events, Images, Leases, Namespaces, Scope};
use berth_types::{Error, ErrorKind, Labels, Result};

type ByScope<T> = Box<dyn Fn(&Scope) -> Arc<T> + Send + Sync>;

/// The handles that the checks need.
pub struct Records {
    /// Namespaces.
    pub namespaces: Arc<dyn Namespaces>,
    /// Images of a namespace.
    pub images: ByScope<dyn Images>,
    /// Containers of a namespace.
    pub containers: ByScope<dyn Containers>,
    /// Leases of a namespace.
    pub leases: ByScope<dyn Leases>,
    /// Where changes are told.
    pub events: Arc<dyn Events>,
}

impl Records {
    /// Those of a catalog.
    pub fn of(catalog: Arc<dyn Catalog>) -> Self {
        let (images, containers, leases) = (Arc::clone(&catalog), Arc::clone(&catalog), Arc::clone(&catalog));
        Self {
            namespaces: catalog.namespaces(),
            images: Box::new(move |scope| images.images(scope)),
            containers: Box::new(move |scope| containers.containers(scope)),
            leases: Box::new(move |scope| leases.leases(scope)),
            events: catalog.events(),
        }
    }
}

/// Runs every check.
pub async fn all(records: &Records) {
    namespaces::a_namespace_has_labels(records).await;
    namespaces::using_one_makes_it(records).await;
    namespaces::one_with_something_in_it_stays(records).await;
    namespaces::what_is_wrong_is_refused(records).await;
    images::an_image_is_a_name_for_a_target(records).await;
    images::a_mask_says_what_changes(records).await;
    images::a_deletion_can_ask_for_a_target(records).await;
    images::filters_choose_images(records).await;
    images::what_is_wrong_is_refused(records).await;
    images::namespaces_are_apart(records).await;
    containers::a_container_is_what_was_stored(records).await;
    containers::a_mask_says_what_changes(records).await;
    containers::some_fields_never_change(records).await;
    containers::filters_choose_containers(records).await;
    containers::what_is_wrong_is_refused(records).await;
    containers::one_of_many_makers_of_an_id_wins(records).await;
    leases::a_lease_holds_resources(records).await;
    leases::a_lease_can_be_named_by_the_store(records).await;
    leases::filters_choose_leases(records).await;
    leases::what_is_wrong_is_refused(records).await;
    events::every_change_is_told_once_and_in_order(records).await;
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A namespace that nothing is in.
fn fresh() -> Scope {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("records-{}-{number}", std::process::id());
    Scope::new(name.parse().expect("a name of the suite is one"))
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Labels that are too long by one byte.
fn long_labels() -> Labels {
    labels(&[("key", &"x".repeat(4096 - 2))])
}

fn name<T: std::str::FromStr<Err = Error>>(text: &str) -> T {
    text.parse().expect("a name of the suite is one")
}

#[track_caller]
fn refused<T>(result: Result<T>, kind: ErrorKind) {
    match result {
        Ok(_) => panic!("expected {kind:?}, it was done"),
        Err(error) => assert_eq!(error.kind(), kind, "{}", error.chain()),
    }
}
