//! The keeper, in a thread instead of a process.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::Path;

use testkit::Scratch;

use crate::{Keeper, keep, listen_at};

#[test]
fn what_is_kept_outlives_its_giver_and_the_keeper_ends_with_the_last_of_it() {
    let scratch = Scratch::new();
    let path = scratch.path("keeper.sock");
    let listener = listen_at(&path).unwrap();
    let keeping = std::thread::spawn({
        let path = path.clone();
        move || keep(&listener, &path)
    });
    let connect = || Keeper::connect(&path).unwrap();
    for name in ["one", "two"] {
        let keeper = connect();
        let file = File::open(scratch.file(name, name)).unwrap();
        keeper.keep(Path::new(name), file.as_fd()).unwrap();
    }
    let keeper = connect();
    let all = keeper.all().unwrap();
    assert_eq!(all.len(), 2);
    for (point, device) in all {
        let mut text = String::new();
        File::from(device).read_to_string(&mut text).unwrap();
        assert_eq!(Path::new(&text), point);
    }
    keeper.forget(Path::new("one")).unwrap();
    keeper.forget(Path::new("never")).unwrap();
    drop(keeper);
    let keeper = connect();
    assert!(keeper.all().unwrap().keys().eq([Path::new("two")]));
    keeper.forget(Path::new("two")).unwrap();
    drop(keeper);
    keeping.join().unwrap().unwrap();
    assert!(fs::metadata(&path).is_err());
}
