//! Rules as the kernel tells them.

use crate::netlink::{attribute, attributes, u32_at};

/// A rule that is there.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its chain.
    pub chain: String,
    /// Its comment; empty for none.
    pub comment: String,
    /// What it does, in its order.
    pub expressions: Vec<Expression>,
    pub(super) handle: Vec<u8>,
}

/// A part of a rule, as far as somebody here asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Loads bytes of the packet: which header, from where, how many.
    Payload(u32, u32, u32),
    /// Compares: with which operation, with what.
    Compare(u32, Vec<u8>),
    /// Ends or leads on.
    Verdict(Verdict),
    /// Any other, by its name.
    Other(String),
}

/// How a rule ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// 1 accepts, 0 drops, -3 jumps, -4 goes, -5 returns.
    pub code: i32,
    /// The chain that it leads to; empty for none.
    pub chain: String,
}

impl Listed {
    pub(super) fn read(body: &[u8], table: &str) -> Option<Self> {
        let rest = body.get(4..)?;
        if text(attribute(rest, 1)?) != table {
            return None;
        }
        let user = attribute(rest, 7).unwrap_or_default();
        let list = attribute(rest, 4).unwrap_or_default();
        Some(Self {
            chain: text(attribute(rest, 2)?),
            comment: comment(user),
            expressions: attributes(list).filter_map(|(_, one)| expression(one)).collect(),
            handle: attribute(rest, 3)?.to_vec(),
        })
    }

    /// Whether it jumps or goes to a chain.
    pub fn leads_to(&self, chain: &str) -> bool {
        self.expressions.iter().any(|one| matches!(one, Expression::Verdict(to) if to.chain == chain))
    }

    /// Its loads, comparisons and verdicts, without what counts and without extensions.
    pub fn core(&self) -> Vec<&Expression> {
        self.expressions.iter().filter(|one| !matches!(one, Expression::Other(_))).collect()
    }

    /// Whether it has an expression of this name that is not one of the core.
    pub fn has(&self, name: &str) -> bool {
        self.expressions.iter().any(|one| matches!(one, Expression::Other(own) if own == name))
    }
}

/// The comment among what user space keeps with a rule: pieces of a type, a length and bytes.
fn comment(mut user: &[u8]) -> String {
    const COMMENT: u8 = 0;
    while let [kind, length, rest @ ..] = user {
        let length = usize::from(*length).min(rest.len());
        if *kind == COMMENT {
            return text(&rest[..length]);
        }
        user = &rest[length..];
    }
    String::new()
}

fn expression(bytes: &[u8]) -> Option<Expression> {
    let name = text(attribute(bytes, 1)?);
    let data = attribute(bytes, 2).unwrap_or_default();
    let number = |kind| attribute(data, kind).map_or(0, |bytes| u32::from_be(u32_at(bytes, 0)));
    Some(match name.as_str() {
        "payload" if number(1) != 0 => Expression::Payload(number(2), number(3), number(4)),
        "cmp" => {
            let value = attribute(data, 3).and_then(|data| attribute(data, 1));
            Expression::Compare(number(2), value.unwrap_or_default().to_vec())
        }
        "immediate" => match attribute(data, 2).and_then(|data| attribute(data, 2)) {
            None => Expression::Other(name),
            Some(verdict) => Expression::Verdict(Verdict {
                code: attribute(verdict, 1).map_or(0, |bytes| u32::from_be(u32_at(bytes, 0)) as i32),
                chain: attribute(verdict, 2).map(text).unwrap_or_default(),
            }),
        },
        _ => Expression::Other(name),
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_found_among_other_pieces_and_a_length_that_lies_ends_it() {
        assert_eq!(comment(b"\x01\x02ab\x00\x04web\0"), "web");
        assert_eq!(comment(b"\x00\xffweb"), "web");
        assert_eq!(comment(b"\x07"), "");
        assert_eq!(comment(b""), "");
    }
}
