//! What an agent may ask for: its own streams up, its own filter down, nothing else.

use crate::counters::Refusal;
use crate::packets::{Connect, FILTER_REFUSED, Publish, Subscribe};
use bytes::Bytes;
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::topics::{Stream, Topic, down_filter};
use std::time::Duration;

/// The will's payload, if there is one, of a CONNECT that may pass.
pub(crate) fn connect(agent: AgentId, connect: &Connect) -> Result<Option<Bytes>, Refusal> {
    if connect.client != agent.to_string() {
        return Err(Refusal::ClientId);
    }
    let Some(will) = &connect.will else { return Ok(None) };
    let own = Topic::parse(&will.topic) == Some(Topic::Up(agent, Stream::Presence));
    if !own || will.retain || will.qos > 1 {
        return Err(Refusal::Will);
    }
    Ok(Some(will.payload.clone()))
}

/// The stream that a publish of this agent goes to.
pub(crate) fn publish(agent: AgentId, publish: &Publish) -> Result<Stream, Refusal> {
    match Topic::parse(&publish.topic) {
        _ if publish.retain => Err(Refusal::Retained),
        Some(Topic::Up(of, stream)) if of == agent => Ok(stream),
        _ => Err(Refusal::Topic),
    }
}

/// The codes of a SUBACK, and the QoS of the agent's own filter if it was among them.
pub(crate) fn subscribe(agent: AgentId, subscribe: &Subscribe) -> (Vec<u8>, Option<u8>) {
    let own = down_filter(agent);
    let mut granted = None;
    let codes = subscribe
        .filters
        .iter()
        .map(|(filter, qos)| if *filter == own { *granted.insert((*qos).min(1)) } else { FILTER_REFUSED })
        .collect();
    (codes, granted)
}

/// How long an agent may be silent: one and a half times its keep-alive, as the standard says, or of
/// `longest` where it asks for more or for none.
pub(crate) fn silence(keep_alive: u16, longest: Duration) -> Duration {
    let asked = Duration::from_secs(keep_alive.into());
    let kept = if asked.is_zero() { longest } else { asked.min(longest) };
    kept * 3 / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packets::Will;

    fn agents() -> (AgentId, AgentId) {
        (AgentId::from_random([1; 16]), AgentId::from_random([2; 16]))
    }

    #[test]
    fn only_own_streams_are_published_to() {
        let (me, other) = agents();
        let check = |topic: String, retain| {
            publish(me, &Publish { topic, payload: Bytes::new(), qos: 1, id: 1, retain })
        };
        for stream in Stream::ALL {
            assert_eq!(check(Topic::Up(me, stream).to_string(), false), Ok(stream));
            assert_eq!(check(Topic::Up(other, stream).to_string(), false), Err(Refusal::Topic));
        }
        assert_eq!(check(Topic::Up(me, Stream::Events).to_string(), true), Err(Refusal::Retained));
        for topic in [
            format!("/tenants/{me}/down/ack"),
            format!("/tenants/{me}/up/other"),
            format!("/tenants/{me}/up/#"),
            format!("/tenants/{me}/up/telemetry/x"),
            "é".to_owned(),
            "$SYS/x".to_owned(),
            "/door/ping".to_owned(),
            String::new(),
        ] {
            assert_eq!(check(topic.clone(), false), Err(Refusal::Topic), "{topic}");
        }
    }

    #[test]
    fn only_the_own_filter_is_granted() {
        let (me, other) = agents();
        let ask = |filters: &[(String, u8)]| subscribe(me, &Subscribe { id: 1, filters: filters.to_vec() });
        assert_eq!(ask(&[(down_filter(me), 2)]), (vec![1], Some(1)));
        assert_eq!(ask(&[(down_filter(me), 0)]), (vec![0], Some(0)));
        for filter in [
            down_filter(other),
            "#".into(),
            "+/+/+/+/+".into(),
            "/tenants/+/down/#".into(),
            format!("$share/g/{}", down_filter(me)),
            format!("/tenants/{me}/#"),
            format!("/tenants/{me}/up/#"),
            format!("/tenants/{me}/down/ack"),
        ] {
            assert_eq!(ask(&[(filter.clone(), 1)]), (vec![FILTER_REFUSED], None), "{filter}");
            assert_eq!(ask(&[(filter, 1), (down_filter(me), 1)]), (vec![FILTER_REFUSED, 1], Some(1)));
        }
    }

    #[test]
    fn a_will_goes_to_the_own_presence() {
        let (me, other) = agents();
        let check = |client: AgentId, topic: Topic, retain, qos| {
            let will = Will { topic: topic.to_string(), payload: Bytes::from_static(b"w"), qos, retain };
            connect(me, &Connect { client: client.to_string(), keep_alive: 30, will: Some(will) })
        };
        let presence = Topic::Up(me, Stream::Presence);
        assert_eq!(check(me, presence, false, 1), Ok(Some(Bytes::from_static(b"w"))));
        assert_eq!(check(other, presence, false, 1), Err(Refusal::ClientId));
        assert_eq!(check(me, presence, true, 1), Err(Refusal::Will));
        assert_eq!(check(me, presence, false, 2), Err(Refusal::Will));
        assert_eq!(check(me, Topic::Up(me, Stream::Events), false, 1), Err(Refusal::Will));
        assert_eq!(check(me, Topic::Up(other, Stream::Presence), false, 1), Err(Refusal::Will));
    }

    #[test]
    fn keep_alive_is_bounded() {
        let longest = Duration::from_secs(600);
        assert_eq!(silence(30, longest), Duration::from_secs(45));
        assert_eq!(silence(0, longest), Duration::from_secs(900));
        assert_eq!(silence(u16::MAX, longest), Duration::from_secs(900));
    }
}
