//! Small files are made by several threads, in no order that anybody could tell.

use std::path::Path;

use proptest::prelude::*;
use testkit::image::tar::{Entry, Kind, Tar};
use testkit::need;
use testkit::tree::Tree;

use super::{Fixture, bind};

/// A member whose name may or may not meet another's.
fn member() -> impl Strategy<Value = Entry> {
    let folder = prop_oneof!["a", "b", "a/deep", "link", "untold/folder"];
    let known = (0..6_u32).prop_map(|number| format!("known-{number}"));
    let new = any::<u32>().prop_map(|number| format!("new-{number}"));
    let small = (prop_oneof![1 => known.clone(), 12 => new], 0..8_000_usize, 0..3_u32);
    let file = (folder.clone(), small).prop_map(|(folder, (name, size, mode))| {
        let mut file = Entry::new(Kind::File, &format!("{folder}/{name}"));
        file.bytes = name.bytes().cycle().take(size).collect();
        file.mode = [0o644, 0o600, 0o4711][mode as usize];
        file
    });
    let other =
        (folder.clone(), known.clone(), folder, known, 0..5).prop_map(|(folder, name, to, target, kind)| {
            let (path, target) = (format!("{folder}/{name}"), format!("{to}/{target}"));
            match kind {
                0 => Entry::new(Kind::Folder, &path),
                1 => Entry { link: target, ..Entry::new(Kind::Symlink, &path) },
                2 => Entry::new(Kind::File, &format!("{folder}/.wh.{name}")),
                3 => Entry::new(Kind::File, &format!("{path}/inside")),
                _ => Entry { link: "a/first".to_owned(), ..Entry::new(Kind::Hardlink, &path) },
            }
        });
    prop_oneof![30 => file, 1 => other]
}

fn tar(members: &[Entry]) -> Vec<u8> {
    let folders = ["a", "b", "a/deep"].map(|path| Entry::new(Kind::Folder, path));
    let link = Entry { link: "a".to_owned(), ..Entry::new(Kind::Symlink, "link") };
    let first = Entry::new(Kind::File, "a/first");
    let all = folders.iter().chain([&link, &first]).chain(members);
    all.fold(Tar::default(), Tar::entry).finish()
}

fn seen(folder: &Path) -> Tree {
    let mut tree = Tree::read(folder).without_root();
    tree.0.retain(|path, _| path != Path::new("not of the layer"));
    for file in tree.0.values_mut().filter(|file| file.mtime.0 != 1_600_000_000) {
        // A folder that no member tells.
        file.mtime = (0, 0);
    }
    tree
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn members_that_meet_are_made_in_their_order(members in prop::collection::vec(member(), 200..500)) {
        let Ok(()) = need::root() else { return Ok(()) };
        let f = Fixture::new();
        let (together, one_by_one) = (f.folder("together"), f.folder("one-by-one"));
        // In a tree that is not empty nothing is made out of order.
        std::fs::write(one_by_one.join("not of the layer"), "").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (first, second) = runtime.block_on(async {
            let tar = tar(&members);
            (f.apply(tar.clone(), &bind(&together)).await, f.apply(tar, &bind(&one_by_one)).await)
        });
        prop_assert_eq!(first.is_ok(), second.is_ok(), "{:?} and {:?}", first, second);
        if first.is_ok() {
            seen(&together).assert_same(&seen(&one_by_one), "together and one by one");
        }
    }
}
