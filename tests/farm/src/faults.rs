//! What can go wrong with a device, switched on at the start or while a farm runs.

use crate::models::Family;
use serde::Deserialize;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A kind of fault. `value` is its parameter, in the unit given here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Takes the request and never answers; on a single-threaded API nobody else is served meanwhile.
    Hang,
    /// Refuses connections. True refusal needs `own_listeners`; behind a wildcard listener the
    /// connection is reset right after it was accepted.
    Refuse,
    /// Says yes to writes and ignores them.
    Lie,
    /// Writes take effect `value` seconds later than usual (120).
    Late,
    /// Replies trickle over `value` milliseconds (3000).
    Slow,
    /// The connection is reset in mid-reply.
    Reset,
    /// The reply ends early and without its NUL, with an ordinary FIN.
    Truncated,
    /// The address is silent: connections stand, nothing is ever answered, no power is drawn.
    Die,
    /// Reboots by itself, at once and then every `value` seconds (0 = once).
    Reboot,
    /// Wakes by itself after having slept for `value` seconds (60).
    Wake,
    /// Says that it stopped and goes on hashing.
    NoEffect,
    /// A stop or a wake-up moves a setting that nobody named.
    Moves,
    /// Reports 0 W and 0 rpm whatever it draws, as water-cooled Antminers do.
    ZeroPower,
    /// Tokens are good for `value` seconds only (2).
    Expire,
    /// Refuses every password.
    Locked,
    /// The water of hydro models is too cold to start.
    ColdWater,
    /// Another client holds the only session, or all tokens.
    Busy,
    /// Replies are followed by `value` KiB of rubbish (2048).
    Oversized,
}

impl FaultKind {
    pub const ALL: [Self; 18] = [
        Self::Hang,
        Self::Refuse,
        Self::Lie,
        Self::Late,
        Self::Slow,
        Self::Reset,
        Self::Truncated,
        Self::Die,
        Self::Reboot,
        Self::Wake,
        Self::NoEffect,
        Self::Moves,
        Self::ZeroPower,
        Self::Expire,
        Self::Locked,
        Self::ColdWater,
        Self::Busy,
        Self::Oversized,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Hang => "hang",
            Self::Refuse => "refuse",
            Self::Lie => "lie",
            Self::Late => "late",
            Self::Slow => "slow",
            Self::Reset => "reset",
            Self::Truncated => "truncated",
            Self::Die => "die",
            Self::Reboot => "reboot",
            Self::Wake => "wake",
            Self::NoEffect => "no_effect",
            Self::Moves => "moves",
            Self::ZeroPower => "zero_power",
            Self::Expire => "expire",
            Self::Locked => "locked",
            Self::ColdWater => "cold_water",
            Self::Busy => "busy",
            Self::Oversized => "oversized",
        }
    }

    /// The parameter when none is given.
    pub fn default_value(self) -> f64 {
        match self {
            Self::Late => 120.0,
            Self::Slow => 3_000.0,
            Self::Wake => 60.0,
            Self::Expire => 2.0,
            Self::Oversized => 2_048.0,
            _ => 0.0,
        }
    }
}

impl FromStr for FaultKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|k| k.name() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|k| k.name()).collect();
            format!("\"{text}\" is no fault; known are {}", names.join(", "))
        })
    }
}

/// An order to switch a fault on or off: the form of the faults file (one JSON object a line) and of
/// the control socket.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultOrder {
    pub kind: FaultKind,
    /// One device; else all that the next two leave.
    #[serde(default)]
    pub device: Option<Ipv4Addr>,
    #[serde(default, deserialize_with = "family")]
    pub family: Option<Family>,
    /// A share of those, 0 to 1, picked by the seed.
    #[serde(default)]
    pub share: Option<f64>,
    #[serde(default = "yes")]
    pub on: bool,
    /// Seconds from now; at once when absent.
    #[serde(default)]
    pub after_s: Option<f64>,
    /// For that many seconds; for good when absent.
    #[serde(default)]
    pub for_s: Option<f64>,
    #[serde(default)]
    pub value: Option<f64>,
}

impl FaultOrder {
    /// `kind` on a share of all devices.
    pub fn share(kind: FaultKind, share: f64, value: Option<f64>) -> Self {
        Self {
            kind,
            device: None,
            family: None,
            share: Some(share),
            on: true,
            after_s: None,
            for_s: None,
            value,
        }
    }

    /// `kind` on one device, for good.
    pub fn on(kind: FaultKind, device: Ipv4Addr) -> Self {
        Self { device: Some(device), share: None, ..Self::share(kind, 0.0, None) }
    }

    /// `kind` off on one device.
    pub fn off(kind: FaultKind, device: Ipv4Addr) -> Self {
        Self { on: false, ..Self::on(kind, device) }
    }
}

fn yes() -> bool {
    true
}

fn family<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Family>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|t| t.parse().map_err(serde::de::Error::custom)).transpose()
}

/// A fault that a device has; times in seconds since the farm started.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kind: FaultKind,
    pub from: f64,
    pub until: f64,
    pub value: f64,
    /// When it last fired, for the kinds that fire.
    pub fired: f64,
}

/// The faults of one device; at most one of a kind.
#[derive(Clone, Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub fn set(&mut self, order: &FaultOrder, t: f64) {
        self.0.retain(|f| f.kind != order.kind);
        if order.on {
            let from = t + order.after_s.unwrap_or(0.0).max(0.0);
            let until = order.for_s.map_or(f64::INFINITY, |s| from + s.max(0.0));
            let value = order.value.filter(|v| v.is_finite()).unwrap_or(order.kind.default_value());
            self.0.push(Fault { kind: order.kind, from, until, value, fired: f64::NEG_INFINITY });
        }
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault of this kind, if it is active at `t`.
    pub fn active(&self, kind: FaultKind, t: f64) -> Option<&Fault> {
        self.0.iter().find(|f| f.kind == kind && f.from <= t && t < f.until)
    }

    pub fn get_mut(&mut self, kind: FaultKind) -> Option<&mut Fault> {
        self.0.iter_mut().find(|f| f.kind == kind)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_reads_from_a_line() {
        let order: FaultOrder =
            serde_json::from_str(r#"{"kind":"late","family":"whatsminer","share":0.1,"value":30}"#)
                .expect("valid");
        assert_eq!(
            (order.kind, order.family, order.value),
            (FaultKind::Late, Some(Family::Whatsminer), Some(30.0))
        );
        for bad in [
            r#"{"kind":"nothing"}"#,
            r#"{"kind":"lie","divice":"127.0.0.1"}"#,
            r#"{"kind":"lie","family":"x"}"#,
        ] {
            assert!(serde_json::from_str::<FaultOrder>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_fault_has_a_window() {
        let mut faults = Faults::default();
        let order = FaultOrder {
            after_s: Some(5.0),
            for_s: Some(10.0),
            ..FaultOrder::on(FaultKind::Hang, Ipv4Addr::LOCALHOST)
        };
        faults.set(&order, 100.0);
        let at = |t| faults.active(FaultKind::Hang, t).is_some();
        assert_eq!([at(104.0), at(105.0), at(114.0), at(115.0)], [false, true, true, false]);
    }
}
