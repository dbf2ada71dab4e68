//! Who may import whom, read from the folders: base → tools → { stores, engines, faces } → bins.
//!
//! Crates of stores, engines and faces never see one another: they meet in berth-core. The wire
//! (berth-proto) is known to faces, to the runtime engine and to binaries, and to nobody else but
//! berth-cgroup, whose figures are messages of it, and berth-nri, which speaks it to plugins.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::step;

/// One folder of the workspace that has a rank among the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Layer {
    Base,
    Tools,
    Stores,
    Engines,
    Faces,
    Bins,
    /// Tests, benchmarks and this program may import everything.
    Free,
}

/// A crate of the workspace and the crates of the workspace that it names.
struct Member {
    name: String,
    layer: Layer,
    imports: Vec<Import>,
}

struct Import {
    name: String,
    /// Only tests see it.
    development: bool,
}

/// Fails with every import that goes the wrong way.
pub(crate) fn check(root: &Path) -> Result<()> {
    let members = members(root)?;
    let mut wrong = Vec::new();
    for member in &members {
        for import in &member.imports {
            let Some(target) = members.iter().find(|other| other.name == import.name) else { continue };
            if let Some(why) = objection(member, target, import.development) {
                wrong.push(format!("{} imports {}: {why}", member.name, target.name));
            }
        }
    }
    if !wrong.is_empty() {
        bail!("{} imports against the layers:\n  {}", wrong.len(), wrong.join("\n  "));
    }
    eprintln!("layers: {} crates, every import goes downwards", members.len());
    Ok(())
}

/// Why `member` may not import `target`, if it may not.
fn objection(member: &Member, target: &Member, development: bool) -> Option<String> {
    if member.layer == Layer::Free || (development && target.layer == Layer::Free) {
        return None;
    }
    if target.layer == Layer::Free {
        return Some("only tests may".to_owned());
    }
    let (from, to) = (rank(member.layer), rank(target.layer));
    if to > from {
        return Some(format!("{:?} is below {:?}", member.layer, target.layer));
    }
    let sideways = matches!(member.layer, Layer::Stores | Layer::Engines | Layer::Faces | Layer::Bins);
    // A test may put its engine on a real store; the product meets in berth-core only.
    if sideways && to == from && !development {
        return Some("crates of this rank meet in berth-core".to_owned());
    }
    let wire = matches!(member.layer, Layer::Faces | Layer::Bins)
        || matches!(member.name.as_str(), "berth-runtime" | "berth-cgroup" | "berth-nri");
    if target.name == "berth-proto" && !wire && !development {
        return Some("the wire stays in faces and the runtime".to_owned());
    }
    None
}

fn rank(layer: Layer) -> u8 {
    match layer {
        Layer::Base => 0,
        Layer::Tools => 1,
        Layer::Stores | Layer::Engines | Layer::Faces => 2,
        Layer::Bins => 3,
        Layer::Free => 4,
    }
}

fn members(root: &Path) -> Result<Vec<Member>> {
    let metadata = step::output(
        Command::new("cargo").args(["metadata", "--no-deps", "--format-version=1"]).current_dir(root),
    )?;
    let metadata: Value = serde_json::from_slice(&metadata).context("cargo metadata is not JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    packages.iter().map(|package| member(root, package)).collect()
}

fn member(root: &Path, package: &Value) -> Result<Member> {
    let name = package["name"].as_str().context("a package without a name")?.to_owned();
    let manifest = package["manifest_path"].as_str().context("a package without a path")?;
    let inside = Path::new(manifest).strip_prefix(root).context("a package outside the workspace")?;
    let folder = inside.iter().next().and_then(|part| part.to_str()).unwrap_or_default();
    let layer = match folder {
        "base" => Layer::Base,
        "tools" => Layer::Tools,
        "stores" => Layer::Stores,
        "engines" => Layer::Engines,
        "faces" => Layer::Faces,
        "bins" => Layer::Bins,
        "test" | "bench" | "fuzz" | "xtask" => Layer::Free,
        other => bail!("{name} is in {other}/, which is no layer"),
    };
    let imports = package["dependencies"].as_array().into_iter().flatten();
    let imports = imports.filter(|import| import["path"].is_string()).filter_map(|import| {
        let name = import["name"].as_str()?.to_owned();
        Some(Import { name, development: import["kind"] == "dev" })
    });
    Ok(Member { name, layer, imports: imports.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn krate(name: &str, layer: Layer) -> Member {
        Member { name: name.to_owned(), layer, imports: Vec::new() }
    }

    #[test]
    fn stores_and_engines_do_not_see_one_another() {
        let (store, engine) =
            (krate("berth-content", Layer::Stores), krate("berth-transfer", Layer::Engines));
        assert!(objection(&engine, &store, false).is_some());
        assert!(objection(&store, &engine, false).is_some());
        assert!(objection(&engine, &store, true).is_none(), "a test may");
    }

    #[test]
    fn imports_go_downwards() {
        let (base, bin) = (krate("berth-core", Layer::Base), krate("berthd", Layer::Bins));
        assert!(objection(&bin, &base, false).is_none());
        assert!(objection(&base, &bin, false).is_some());
    }

    #[test]
    fn the_wire_stays_at_the_edge() {
        let wire = krate("berth-proto", Layer::Base);
        assert!(objection(&krate("berth-metadata", Layer::Stores), &wire, false).is_some());
        assert!(objection(&krate("berth-transfer", Layer::Engines), &wire, false).is_some());
        assert!(objection(&krate("berth-runtime", Layer::Engines), &wire, false).is_none());
        assert!(objection(&krate("berth-nri", Layer::Tools), &wire, false).is_none());
        assert!(objection(&krate("berth-server", Layer::Faces), &wire, false).is_none());
    }

    #[test]
    fn only_tests_see_the_test_kit() {
        let kit = krate("testkit", Layer::Free);
        assert!(objection(&krate("berthd", Layer::Bins), &kit, false).is_some());
        assert!(objection(&krate("berth-types", Layer::Base), &kit, true).is_none());
    }
}
