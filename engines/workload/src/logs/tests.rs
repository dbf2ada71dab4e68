use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::*;
use testkit::Scratch;

fn all(reader: &mut Reader) -> Vec<String> {
    let mut lines = Vec::new();
    reader
        .read(&mut |entry| {
            lines.push(entry.text);
            Ok(true)
        })
        .unwrap();
    lines
}

fn rotating(scratch: &Scratch) -> (PathBuf, Writer) {
    let path = scratch.path("c-json.log");
    let writer = Writer::open(&path, Limits { max_size: Some(300), max_files: 3 }).unwrap();
    (path, writer)
}

#[test]
fn lines_come_back_in_order_over_rotations() {
    let scratch = Scratch::new();
    let (path, mut writer) = rotating(&scratch);
    for number in 0..10 {
        writer.write(Stream::Stdout, format!("line {number}\n").as_bytes()).unwrap();
    }
    assert!(scratch.path("c-json.log.1").exists() && scratch.path("c-json.log.2").exists());
    assert!(!scratch.path("c-json.log.3").exists());
    let lines = all(&mut Reader::open(&path, &Query::default()).unwrap());
    assert!(lines.len() >= 7 && lines.len() < 10, "{lines:?}");
    assert_eq!(lines.last().unwrap(), "line 9\n");
    assert!(lines.is_sorted());
}

#[test]
fn a_tail_reaches_into_older_files() {
    let scratch = Scratch::new();
    let (path, mut writer) = rotating(&scratch);
    for number in 0..9 {
        writer.write(Stream::Stdout, format!("line {number}\n").as_bytes()).unwrap();
    }
    for wanted in 1..6 {
        let query = Query { tail: Some(wanted), ..Query::default() };
        let lines = all(&mut Reader::open(&path, &query).unwrap());
        assert_eq!(lines.len(), wanted, "{lines:?}");
        assert_eq!(lines[0], format!("line {}\n", 9 - wanted));
    }
    let none = Query { tail: Some(0), ..Query::default() };
    let mut reader = Reader::open(&path, &none).unwrap();
    assert!(all(&mut reader).is_empty());
    writer.write(Stream::Stderr, b"new\n").unwrap();
    assert_eq!(all(&mut reader), ["new\n"]);
}

#[test]
fn a_reader_follows_through_rotations() {
    let scratch = Scratch::new();
    let (path, mut writer) = rotating(&scratch);
    let mut reader = Reader::open(&path, &Query::default()).unwrap();
    let mut seen = Vec::new();
    for number in 0..50 {
        writer.write(Stream::Stdout, format!("{number}\n").as_bytes()).unwrap();
        seen.extend(all(&mut reader));
    }
    assert_eq!(seen, (0..50).map(|number| format!("{number}\n")).collect::<Vec<_>>());
}

#[test]
fn half_a_line_waits_for_its_other_half_and_rubbish_is_passed_over() {
    let scratch = Scratch::new();
    let path = scratch.path("log");
    let line = r#"{"log":"a\n","stream":"stderr","time":"2026-01-01T00:00:00.5Z"}"#;
    fs::write(&path, format!("rubbish\n\0\0\n{}", &line[..20])).unwrap();
    let mut reader = Reader::open(&path, &Query::default()).unwrap();
    assert!(all(&mut reader).is_empty());
    fs::write(&path, format!("rubbish\n\0\0\n{line}\n")).unwrap();
    assert_eq!(all(&mut reader), ["a\n"]);
}

#[test]
fn times_bound_what_is_read() {
    let scratch = Scratch::new();
    let path = scratch.path("log");
    let lines: String = (0..5)
        .map(|second| {
            format!(
                "{{\"log\":\"{second}\\n\",\"stream\":\"stdout\",\"time\":\"1970-01-01T00:00:0{second}Z\"}}\n"
            )
        })
        .collect();
    fs::write(&path, lines).unwrap();
    let at = |second| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
    let query = Query { since: at(1), until: at(3), tail: None };
    assert_eq!(all(&mut Reader::open(&path, &query).unwrap()), ["1\n", "2\n", "3\n"]);
}

#[test]
fn long_lines_are_parts_and_the_streams_do_not_mix() {
    let scratch = Scratch::new();
    let path = scratch.path("log");
    let mut writer = Writer::open(&path, Limits::default()).unwrap();
    writer.write(Stream::Stdout, b"out ").unwrap();
    writer.write(Stream::Stderr, b"err\n").unwrap();
    writer.write(Stream::Stdout, b"put\n").unwrap();
    writer.write(Stream::Stdout, &vec![b'x'; 40_000]).unwrap();
    writer.finish(Stream::Stdout).unwrap();
    let lines = all(&mut Reader::open(&path, &Query::default()).unwrap());
    assert_eq!(&lines[..2], ["err\n", "out put\n"]);
    assert_eq!(lines[2..].concat(), "x".repeat(40_000));
    assert!(lines[2..].iter().all(|part| part.len() <= 16 << 10));
}

#[tokio::test(flavor = "current_thread")]
async fn a_watch_wakes_for_what_is_written() {
    let scratch = Scratch::new();
    let (path, mut writer) = rotating(&scratch);
    let watch = Watch::open(&path).unwrap();
    writer.write(Stream::Stdout, b"x\n").unwrap();
    tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.unwrap().unwrap();
}
