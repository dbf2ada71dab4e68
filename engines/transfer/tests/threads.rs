//! Whoever runs an operation may do so in a task that moves between threads.

use berth_core::{Catalog, Scope};
use berth_registry::Registries;
use berth_transfer::{Commit, Exported, Import, Pull, Push, Source, Unpack};

fn moves<T: Send>(_: T) {}

#[expect(dead_code, clippy::too_many_arguments, reason = "it only has to compile")]
fn every_operation(
    catalog: &dyn Catalog,
    scope: &Scope,
    registries: &Registries,
    (source, import): (Source, &Import),
    export: &Exported,
    unpack: &Unpack,
    pull: &Pull,
    push: &Push,
    commit: Commit,
) {
    moves(berth_transfer::import(catalog, scope, source, import));
    moves(berth_transfer::export(catalog, scope, export, Vec::new()));
    moves(berth_transfer::unpack(catalog, scope, unpack));
    moves(berth_transfer::pull(catalog, scope, registries, pull));
    moves(berth_transfer::push(catalog, scope, registries, push));
    moves(berth_transfer::commit(catalog, scope, commit));
}
