//! state, list, ps, features.

use std::process::Command;

use berth_container::Container;
use serde_json::{Value, json};

use super::{Failure, Outcome, args};

/// A container as `state` and `list` print it: the state document and what runc adds.
fn document(container: &Container) -> Result<Value, Failure> {
    let state = container.state()?;
    let root = container.spec().root.clone().unwrap_or_default().path;
    let mut value = json!({
        "ociVersion": state.oci_version,
        "id": state.id,
        "pid": state.pid,
        "status": state.status.as_str(),
        "bundle": state.bundle,
        "rootfs": container.bundle().join(root),
        "created": container.created(),
        "owner": "",
    });
    if !state.annotations.is_empty() {
        value["annotations"] = json!(state.annotations);
    }
    Ok(value)
}

fn print(value: &Value) -> Outcome {
    println!("{}", serde_json::to_string_pretty(value).unwrap_or_default());
    Ok(0)
}

pub(super) fn state(globals: &args::Globals, id: &str) -> Outcome {
    print(&document(&Container::load(&globals.root, id)?)?)
}

pub(super) fn list(globals: &args::Globals, wanted: &args::List) -> Outcome {
    let mut all = Vec::new();
    for id in Container::list(&globals.root)? {
        // One that is deleted meanwhile is no longer there to be listed.
        if let Ok(container) = Container::load(&globals.root, &id) {
            all.push(document(&container)?);
        }
    }
    match wanted.format.as_str() {
        _ if wanted.quiet => all.iter().for_each(|one| println!("{}", word(one, "id"))),
        "json" => println!("{}", Value::Array(all)),
        "table" => table(&all),
        other => return Err(Failure::new(format!("invalid format option {other:?}: table or json"))),
    }
    Ok(0)
}

fn word(value: &Value, key: &str) -> String {
    match &value[key] {
        Value::String(text) if text.is_empty() && key == "owner" => "root".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn table(all: &[Value]) {
    const KEYS: [&str; 6] = ["id", "pid", "status", "bundle", "created", "owner"];
    let mut rows = vec![KEYS.map(str::to_uppercase)];
    rows.extend(all.iter().map(|one| KEYS.map(|key| word(one, key))));
    let width = |n: usize| rows.iter().map(|row| row[n].len()).max().unwrap_or(0).max(8) + 4;
    let widths: Vec<usize> = (0..KEYS.len()).map(width).collect();
    for row in &rows {
        let line: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("{}", line.trim_end());
    }
}

pub(super) fn ps(globals: &args::Globals, wanted: &args::Ps) -> Outcome {
    let pids = Container::load(&globals.root, &wanted.id)?.pids()?;
    match wanted.format.as_str() {
        "json" => {
            println!("{}", json!(pids));
            return Ok(0);
        }
        "table" => {}
        other => return Err(Failure::new(format!("invalid format option {other:?}: table or json"))),
    }
    let options: Vec<&str> = if wanted.options.is_empty() {
        vec!["-ef"]
    } else {
        wanted.options.iter().map(String::as_str).collect()
    };
    let output = Command::new("ps")
        .args(options)
        .output()
        .map_err(|e| Failure::new(format!("cannot run ps (package procps): {e}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or_else(|| Failure::new("couldn't find PID field in ps output"))?;
    println!("{head}");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse::<i32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            println!("{line}");
        }
    }
    Ok(0)
}

/// What the runtime can do, in the form of the specification's `features.md`.
pub(super) fn features() -> Outcome {
    print(&berth_container::features::document())
}
