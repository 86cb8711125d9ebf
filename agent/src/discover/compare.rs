//! What was found, beside what is known: by identity first, by address only where there is none. Pure.

use crate::discover::scan::Found;
use crate::inventory::address_of;
use crate::live::identity::{Known, Match};
use crate::live::known;
use crate::store::InventoryMiner;
use hashinsight_protocol::ids::MinerId;
use serde::Serialize;
use std::collections::HashMap;
use std::net::IpAddr;

/// What a device is to the inventory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "standing")]
pub enum Standing {
    /// Not in the inventory.
    New,
    /// Where it is expected.
    Known { miner: MinerId },
    /// A miner of the inventory, at another address than before.
    Moved { miner: MinerId, from: String },
    /// Not the miner that is expected here, and none that is known.
    Stranger { miner: MinerId },
    /// It says the same serial number or MAC as another device: it can't be told which is the miner.
    Ambiguous { miner: MinerId },
}

impl Standing {
    /// In the words of the table.
    pub fn word(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Known { .. } => "known",
            Self::Moved { .. } => "moved",
            Self::Stranger { .. } => "other device",
            Self::Ambiguous { .. } => "ambiguous",
        }
    }
}

/// The standing of each device that was found, in the same order.
pub fn compare(found: &[Found], inventory: &[InventoryMiner], api_port: u16) -> Vec<Standing> {
    let here = |miner: &InventoryMiner| (miner.ip, miner.api_port.unwrap_or(api_port));
    let at: HashMap<(IpAddr, u16), &InventoryMiner> = inventory.iter().map(|m| (here(m), m)).collect();
    let strong: Vec<(&InventoryMiner, Known)> = inventory
        .iter()
        .filter_map(|miner| {
            let known = known(miner.learned.as_ref()?);
            (!known.is_empty()).then_some((miner, known))
        })
        .collect();
    let who: Vec<Vec<&InventoryMiner>> = found
        .iter()
        .map(|found| {
            let seen = Known::of(&found.identified);
            let is_same = |known: &Known| known.compare(&seen) == Match::Same;
            strong.iter().filter(|(_, known)| is_same(known)).map(|(miner, _)| *miner).collect()
        })
        .collect();
    let mut claims: HashMap<MinerId, usize> = HashMap::new();
    who.iter().flatten().for_each(|miner| *claims.entry(miner.id).or_default() += 1);
    found
        .iter()
        .zip(&who)
        .map(|(found, who)| {
            let place = (IpAddr::V4(found.ip), api_port);
            let expected = at.get(&place);
            match who.as_slice() {
                [miner] if here(miner) == place => Standing::Known { miner: miner.id },
                [miner] if claims.get(&miner.id) == Some(&1) => {
                    Standing::Moved { miner: miner.id, from: address_of(miner).to_string() }
                }
                [miner, ..] => Standing::Ambiguous { miner: miner.id },
                [] => match expected {
                    None => Standing::New,
                    Some(miner) => {
                        let known = miner.learned.as_ref().map(known).unwrap_or_default();
                        match known.compare(&Known::of(&found.identified)) {
                            Match::Other => Standing::Stranger { miner: miner.id },
                            Match::Same | Match::Weak | Match::Unproven => {
                                Standing::Known { miner: miner.id }
                            }
                        }
                    }
                },
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::tests::{learned, miner};
    use crate::store::Learned;
    use hashinsight_firmware::Identified;

    fn found(last: u8, serial: &str) -> Found {
        let identified = Identified {
            firmware: "luxos".to_owned(),
            model: None,
            version: None,
            serial: (!serial.is_empty()).then(|| serial.to_owned()),
            mac: None,
            capabilities: Default::default(),
            standby: None,
            nameplate: None,
            joins: true,
        };
        Found { ip: [127, 0, 0, last].into(), identified, hashrate: None }
    }

    fn with(n: u8, serial: &str) -> InventoryMiner {
        let serial = (!serial.is_empty()).then(|| serial.to_owned());
        InventoryMiner { learned: Some(Learned { serial, ..learned("luxos") }), ..miner(n) }
    }

    #[test]
    fn identity_goes_before_address() {
        let inventory = [with(1, "A"), with(2, "B"), with(3, ""), miner(4), with(5, "E"), with(6, "F")];
        let seen = [
            found(1, "A"),
            found(2, "Z"),
            found(3, ""),
            found(4, "D"),
            found(5, "B"),
            found(7, "N"),
            found(8, ""),
            found(9, "F"),
            found(10, "F"),
        ];
        let id = |n: u8| miner(n).id;
        assert_eq!(
            compare(&seen, &inventory, 4028),
            [
                Standing::Known { miner: id(1) },
                Standing::Stranger { miner: id(2) },
                Standing::Known { miner: id(3) },
                Standing::Known { miner: id(4) },
                Standing::Moved { miner: id(2), from: "127.0.0.2".to_owned() },
                Standing::New,
                Standing::New,
                Standing::Ambiguous { miner: id(6) },
                Standing::Ambiguous { miner: id(6) },
            ]
        );
    }

    #[test]
    fn a_clone_of_a_miner_does_not_take_its_place() {
        let inventory = [with(1, "A")];
        let standings = compare(&[found(1, "A"), found(2, "A")], &inventory, 4028);
        let miner = miner(1).id;
        assert_eq!(standings, [Standing::Known { miner }, Standing::Ambiguous { miner }]);
    }
}
