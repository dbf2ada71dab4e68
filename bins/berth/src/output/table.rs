//! Lists: a table, or whatever a template says.

use serde_json::{Map, Value};

use super::format::Format;
use crate::failure::Failure;

/// Columns by the name that templates use, with their heads.
pub(crate) type Heads<'a> = &'a [(&'a str, &'a str)];

/// Blanks between columns, and the least width of one: Docker's.
const PADDING: usize = 3;
const LEAST: usize = 10;

/// Prints rows: as `format` says, which may be a template, `table TEMPLATE`, `json` or nothing for `default`.
pub(crate) fn print(
    rows: &[Value],
    format: Option<&str>,
    default: &str,
    heads: Heads<'_>,
) -> Result<(), Failure> {
    super::text(&render(rows, format, default, heads)?)
}

fn render(rows: &[Value], format: Option<&str>, default: &str, heads: Heads<'_>) -> Result<String, Failure> {
    let format = match format {
        None | Some("" | "table") => default,
        Some(format) => format,
    };
    let Some(template) = format.strip_prefix("table ") else {
        let format = Format::parse(format)?;
        let mut text = String::new();
        for row in rows {
            text.push_str(&format.apply(row)?);
            text.push('\n');
        }
        return Ok(text);
    };
    let format = Format::parse(template)?;
    let mut titles = Map::new();
    for (name, head) in heads {
        titles.insert((*name).to_owned(), Value::String((*head).to_owned()));
    }
    let mut lines = vec![format.apply(&Value::Object(titles))?];
    for row in rows {
        lines.push(format.apply(row)?);
    }
    Ok(align(&lines))
}

/// Puts the cells that tabs divide in lines under one another.
pub(crate) fn align(lines: &[String]) -> String {
    let rows: Vec<Vec<&str>> = lines.iter().map(|line| line.split('\t').collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |text: &str| text.chars().count();
    let mut widths = vec![0; columns];
    for row in &rows {
        // The last cell of a row needs no room after it.
        for (at, cell) in row.iter().take(row.len().saturating_sub(1)).enumerate() {
            widths[at] = widths[at].max(width(cell));
        }
    }
    let mut text = String::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if at + 1 < row.len() {
                let room = (widths[at] + PADDING).max(LEAST);
                text.push_str(&" ".repeat(room.saturating_sub(width(cell))));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_have_dockers_columns() {
        let rows = [json!({"ID": "abc", "Name": "web"}), json!({"ID": "abcdefghijk", "Name": "x"})];
        let heads: Heads<'_> = &[("ID", "CONTAINER ID"), ("Name", "NAMES")];
        let table = render(&rows, None, "table {{.ID}}\t{{.Name}}", heads).unwrap();
        assert_eq!(table, "CONTAINER ID   NAMES\nabc            web\nabcdefghijk    x\n");
        assert_eq!(render(&rows, Some("{{.Name}}"), "", heads).unwrap(), "web\nx\n");
        let json = render(&rows[..1], Some("json"), "", heads).unwrap();
        assert_eq!(json, "{\"ID\":\"abc\",\"Name\":\"web\"}\n");
        let short = render(&rows[..1], Some("table {{.Name}}\\t{{.ID}}"), "", heads).unwrap();
        assert_eq!(short, "NAMES     CONTAINER ID\nweb       abc\n");
    }
}
