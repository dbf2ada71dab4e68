//! What was read first comes first.

use std::fs;
use std::path::Path;

use testkit::wait;

use super::world::{Behaviour, World, big};
use crate::Config;

fn learning() -> Config {
    Config { background: false, span_bytes: 1, read_seconds: 3, learn_seconds: 1, ..Config::default() }
}

fn put(path: &Path, list: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, list).unwrap();
}

#[test]
fn what_a_container_read_comes_before_it_is_asked_for_the_next_time() {
    let Some(mut world) = World::set_up(learning()) else { return };
    let point = world.mounted("one");
    assert_eq!(fs::read(point.join("bin/tool")).unwrap(), b"a tool");
    assert!(fs::read(point.join("data/big-2")).unwrap() == big(2));
    wait::soon("the list", || world.reads().exists());
    let list = fs::read_to_string(world.reads()).unwrap();
    let (tool, data) = (list.find("bin/"), list.find("data/big-2"));
    assert!(tool < data && tool.is_some() && !list.contains("big-1"), "{list}");
    // What is read later is not of the start.
    assert!(fs::read(point.join("data/big-3")).unwrap() == big(3));
    world.forget();
    let point = world.container("two", world.target());
    let both = (big(2).len() + "a tool".len()) as u64;
    wait::soon("what was read", || world.lazy().cache().bytes >= both);
    assert_eq!(world.lazy().figures().demanded, 0);
    world.behave(Behaviour::Gone);
    assert_eq!(fs::read(point.join("bin/tool")).unwrap(), b"a tool");
    assert!(fs::read(point.join("data/big-2")).unwrap() == big(2));
    assert!(fs::read(point.join("data/big-3")).is_err());
}

#[test]
fn of_a_new_layer_that_is_known_which_another_of_its_repository_has() {
    let Some(world) = World::set_up(learning()) else { return };
    let list = r#"{"version":1,"parts":[{"path":"data/big-1","from":0,"to":240000}]}"#;
    put(&world.reads().with_file_name("0".repeat(64)), list);
    let point = world.mounted("one");
    wait::soon("what the other one read", || world.lazy().cache().bytes >= big(1).len() as u64);
    world.behave(Behaviour::Gone);
    assert!(fs::read(point.join("data/big-1")).unwrap() == big(1));
    assert!(fs::read(point.join("data/big-2")).is_err());
}

#[test]
fn a_list_that_says_nonsense_does_no_harm() {
    let nonsense = [
        r#"{"version":1,"parts":[{"path":"../../etc/passwd","from":0,"to":18446744073709551615}]}"#.to_owned(),
        r#"{"version":1,"parts":[{"path":"","from":0,"to":1},{"path":"/","from":0,"to":9},{"path":"bin","from":0,"to":9}]}"#
            .to_owned(),
        r#"{"version":1,"parts":[{"path":"data/big-1","from":9,"to":9}]}"#.to_owned(),
        r#"{"version":1,"parts":[{"path":"data/big-1","from":240000,"to":18446744073709551615}]}"#.to_owned(),
        r#"{"version":2,"parts":[{"path":"data/big-1","from":0,"to":9}]}"#.to_owned(),
        format!(r#"{{"version":1,"parts":[{{"path":"{}","from":0,"to":9}}]}}"#, "a".repeat(2 << 20)),
        "no list".to_owned(),
    ];
    for list in nonsense {
        let Some(world) = World::set_up(learning()) else { return };
        put(&world.reads(), &list);
        let point = world.mounted("one");
        assert_eq!(fs::read(point.join("bin/tool")).unwrap(), b"a tool");
        assert_eq!(world.lazy().figures().ahead, 0);
        wait::soon("a list that is one", || {
            fs::read_to_string(world.reads()).is_ok_and(|list| list.contains("bin/"))
        });
    }
}
