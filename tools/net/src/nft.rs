//! The packet filter over netlink (nfnetlink): tables, chains and rules, changed in transactions and listed. No
//! program is started and nothing else has to be installed.
//!
//! Whoever makes a rule puts a comment on it, as `nft` shows it, and finds it again by that: the rules of others are
//! never touched.

mod kept;
mod listed;
mod rule;

use std::io;

use crate::netlink::{ACK, APPEND, CREATE, DUMP, Message};

pub(crate) use kept::with_socket;

pub use listed::{Expression, Listed, Verdict};
pub use rule::{Compare, Meta, Rule, Tracked};

const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;
/// The longest comment that `nft` writes.
pub const LONGEST_COMMENT: usize = 128;
/// How often a batch is formed again because somebody else removed what it names.
const ATTEMPTS: u32 = 10;

/// Whose packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    /// IPv4.
    Four = 2,
    /// IPv6.
    Six = 10,
}

/// A table, there or to be made.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// Whose packets it sees.
    pub family: Family,
    /// Its name.
    pub name: &'a str,
}

/// Where a chain is entered by the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// The hook's number, see the constants.
    pub number: u32,
    /// Its place among the chains of the hook.
    pub priority: i32,
}

impl Hook {
    /// The numbers of hooks.
    pub const PREROUTING: u32 = 0;
    /// Of packets that are passed on.
    pub const FORWARD: u32 = 2;
    /// Of packets that this host sends.
    pub const OUTPUT: u32 = 3;
    /// Of packets that leave.
    pub const POSTROUTING: u32 = 4;
    /// Where destinations are changed.
    pub const DESTINATION_NAT: i32 = -100;
    /// Where sources are changed.
    pub const SOURCE_NAT: i32 = 100;
}

impl Table<'_> {
    fn message(&self, number: u16, flags: u16) -> Message {
        let message = Message::new(kind(number), flags, &[self.family as u8, 0, 0, 0]);
        message.text(1, self.name)
    }

    /// The rules of one chain, in their order; none if there is no such table or chain.
    pub fn rules(&self, chain: &str) -> io::Result<Vec<Listed>> {
        self.list(Some(chain))
    }

    /// The rules of all chains.
    pub fn all_rules(&self) -> io::Result<Vec<Listed>> {
        self.list(None)
    }

    fn list(&self, chain: Option<&str>) -> io::Result<Vec<Listed>> {
        let mut question = self.message(GET_RULE, DUMP);
        if let Some(chain) = chain {
            question = question.text(2, chain);
        }
        let answers = with_socket(|socket| match socket.dump(&question) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        })?;
        let rules = answers.iter().filter_map(|body| Listed::read(body, self.name));
        // An old kernel tells those of the other chains too.
        Ok(rules.filter(|rule| chain.is_none_or(|chain| rule.chain == chain)).collect())
    }

    /// Whether there is a chain of this name.
    pub fn has_chain(&self, chain: &str) -> io::Result<bool> {
        has_answer(self.message(GET_CHAIN, 0).text(3, chain))
    }

    /// Whether there is this table.
    pub fn exists(&self) -> io::Result<bool> {
        const GET_TABLE: u16 = 1;
        has_answer(self.message(GET_TABLE, 0))
    }

    /// Removes the rules for which `which` holds, of some chains. Answers how many it were.
    pub fn remove(&self, chains: &[&str], which: &dyn Fn(&Listed) -> bool) -> io::Result<usize> {
        retrying(|| {
            let mut batch = Batch::begin();
            let mut count = 0;
            for chain in chains {
                let mut found = self.rules(chain)?;
                found.retain(which);
                count += found.len();
                found.iter().for_each(|rule| batch.delete(*self, rule));
            }
            batch.send().map(|()| count)
        })
    }

    /// Removes a chain with its rules and with those of `callers` that lead to it. Answers whether there was one.
    pub fn remove_chain(&self, chain: &str, callers: &[&str]) -> io::Result<bool> {
        retrying(|| {
            if !self.has_chain(chain)? {
                return Ok(false);
            }
            let mut batch = Batch::begin();
            for caller in callers {
                let mut found = self.rules(caller)?;
                found.retain(|rule| rule.leads_to(chain));
                found.iter().for_each(|rule| batch.delete(*self, rule));
            }
            batch.flush(*self, chain);
            batch.0.push(self.message(DELETE_CHAIN, 0).text(3, chain));
            batch.send().map(|()| true)
        })
    }
}

