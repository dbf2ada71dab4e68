//! Connections that the kernel remembers (ctnetlink): those that would go on in an old way are forgotten.

use std::io;

use crate::netlink::{ACK, DUMP, Message, attribute, u16_at};
use crate::nft::with_socket;

/// The subsystem's number, before that of a message.
const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;

/// Forgets the connections of a protocol (by its number) that were begun to one of these ports. A packet of a new
/// one goes by the rules of the packet filter, where one of an old one would go on as it went before them.
pub fn forget(ipv6: bool, protocol: u8, ports: &[u16]) -> io::Result<()> {
    let family = if ipv6 { 10 } else { 2 };
    with_socket(|socket| {
        let known = socket.dump(&Message::new(GET, DUMP, &[family, 0, 0, 0]))?;
        for body in known.iter().filter(|body| body.first() == Some(&family)) {
            let Some(message) = removal(body, protocol, ports) else { continue };
            match socket.execute(message) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    })
}

/// What removes a connection that was told of, if it is one of a protocol to one of these ports.
fn removal(body: &[u8], protocol: u8, ports: &[u16]) -> Option<Message> {
    let rest = body.get(4..)?;
    let tuple = attribute(rest, CTA_TUPLE_ORIG)?;
    let layer = attribute(tuple, TUPLE_PROTOCOL)?;
    let number = attribute(layer, PROTOCOL_NUMBER)?.first()?;
    let port = u16::from_be(u16_at(attribute(layer, DESTINATION_PORT)?, 0));
    if *number != protocol || !ports.contains(&port) {
        return None;
    }
    let mut message = Message::new(DELETE, ACK, &[body[0], 0, 0, 0]);
    message = message.nest(CTA_TUPLE_ORIG, |inner| inner.raw(tuple));
    for kind in [CTA_ID, CTA_ZONE] {
        if let Some(value) = attribute(rest, kind) {
            message = message.attribute(kind, value);
        }
    }
    Some(message)
}
