//! The few MQTT 3.1.1 packets that pass the door, read strictly.
//!
//! A packet is judged by its first bytes: a kind that has no place here and a length above the
//! kind's limit are refused before the rest has arrived. Reserved bits must be as the standard says,
//! and every body ends where its length says. (The router's crate has a decoder too, but it keeps
//! QoS and packet id of a publish to itself, and takes more than we want.)

use crate::counters::Refusal;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes of a SUBSCRIBE; one filter of ours takes 50.
const SUBSCRIBE_BYTES: usize = 1024;
/// Bytes of a topic with its length and packet id; ours take 60.
const TOPIC_BYTES: usize = 256;

/// CONNACK: refused for the reason said in the code.
pub(crate) const BAD_VERSION: u8 = 1;
pub(crate) const UNAVAILABLE: u8 = 3;
pub(crate) const NOT_AUTHORIZED: u8 = 5;
/// SUBACK: a filter that was refused.
pub(crate) const FILTER_REFUSED: u8 = 0x80;

/// The largest packets taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub connect: usize,
    /// Payload of a publish.
    pub payload: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    Connect(Connect),
    Publish(Publish),
    PubAck(u16),
    Subscribe(Subscribe),
    PingReq,
    Disconnect,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connect {
    pub client: String,
    /// Seconds; 0 for none.
    pub keep_alive: u16,
    pub will: Option<Will>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Will {
    pub topic: String,
    pub payload: Bytes,
    pub qos: u8,
    pub retain: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    pub topic: String,
    pub payload: Bytes,
    /// 0 or 1.
    pub qos: u8,
    /// 0 at QoS 0.
    pub id: u16,
    pub retain: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subscribe {
    pub id: u16,
    /// Filters and the QoS asked for.
    pub filters: Vec<(String, u8)>,
}

/// What a buffer holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Packet(Packet),
    /// At least so many bytes are missing.
    Needs(usize),
}

/// Takes one packet off the buffer's front, if it is all there.
pub(crate) fn take(buffer: &mut BytesMut, sizes: Sizes) -> Result<Taken, Refusal> {
    let Some((&first, rest)) = buffer.split_first() else { return Ok(Taken::Needs(2)) };
    let (kind, flags) = (first >> 4, first & 0x0f);
    let (limit, flags_ok) = match kind {
        1 => (sizes.connect, flags == 0),
        3 => (sizes.payload.saturating_add(TOPIC_BYTES), flags & 0b0110 != 0b0110),
        4 => (2, flags == 0),
        8 => (SUBSCRIBE_BYTES, flags == 2),
        12 | 14 => (0, flags == 0),
        5..=7 => return Err(Refusal::Qos2),
        _ => return Err(Refusal::Unexpected),
    };
    if !flags_ok {
        return Err(Refusal::Malformed);
    }
    if kind == 3 && flags & 0b0100 != 0 {
        return Err(Refusal::Qos2);
    }
    let Some((digits, length)) = length(rest)? else { return Ok(Taken::Needs(1)) };
    if length > limit {
        return Err(if limit > 2 { Refusal::Oversized } else { Refusal::Malformed });
    }
    let whole = 1 + digits + length;
    if buffer.len() < whole {
        return Ok(Taken::Needs(whole - buffer.len()));
    }
    let body = Body(&buffer[1 + digits..whole]);
    let packet = match kind {
        1 => connect(body)?.map(Packet::Connect),
        3 => publish(flags, body, sizes)?.map(Packet::Publish),
        4 => pub_ack(body).map(Packet::PubAck),
        8 => subscribe(body).map(Packet::Subscribe),
        12 => Some(Packet::PingReq),
        _ => Some(Packet::Disconnect),
    };
    buffer.advance(whole);
    packet.map(Taken::Packet).ok_or(Refusal::Malformed)
}

/// The remaining length: how many digits it has, and its value.
fn length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Refusal> {
    let mut value = 0;
    for (n, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Ok(Some((n + 1, value)));
        }
    }
    if bytes.len() >= 4 { Err(Refusal::Malformed) } else { Ok(None) }
}