/// Whether there is what is asked for.
fn has_answer(question: Message) -> io::Result<bool> {
    with_socket(|socket| match socket.ask(question, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other.map(|_| true),
    })
}

/// Tries again what was refused because a rule had gone between its listing and its removal.
fn retrying<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut attempts = 0;
    loop {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempts < ATTEMPTS => attempts += 1,
            other => return other,
        }
    }
}

/// Whether the kernel has this packet filter and the caller may change it.
pub fn is_there() -> io::Result<()> {
    const GET_GENERATION: u16 = 16;
    let question = Message::new(kind(GET_GENERATION), 0, &[0, 0, 0, 0]);
    with_socket(|socket| socket.ask(question, false)).map(drop)
}

/// Changes that happen together or not at all.
#[derive(Debug)]
pub struct Batch(Vec<Message>);

impl Batch {
    /// An empty one.
    pub fn begin() -> Self {
        Self(vec![Message::new(0x10, 0, &[0, 0, 0, 10])])
    }

    /// Makes a table unless it is there.
    pub fn table(&mut self, table: Table<'_>, comment: Option<&str>) {
        let message = table.message(NEW_TABLE, CREATE);
        self.0.push(with_comment(message, 6, comment));
    }

    /// Removes a table with all that is in it.
    pub fn delete_table(&mut self, table: Table<'_>) {
        self.0.push(table.message(DELETE_TABLE, 0));
    }

    /// Makes a chain unless it is there.
    pub fn chain(&mut self, table: Table<'_>, name: &str, hook: Option<Hook>, comment: Option<&str>) {
        let mut message = table.message(NEW_CHAIN, CREATE).text(3, name);
        if let Some(Hook { kind, number, priority }) = hook {
            message = message
                .nest(4, |place| {
                    place.attribute(1, &number.to_be_bytes()).attribute(2, &priority.to_be_bytes())
                })
                .text(7, kind);
        }
        self.0.push(with_comment(message, 12, comment));
    }

    /// Removes the rules of a chain, which must be there.
    pub fn flush(&mut self, table: Table<'_>, chain: &str) {
        self.0.push(table.message(DELETE_RULE, 0).text(2, chain));
    }

    /// Puts a rule at the end of a chain.
    pub fn append(&mut self, table: Table<'_>, chain: &str, comment: Option<&str>, rule: Rule) {
        self.put(APPEND, (table, chain), comment, rule);
    }

    /// Puts a rule before all others of a chain.
    pub fn insert(&mut self, table: Table<'_>, chain: &str, comment: Option<&str>, rule: Rule) {
        self.put(0, (table, chain), comment, rule);
    }

    fn put(&mut self, how: u16, (table, chain): (Table<'_>, &str), comment: Option<&str>, rule: Rule) {
        let message = rule.write(table.message(NEW_RULE, CREATE | how).text(2, chain));
        self.0.push(with_comment(message, 7, comment));
    }

    /// Removes a rule.
    pub fn delete(&mut self, table: Table<'_>, rule: &Listed) {
        let delete = table.message(DELETE_RULE, 0).text(2, &rule.chain);
        self.0.push(delete.attribute(3, &rule.handle));
    }

    /// Does it all; nothing if it is empty.
    pub fn send(mut self) -> io::Result<()> {
        if self.0.len() < 2 {
            return Ok(());
        }
        if let Some(last) = self.0.last_mut() {
            last.add_flags(ACK);
        }
        self.0.push(Message::new(0x11, 0, &[0, 0, 0, 10]));
        with_socket(|socket| socket.transaction(self.0))
    }
}

/// A comment as nft shows it: its type, its length, text with a zero.
fn with_comment(message: Message, attribute: u16, comment: Option<&str>) -> Message {
    let Some(comment) = comment else { return message };
    let comment = shortened(comment, 254);
    let mut bytes = vec![0, comment.len() as u8 + 1];
    bytes.extend(comment.as_bytes());
    bytes.push(0);
    message.attribute(attribute, &bytes)
}

/// As much of a text as has at most so many bytes.
pub fn shortened(comment: &str, most: usize) -> &str {
    let mut end = comment.len().min(most);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    &comment[..end]
}

fn kind(number: u16) -> u16 {
    10 << 8 | number
}
