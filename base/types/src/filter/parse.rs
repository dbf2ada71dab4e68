//! The grammar of filters, over characters.

use regex::Regex;

use super::{Selector, Test};
use crate::{Error, Result};

pub(super) fn filter(text: &str) -> Result<Vec<Selector>> {
    let mut parser = Parser { text, at: 0 };
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut selectors = vec![parser.selector()?];
    while parser.eat(",") {
        selectors.push(parser.selector()?);
    }
    if parser.rest().is_empty() { Ok(selectors) } else { Err(parser.error("unexpected input")) }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn error(&self, why: &str) -> Error {
        Error::invalid_argument(format!(
            "filters: parse error: [{} >|{}|< {}]: {why}",
            &self.text[..self.at],
            self.rest().chars().next().map(String::from).unwrap_or_default(),
            self.rest().chars().skip(1).collect::<String>(),
        ))
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// Blanks may stand before a part of a path, an operator and a value, and nowhere else.
    fn blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn selector(&mut self) -> Result<Selector> {
        let path = self.path()?;
        if self.rest().trim_start().starts_with(['=', '!', '~']) {
            self.blanks();
        }
        let test = if self.eat("==") {
            Test::Equals(self.value(false)?)
        } else if self.eat("!=") {
            Test::Differs(self.value(false)?)
        } else if self.eat("~=") {
            let pattern = self.value(true)?;
            Test::Matches(
                Regex::new(&pattern).map_err(|source| self.error("invalid pattern").caused_by(source))?,
            )
        } else {
            Test::Present
        };
        Ok(Selector { path, test })
    }

    fn path(&mut self) -> Result<Vec<String>> {
        let mut parts = vec![self.part()?];
        while self.eat(".") {
            parts.push(self.part()?);
        }
        Ok(parts)
    }

    fn part(&mut self) -> Result<String> {
        self.blanks();
        if self.rest().starts_with('"') {
            return self.quoted('"');
        }
        let length =
            self.rest().find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest().len());
        self.take(length, "expected a field or a quoted field")
    }

    fn value(&mut self, pattern: bool) -> Result<String> {
        self.blanks();
        match self.rest().chars().next() {
            Some('"') => self.quoted('"'),
            Some(quote @ ('/' | '|')) if pattern => self.quoted(quote),
            _ => {
                let length =
                    self.rest().find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(self.rest().len());
                self.take(length, "expected a value")
            }
        }
    }

    fn take(&mut self, length: usize, expected: &str) -> Result<String> {
        if length == 0 {
            return Err(self.error(expected));
        }
        let taken = self.rest()[..length].to_owned();
        self.at += length;
        Ok(taken)
    }

    /// A quoted string; between `/` or `|` only the quote itself is escaped, so that patterns
    /// keep their backslashes.
    fn quoted(&mut self, quote: char) -> Result<String> {
        let rest = &self.text[self.at..];
        let mut characters = rest.char_indices().skip(1);
        let mut out = String::new();
        while let Some((index, c)) = characters.next() {
            if c == quote {
                self.at += index + c.len_utf8();
                return Ok(out);
            }
            if c != '\\' {
                out.push(c);
                continue;
            }
            let Some((_, escaped)) = characters.next() else { break };
            match (quote, escaped) {
                (_, c) if c == quote => out.push(c),
                ('"', 'n') => out.push('\n'),
                ('"', 't') => out.push('\t'),
                ('"', 'r') => out.push('\r'),
                ('"', '\\') => out.push('\\'),
                ('"', _) => return Err(self.error("unknown escape in a quoted string")),
                (_, c) => out.extend(['\\', c]),
            }
        }
        Err(self.error("unterminated quoted string"))
    }
}