/// What is left of a packet's body.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn u8(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.u8()?, self.u8()?]))
    }

    fn id(&mut self) -> Option<u16> {
        self.u16().filter(|&id| id != 0)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.u16()?);
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<String> {
        std::str::from_utf8(self.bytes()?).ok().map(str::to_owned)
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

fn connect(mut body: Body<'_>) -> Result<Option<Connect>, Refusal> {
    let (name, level) = (body.bytes(), body.u8());
    match (name, level) {
        (Some(b"MQTT"), Some(4)) => Ok(connect_fields(body)),
        // MQTT 3.1 and 5 are told that the version is refused.
        (Some(b"MQTT" | b"MQIsdp"), Some(_)) => Err(Refusal::ProtocolVersion),
        _ => Ok(None),
    }
}

fn connect_fields(mut body: Body<'_>) -> Option<Connect> {
    let flags = body.u8()?;
    let keep_alive = body.u16()?;
    let (has_name, has_password, has_will) = (flags & 0x80 != 0, flags & 0x40 != 0, flags & 0x04 != 0);
    let (will_retain, will_qos) = (flags & 0x20 != 0, flags >> 3 & 3);
    let sound = flags & 1 == 0
        && (has_name || !has_password)
        && (has_will || (!will_retain && will_qos == 0))
        && will_qos < 3;
    if !sound {
        return None;
    }
    let client = body.text()?;
    let will = match has_will {
        true => Some(Will {
            topic: body.text()?,
            payload: Bytes::copy_from_slice(body.bytes()?),
            qos: will_qos,
            retain: will_retain,
        }),
        false => None,
    };
    // Names and passwords mean nothing here: the certificate said who it is.
    if has_name {
        body.text()?;
    }
    if has_password {
        body.bytes()?;
    }
    body.end()?;
    Some(Connect { client, keep_alive, will })
}

fn publish(flags: u8, mut body: Body<'_>, sizes: Sizes) -> Result<Option<Publish>, Refusal> {
    let qos = flags >> 1 & 3;
    let Some(topic) = body.text() else { return Ok(None) };
    let id = match qos {
        0 => 0,
        _ => match body.id() {
            Some(id) => id,
            None => return Ok(None),
        },
    };
    if body.0.len() > sizes.payload {
        return Err(Refusal::Oversized);
    }
    // Copied, so that a small message doesn't hold a large buffer for as long as the router keeps it.
    let payload = Bytes::copy_from_slice(body.0);
    Ok(Some(Publish { topic, payload, qos, id, retain: flags & 1 != 0 }))
}

fn pub_ack(mut body: Body<'_>) -> Option<u16> {
    let id = body.id()?;
    body.end().map(|()| id)
}

fn subscribe(mut body: Body<'_>) -> Option<Subscribe> {
    let id = body.id()?;
    let mut filters = Vec::new();
    while body.end().is_none() {
        let filter = body.text()?;
        let qos = body.u8().filter(|&qos| qos <= 2)?;
        filters.push((filter, qos));
    }
    (!filters.is_empty()).then_some(Subscribe { id, filters })
}

pub(crate) fn put_connack(out: &mut BytesMut, code: u8) {
    // Never "session present": sessions are not kept.
    out.put_slice(&[0x20, 2, 0, code]);
}

pub(crate) fn put_puback(out: &mut BytesMut, id: u16) {
    out.put_slice(&[0x40, 2]);
    out.put_u16(id);
}

pub(crate) fn put_pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xd0, 0]);
}

/// `codes` are as many as a SUBSCRIBE has filters, so a length of at most two digits.
pub(crate) fn put_suback(out: &mut BytesMut, id: u16, codes: &[u8]) {
    out.put_u8(0x90);
    put_length(out, 2 + codes.len());
    out.put_u16(id);
    out.put_slice(codes);
}

/// At QoS 1 with an id, at QoS 0 without. The topic is one of ours, so far below 64 KiB.
pub(crate) fn put_publish(out: &mut BytesMut, topic: &[u8], id: Option<u16>, payload: &[u8]) {
    out.put_u8(0x30 | (u8::from(id.is_some()) << 1));
    put_length(out, 2 + topic.len() + if id.is_some() { 2 } else { 0 } + payload.len());
    out.put_u16(topic.len() as u16);
    out.put_slice(topic);
    if let Some(id) = id {
        out.put_u16(id);
    }
    out.put_slice(payload);
}

