//! What the values of a reading are, and which of them come in lists.

/// What a value is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    Hashrate,
    RateUnit,
    Power,
    Limit,
    Uptime,
    Accepted,
    Rejected,
    Stale,
    VendorMode,
    FanCount,
    Mining,
    Mode,
    /// Whether the locating light is on.
    Locating,
    Model,
    Version,
    Serial,
    Mac,
    Profile,
    Temp,
    Fan,
    BoardRate,
    BoardTemp,
    PoolUrl,
    PoolHost,
    PoolPort,
    PoolWorker,
    PoolAccepted,
    PoolRejected,
    PoolStale,
    PoolAlive,
    /// The index of the pool that values without an index are about.
    PoolInUse,
    Error,
    ErrorText,
}

impl Target {
    /// How many there are.
    pub const COUNT: usize = Self::NAMES.len();

    const NAMES: [(&'static str, Self); 33] = [
        ("hashrate", Self::Hashrate),
        ("rate_unit", Self::RateUnit),
        ("power", Self::Power),
        ("limit", Self::Limit),
        ("uptime", Self::Uptime),
        ("accepted", Self::Accepted),
        ("rejected", Self::Rejected),
        ("stale", Self::Stale),
        ("vendor_mode", Self::VendorMode),
        ("fan_count", Self::FanCount),
        ("mining", Self::Mining),
        ("mode", Self::Mode),
        ("locating", Self::Locating),
        ("model", Self::Model),
        ("version", Self::Version),
        ("serial", Self::Serial),
        ("mac", Self::Mac),
        ("profile", Self::Profile),
        ("temp", Self::Temp),
        ("fan", Self::Fan),
        ("board.hashrate", Self::BoardRate),
        ("board.temp", Self::BoardTemp),
        ("pool.url", Self::PoolUrl),
        ("pool.host", Self::PoolHost),
        ("pool.port", Self::PoolPort),
        ("pool.worker", Self::PoolWorker),
        ("pool.accepted", Self::PoolAccepted),
        ("pool.rejected", Self::PoolRejected),
        ("pool.stale", Self::PoolStale),
        ("pool.alive", Self::PoolAlive),
        ("pool_in_use", Self::PoolInUse),
        ("error", Self::Error),
        ("error.text", Self::ErrorText),
    ];

    /// The target of a name in a profile.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
    }

    /// Values that come in lists, which one block gives whole.
    pub fn list(self) -> Option<List> {
        match self {
            Self::Temp => Some(List::Temps),
            Self::Fan => Some(List::Fans),
            Self::BoardRate | Self::BoardTemp => Some(List::Boards),
            Self::PoolUrl
            | Self::PoolHost
            | Self::PoolPort
            | Self::PoolWorker
            | Self::PoolAccepted
            | Self::PoolRejected
            | Self::PoolStale
            | Self::PoolAlive => Some(List::Pools),
            Self::Error | Self::ErrorText => Some(List::Errors),
            _ => None,
        }
    }

    pub(super) fn is_quantity(self) -> bool {
        matches!(self, Self::Hashrate | Self::BoardRate | Self::Power | Self::Limit | Self::Uptime)
    }

    pub(super) fn takes_words(self) -> bool {
        matches!(self, Self::Mining | Self::Mode | Self::Locating | Self::PoolAlive)
    }
}

/// The lists of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum List {
    Temps,
    Fans,
    Boards,
    Pools,
    Errors,
}

impl List {
    pub const COUNT: usize = Self::ALL.len();

    pub const ALL: [Self; 5] = [Self::Temps, Self::Fans, Self::Boards, Self::Pools, Self::Errors];
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots are found by a target's number, so each has one.
    #[test]
    fn every_target_has_a_slot_and_a_name() {
        for (n, (name, target)) in Target::NAMES.into_iter().enumerate() {
            assert_eq!((target as usize, Target::named(name)), (n, Some(target)));
        }
        for (n, list) in List::ALL.into_iter().enumerate() {
            assert_eq!(list as usize, n);
        }
    }
}
