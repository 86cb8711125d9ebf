//! Typed ids: 128 random bits each, so that a `SiteId` can't be passed as a `MinerId`.
//!
//! Made by the caller from random bytes: this crate has no source of randomness of its own.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;
use uuid::Uuid;

/// A text that is not an id.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("\"{text}\" is not {what}")]
pub struct NotAnId {
    text: String,
    what: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $format:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Marks 16 random bytes as a version 4 UUID.
            pub fn from_random(bytes: [u8; 16]) -> Self {
                Self(uuid::Builder::from_random_bytes(bytes).into_uuid().into_bytes())
            }

            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", Uuid::from_bytes(self.0).$format())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let id = Uuid::try_parse(text).ok().map(|id| Self(id.into_bytes()));
                // Only the one spelling is taken, so that text and id stay one to one.
                id.filter(|id| id.to_string() == text).ok_or_else(|| NotAnId {
                    text: text.chars().take(64).collect(),
                    what: $what,
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
                } else {
                    Deserialize::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

id!(
    /// An agent; written as 32 hex digits, the same as its certificate's CN and O and its topic level.
    AgentId, "an agent id (32 lower-case hex digits)", simple
);
id!(
    /// A hosting location.
    SiteId, "a site id (a lower-case UUID)", hyphenated
);
id!(
    /// One device, whatever its address, control board or serial number.
    MinerId, "a miner id (a lower-case UUID)", hyphenated
);
id!(
    /// An operator's order; its runs at sites are dispatches.
    PlanId, "a plan id (a lower-case UUID)", hyphenated
);
id!(
    /// A signed order, a repeat of which returns the stored result.
    OrderId, "an order id (a lower-case UUID)", hyphenated
);
id!(
    /// A person who signs in.
    UserId, "a user id (a lower-case UUID)", hyphenated
);
id!(
    /// The life of one outbox or journal file: a new file has a new epoch.
    Epoch, "an epoch (a lower-case UUID)", hyphenated
);
id!(
    /// One boot of a machine, as its kernel names it.
    BootId, "a boot id (a lower-case UUID)", hyphenated
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let id = AgentId::from_random([0xa7; 16]);
        assert_eq!(id.to_string().len(), 32);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().to_uppercase().parse::<AgentId>().is_err());
        assert!(MinerId::from_random([0xa7; 16]).to_string().parse::<AgentId>().is_err());
        assert!("".parse::<AgentId>().is_err());
    }

    #[test]
    fn text_in_json_and_bytes_on_the_wire() {
        let id = MinerId::from_random([1; 16]);
        assert_eq!(serde_json::to_string(&id).expect("json"), format!("\"{id}\""));
        assert_eq!(postcard::to_stdvec(&id).expect("postcard"), id.as_bytes());
    }
}