fn put_length(out: &mut BytesMut, mut length: usize) {
    loop {
        let digit = (length & 0x7f) as u8;
        length >>= 7;
        out.put_u8(digit | if length > 0 { 0x80 } else { 0 });
        if length == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use rumqttd::protocol::{self as peer, Protocol, v4::V4};

    const SIZES: Sizes = Sizes { connect: 4096, payload: 4096 };

    fn taken(bytes: &[u8]) -> Result<Taken, Refusal> {
        take(&mut BytesMut::from(bytes), SIZES)
    }

    /// A publish as another implementation writes it, since the fields of its own are private.
    fn raw_publish(first: u8, topic: &str, id: Option<u16>, payload: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        put_publish(&mut out, topic.as_bytes(), id, payload);
        out[0] = first;
        out.to_vec()
    }

    #[test]
    fn a_connect_of_another_implementation() {
        let connect = peer::Connect { keep_alive: 30, client_id: "me".into(), clean_session: true };
        let will = peer::LastWill {
            topic: "/a".into(),
            message: "gone".into(),
            qos: peer::QoS::AtLeastOnce,
            retain: true,
        };
        let login = peer::Login { username: "u".into(), password: "p".into() };
        let mut out = BytesMut::new();
        V4.write(peer::Packet::Connect(connect, None, Some(will), None, Some(login)), &mut out).unwrap();
        let whole = out.clone();
        let will = Will { topic: "/a".into(), payload: "gone".into(), qos: 1, retain: true };
        let expected = Connect { client: "me".into(), keep_alive: 30, will: Some(will) };
        assert_eq!(take(&mut out, SIZES), Ok(Taken::Packet(Packet::Connect(expected))));
        assert!(out.is_empty());
        for cut in 0..whole.len() {
            assert!(matches!(taken(&whole[..cut]), Ok(Taken::Needs(n)) if n >= 1 && n <= whole.len() - cut));
        }
    }

    #[test]
    fn what_we_write_another_implementation_reads() {
        let mut out = BytesMut::new();
        put_connack(&mut out, NOT_AUTHORIZED);
        put_puback(&mut out, 513);
        put_suback(&mut out, 7, &[1, FILTER_REFUSED]);
        put_publish(&mut out, b"/t", Some(9), &[5; 300]);
        put_pingresp(&mut out);
        let mut next = || V4.read_mut(&mut out, 10_000).unwrap();
        assert!(
            matches!(next(), peer::Packet::ConnAck(a, _) if a.code == peer::ConnectReturnCode::NotAuthorized)
        );
        assert!(matches!(next(), peer::Packet::PubAck(a, _) if a.pkid == 513));
        assert!(
            matches!(next(), peer::Packet::SubAck(a, _) if a.return_codes[1] == peer::SubscribeReasonCode::Failure)
        );
        assert!(matches!(next(), peer::Packet::Publish(p, _) if p.topic == "/t" && p.payload.len() == 300));
        assert!(matches!(next(), peer::Packet::PingResp(_)));
    }

    #[test]
    fn refusals() {
        let version = |name: &[u8], level| {
            let mut body = vec![0, name.len() as u8];
            body.extend(name);
            body.extend([level, 2, 0, 0, 0, 1, b'x']);
            let mut out = vec![0x10, body.len() as u8];
            out.extend(body);
            taken(&out)
        };
        assert!(matches!(version(b"MQTT", 4), Ok(Taken::Packet(Packet::Connect(_)))));
        assert_eq!(version(b"MQTT", 5), Err(Refusal::ProtocolVersion));
        assert_eq!(version(b"MQIsdp", 3), Err(Refusal::ProtocolVersion));
        assert_eq!(version(b"HTTP", 4), Err(Refusal::Malformed));
        for (bytes, why) in [
            (&b"GET / HTTP/1.1\r\n"[..], Refusal::Malformed),
            (&[0x62, 2, 0, 1], Refusal::Qos2),
            (&[0x34, 0], Refusal::Qos2),
            (&[0x36, 0], Refusal::Malformed),
            (&[0xa2, 4], Refusal::Unexpected),
            (&[0x20, 2], Refusal::Unexpected),
            (&[0xf0, 0], Refusal::Unexpected),
            (&[0x82, 0xff, 0xff, 0x7f], Refusal::Oversized),
            (&[0x30, 0xff, 0xff, 0x7f], Refusal::Oversized),
            (&[0x30, 0xff, 0xff, 0xff, 0xff], Refusal::Malformed),
            (&[0xc0, 1], Refusal::Malformed),
            (&[0x40, 2, 0, 0], Refusal::Malformed),
            (&[0x32, 4, 0, 0, 0, 0], Refusal::Malformed),
            (&[0x30, 3, 0, 1, 0xff], Refusal::Malformed),
            (&[0x82, 2, 0, 1], Refusal::Malformed),
        ] {
            assert_eq!(taken(bytes), Err(why), "{bytes:02x?}");
        }
        assert_eq!(taken(&raw_publish(0x30, "t", None, &[0; 4097])), Err(Refusal::Oversized));
        assert!(
            matches!(taken(&raw_publish(0x31, "t", None, b"x")), Ok(Taken::Packet(Packet::Publish(p))) if p.retain)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            let before = buffer.len();
            match take(&mut buffer, SIZES) {
                Ok(Taken::Packet(_)) => prop_assert!(buffer.len() < before),
                Ok(Taken::Needs(n)) => prop_assert!(n > 0 && buffer.len() == before),
                Err(_) => {}
            }
        }

        #[test]
        fn bodies_of_known_kinds_are_read_or_refused(
            first in prop::sample::select(vec![0x10u8, 0x30, 0x32, 0x40, 0x82]),
            body in prop::collection::vec(any::<u8>(), 0..120),
        ) {
            let bytes = [&[first, body.len() as u8], &body[..]].concat();
            let _ = taken(&bytes);
        }

        #[test]
        fn a_publish_reads_back(topic in "[a-z/]{0,40}", id in 1u16.., payload in prop::collection::vec(any::<u8>(), 0..400)) {
            let expected = Publish { topic: topic.clone(), payload: payload.clone().into(), qos: 1, id, retain: false };
            prop_assert_eq!(
                taken(&raw_publish(0x32, &topic, Some(id), &payload)),
                Ok(Taken::Packet(Packet::Publish(expected)))
            );
        }
    }
}
