//! Go templates, as Docker's `--format` takes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotmpl::{Template, TemplateError, Value};

use crate::failure::Failure;

/// A template that can be applied to documents.
pub(crate) struct Format(Template);

impl Format {
    /// Parses a template; `\t` and `\n` in it are what they say.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let text = match text {
            "json" => "{{json .}}".to_owned(),
            text => text.replace("\\t", "\t").replace("\\n", "\n"),
        };
        let template = functions(Template::new("format"))
            .parse(&text)
            .map_err(|error| Failure::new(format!("template parsing error: {error}")))?;
        Ok(Self(template))
    }

    /// The text for one document.
    pub(crate) fn apply(&self, document: &serde_json::Value) -> Result<String, Failure> {
        self.0
            .execute_to_string(&value(document))
            .map_err(|error| Failure::new(format!("template execution error: {error}")))
    }
}

/// Docker's functions beside Go's own.
fn functions(template: Template) -> Template {
    let text = |args: &[Value], at: usize| args.get(at).map(ToString::to_string).unwrap_or_default();
    let number =
        |args: &[Value], at: usize| args.get(at).and_then(Value::as_int).unwrap_or(0).max(0) as usize;
    let string = |text: String| Value::String(Arc::from(text.as_str()));
    template
        .func("json", move |args| {
            let document = args.first().map_or(serde_json::Value::Null, json);
            serde_json::to_string(&document)
                .map(string)
                .map_err(|error| TemplateError::Exec(error.to_string()))
        })
        .func("join", move |args| {
            let list: Vec<String> = match args.first() {
                Some(Value::List(list)) => list.iter().map(ToString::to_string).collect(),
                _ => Vec::new(),
            };
            Ok(string(list.join(&text(args, 1))))
        })
        .func("split", move |args| {
            let (whole, by) = (text(args, 0), text(args, 1));
            Ok(Value::List(whole.split(by.as_str()).map(|part| string(part.to_owned())).collect()))
        })
        .func("upper", move |args| Ok(string(text(args, 0).to_uppercase())))
        .func("lower", move |args| Ok(string(text(args, 0).to_lowercase())))
        .func("title", move |args| {
            let text = text(args, 0);
            let mut chars = text.chars();
            let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
            Ok(string(first + chars.as_str()))
        })
        .func("truncate", move |args| Ok(string(text(args, 0).chars().take(number(args, 1)).collect())))
        .func("pad", move |args| {
            let (before, after) = (" ".repeat(number(args, 1)), " ".repeat(number(args, 2)));
            let text = text(args, 0);
            Ok(string(if text.is_empty() { text } else { format!("{before}{text}{after}") }))
        })
}

fn value(document: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match document {
        Json::Null => Value::Nil,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => number
            .as_i64()
            .map(Value::Int)
            .or_else(|| number.as_u64().map(Value::Uint))
            .unwrap_or_else(|| Value::Float(number.as_f64().unwrap_or(0.0))),
        Json::String(text) => Value::String(Arc::from(text.as_str())),
        Json::Array(list) => Value::List(list.iter().map(value).collect()),
        Json::Object(map) => {
            let map: BTreeMap<Arc<str>, Value> =
                map.iter().map(|(key, one)| (Arc::from(key.as_str()), value(one))).collect();
            Value::Map(Arc::new(map))
        }
    }
}

fn json(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Value::Bool(flag) => Json::Bool(*flag),
        Value::Int(number) => (*number).into(),
        Value::Uint(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::String(text) => Json::String(text.to_string()),
        Value::List(list) => Json::Array(list.iter().map(json).collect()),
        Value::Map(map) => Json::Object(map.iter().map(|(key, one)| (key.to_string(), json(one))).collect()),
        _ => Json::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn apply(text: &str) -> String {
        let document =
            json!({"Name": "web", "State": {"Pid": 7, "Running": true}, "Args": ["a", "b"], "None": null});
        Format::parse(text).unwrap().apply(&document).unwrap()
    }

    #[test]
    fn templates_are_gos_with_dockers_functions() {
        assert_eq!(apply("{{.Name}}\\t{{.State.Pid}}"), "web\t7");
        assert_eq!(apply("{{json .State}}"), r#"{"Pid":7,"Running":true}"#);
        assert_eq!(apply("{{join .Args \",\"}} {{upper .Name}} {{title .Name}}"), "a,b WEB Web");
        assert_eq!(apply("{{range .Args}}<{{.}}>{{end}}{{if .State.Running}}up{{end}}"), "<a><b>up");
        assert_eq!(apply("{{truncate .Name 2}}{{pad .Name 1 2}}|"), "we web  |");
        assert_eq!(apply("{{index (split \"a:b\" \":\") 1}}"), "b");
        assert!(Format::parse("{{.Name").is_err());
    }
}
