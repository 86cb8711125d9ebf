//! The machines a farm can hold: nameplate values, how long things take, which writes work.
//!
//! Times are those seen in the field (minutes to full hashrate after a wake-up); `time_scale` divides
//! them when a farm starts. Rates, uptime and clocks are never scaled.

mod web;

use serde::Serialize;
use std::fmt;
use std::str::FromStr;
use web::{AURADINE, AXEOS, EPIC, FUTUREBIT, GOLDSHELL, PROTO, VNISH};

/// A firmware family; the names are those of the firmware profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(into = "&'static str")]
pub enum Family {
    Antminer,
    Whatsminer,
    Avalon,
    Braiins,
    Luxos,
    Cgminer,
    Vnish,
    Epic,
    Auradine,
    Axeos,
    Proto,
    Goldshell,
    Futurebit,
    WhatsminerV3,
    Sealminer,
    Marathon,
    Hiveon,
    Hammer,
    Elphapex,
}

impl Family {
    pub const ALL: [Self; 19] = [
        Self::Antminer,
        Self::Whatsminer,
        Self::Avalon,
        Self::Braiins,
        Self::Luxos,
        Self::Cgminer,
        Self::Vnish,
        Self::Epic,
        Self::Auradine,
        Self::Axeos,
        Self::Proto,
        Self::Goldshell,
        Self::Futurebit,
        Self::WhatsminerV3,
        Self::Sealminer,
        Self::Marathon,
        Self::Hiveon,
        Self::Hammer,
        Self::Elphapex,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Antminer => "antminer-stock",
            Self::Whatsminer => "whatsminer-v2",
            Self::Avalon => "avalon",
            Self::Braiins => "braiins",
            Self::Luxos => "luxos",
            Self::Cgminer => "cgminer",
            Self::Vnish => "vnish",
            Self::Epic => "epic",
            Self::Auradine => "auradine",
            Self::Axeos => "axeos",
            Self::Proto => "proto",
            Self::Goldshell => "goldshell",
            Self::Futurebit => "futurebit",
            Self::WhatsminerV3 => "whatsminer-v3",
            Self::Sealminer => "sealminer",
            Self::Marathon => "marathon",
            Self::Hiveon => "hiveon",
            Self::Hammer => "hammer",
            Self::Elphapex => "elphapex",
        }
    }

    /// The name of the family's factory credentials in an agent's store; empty where none are needed.
    pub fn credentials(self) -> &'static str {
        match self {
            Self::Antminer | Self::Marathon | Self::Hiveon | Self::Hammer | Self::Elphapex => "antminer-root",
            Self::Whatsminer => "whatsminer-admin",
            // Its makers give none: whoever runs the farm puts `family::proto::PASSWORD` under this name.
            Self::Proto => "proto-rig",
            _ => "",
        }
    }

    /// Whether the device has a web server that matters.
    pub fn has_web(self) -> bool {
        self.has_pages() || self.has_web_api() || matches!(self, Self::Marathon | Self::Elphapex)
    }

    /// Whether its web pages are those of Bitmain's firmware, and its CGMiner API reads only.
    pub fn has_pages(self) -> bool {
        matches!(self, Self::Antminer | Self::Hiveon | Self::Hammer)
    }

    /// Whether the device is controlled over a web API.
    pub fn has_web_api(self) -> bool {
        matches!(
            self,
            Self::Vnish
                | Self::Epic
                | Self::Braiins
                | Self::Auradine
                | Self::Axeos
                | Self::Proto
                | Self::Goldshell
                | Self::Futurebit
        )
    }

    /// What listens on the port of the CGMiner API.
    pub fn api(self) -> Api {
        match self {
            Self::Epic => Api::Http,
            Self::Axeos | Self::Proto | Self::Futurebit | Self::Marathon | Self::Elphapex => Api::Nothing,
            _ => Api::Cgminer,
        }
    }
}

/// What listens on the port of the CGMiner API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    Cgminer,
    /// The web server.
    Http,
    Nothing,
}

impl From<Family> for &'static str {
    fn from(family: Family) -> Self {
        family.name()
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Family {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "antminer" => Ok(Self::Antminer),
            "whatsminer" => Ok(Self::Whatsminer),
            "generic" => Ok(Self::Cgminer),
            _ => Self::ALL.into_iter().find(|f| f.name() == text).ok_or_else(|| {
                let names: Vec<_> = Self::ALL.iter().map(|f| f.name()).collect();
                format!("\"{text}\" is no family; known are {}", names.join(", "))
            }),
        }
    }
}

/// Which write of a stock Antminer's mode takes effect. Every other shape is answered with the same
/// success and dropped, as the real ones do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteShape {
    /// `miner-mode` as an integer, alone or in a document (S19j Pro, S19K Pro).
    MinerMode,
    /// The whole document with `miner-mode` as an integer and no `bitmain-work-mode`, sent as
    /// `text/plain` (S19 XP).
    WholeTextPlain,
    /// The whole document with both keys as integers (S21+).
    WholeBoth,
    /// `bitmain-work-mode` alone or in a document, string or integer (S21e and the like).
    WorkMode,
    /// Not an Antminer.
    None,
}

/// Seconds that a machine takes, before `time_scale`.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// From a taken stop to the first drop of power.
    pub stop_delay: f64,
    pub stop_ramp: f64,
    /// From a taken wake-up to the start of the boot.
    pub wake_delay: f64,
    /// Mining process up, hash boards not yet.
    pub boot: f64,
    /// From the first hash to the full rate.
    pub ramp: f64,
    /// The API does not answer after a mode change.
    pub api_gap: f64,
    /// From a write to its reply.
    pub reply: f64,
    /// The whole machine is gone in a reboot.
    pub down: f64,
}

/// One product.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    pub family: Family,
    /// As the device names itself.
    pub name: &'static str,
    /// Firmware build or compile time, as the device writes it.
    pub build: &'static str,
    /// Nameplate hashrate, TH/s.
    pub terahash: f64,
    /// Nameplate power at the wall, W.
    pub watts: f64,
    /// Power at the wall while asleep, W.
    pub standby: f64,
    pub boards: u8,
    pub chips_per_board: u16,
    pub fans: u8,
    /// Chip temperature at nameplate power, °C.
    pub hot: f64,
    /// Chip frequency at nameplate, MHz.
    pub mhz: u16,
    /// Share difficulty its pool sets.
    pub difficulty: f64,
    pub shape: WriteShape,
    /// Old-style replies: `}{` between rows, numbers as strings.
    pub old_style: bool,
    /// A stopped device stays stopped over a reboot.
    pub sleep_survives_reboot: bool,
    pub times: Times,
}

const ANTMINER_TIMES: Times = Times {
    stop_delay: 10.0,
    stop_ramp: 15.0,
    wake_delay: 8.0,
    boot: 75.0,
    ramp: 240.0,
    api_gap: 8.0,
    reply: 1.5,
    down: 60.0,
};
const WHATSMINER_TIMES: Times = Times {
    stop_delay: 3.0,
    stop_ramp: 6.0,
    wake_delay: 2.0,
    boot: 40.0,
    ramp: 400.0,
    api_gap: 0.0,
    reply: 0.3,
    down: 45.0,
};
const AVALON_TIMES: Times = Times {
    stop_delay: 1.0,
    stop_ramp: 4.0,
    wake_delay: 1.0,
    boot: 60.0,
    ramp: 150.0,
    api_gap: 0.0,
    reply: 0.0,
    down: 30.0,
};
const BRAIINS_TIMES: Times = Times {
    stop_delay: 1.0,
    stop_ramp: 7.0,
    wake_delay: 1.0,
    boot: 40.0,
    ramp: 300.0,
    api_gap: 0.0,
    reply: 0.0,
    down: 60.0,
};
const LUXOS_TIMES: Times = Times {
    stop_delay: 1.0,
    stop_ramp: 3.0,
    wake_delay: 1.0,
    boot: 5.0,
    ramp: 10.0,
    api_gap: 0.0,
    reply: 0.0,
    down: 50.0,
};
const CGMINER_TIMES: Times = Times {
    stop_delay: 0.5,
    stop_ramp: 1.0,
    wake_delay: 0.5,
    boot: 2.0,
    ramp: 5.0,
    api_gap: 0.0,
    reply: 0.0,
    down: 10.0,
};

const ANTMINER: Model = Model {
    family: Family::Antminer,
    name: "Antminer S21",
    build: "Thu Jul 11 16:38:25 CST 2024",
    terahash: 200.0,
    watts: 3500.0,
    standby: 22.0,
    boards: 3,
    chips_per_board: 108,
    fans: 4,
    hot: 72.0,
    mhz: 490,
    difficulty: 262_144.0,
    shape: WriteShape::WorkMode,
    old_style: false,
    sleep_survives_reboot: true,
    times: ANTMINER_TIMES,
};

/// All models, the first of a family being its commonest.
pub const MODELS: &[Model] = &[
    Model {
        name: "Antminer S19j Pro",
        build: "Mon Dec 26 17:10:01 CST 2022",
        terahash: 104.0,
        watts: 3068.0,
        chips_per_board: 126,
        mhz: 525,
        shape: WriteShape::MinerMode,
        old_style: true,
        // The hashrate of these does not fall within a minute of the write, and the reply takes long.
        times: Times { stop_delay: 75.0, reply: 21.0, ..ANTMINER_TIMES },
        ..ANTMINER
    },
    ANTMINER,
    Model {
        name: "Antminer S19 XP",
        build: "Wed Nov 22 14:09:30 CST 2023",
        terahash: 140.0,
        watts: 3010.0,
        chips_per_board: 110,
        mhz: 575,
        shape: WriteShape::WholeTextPlain,
        times: Times { ramp: 420.0, reply: 3.0, ..ANTMINER_TIMES },
        ..ANTMINER
    },
    Model {
        name: "Antminer S19K Pro",
        build: "Tue Sep 19 10:38:20 CST 2023",
        terahash: 120.0,
        watts: 2760.0,
        chips_per_board: 77,
        mhz: 580,
        shape: WriteShape::MinerMode,
        ..ANTMINER
    },
    Model {
        name: "Antminer S21+",
        build: "Fri Feb 7 11:15:49 CST 2025",
        terahash: 216.0,
        watts: 3564.0,
        chips_per_board: 130,
        mhz: 515,
        shape: WriteShape::WholeBoth,
        ..ANTMINER
    },
    WHATSMINER,
    Model {
        name: "M50_VH50",
        build: "20230803.11.REL",
        terahash: 118.0,
        watts: 3276.0,
        chips_per_board: 135,
        mhz: 600,
        ..WHATSMINER
    },
    AVALON,
    Model {
        name: "1246-83",
        build: "21072802_4ec6bb0_211fc46",
        terahash: 83.0,
        watts: 3320.0,
        standby: 15.0,
        fans: 4,
        mhz: 502,
        ..AVALON
    },
    Model {
        name: "15-194",
        build: "24102401_25462b2_9ddf522",
        terahash: 194.0,
        watts: 3731.0,
        standby: 17.0,
        chips_per_board: 160,
        mhz: 346,
        ..AVALON
    },
    BRAIINS,
    // The older version, with GraphQL.
    Model {
        name: "Antminer S19",
        terahash: 95.0,
        watts: 3250.0,
        chips_per_board: 76,
        old_style: true,
        ..BRAIINS
    },
    VNISH,
    Model {
        name: "Antminer S19 Pro Hydro",
        terahash: 184.0,
        watts: 5428.0,
        boards: 4,
        fans: 0,
        mhz: 585,
        ..VNISH
    },
    EPIC,
    AURADINE,
    AXEOS,
    Model {
        name: "NerdQAxe++",
        build: "v1.0.36",
        terahash: 4.8,
        watts: 76.0,
        standby: 4.0,
        chips_per_board: 4,
        fans: 2,
        ..AXEOS
    },
    PROTO,
    GOLDSHELL,
    FUTUREBIT,
    LUXOS,
    Model { name: "Antminer S21", terahash: 200.0, watts: 3550.0, chips_per_board: 108, mhz: 490, ..LUXOS },
    Model {
        family: Family::WhatsminerV3,
        name: "M60S_VK40",
        build: "20251209.16.Rel2",
        terahash: 186.0,
        watts: 3440.0,
        ..WHATSMINER
    },
    Model {
        family: Family::Sealminer,
        name: "A2",
        build: "2025091001",
        terahash: 220.0,
        watts: 3500.0,
        standby: 30.0,
        chips_per_board: 153,
        fans: 4,
        mhz: 346,
        ..WHATSMINER
    },
    Model {
        family: Family::Marathon,
        name: "Antminer S19j Pro",
        build: "MaraFW rel 3.14_584",
        terahash: 104.0,
        watts: 3068.0,
        standby: 25.0,
        chips_per_board: 126,
        ..ANTMINER
    },
    Model {
        family: Family::Hiveon,
        name: "Antminer S19x88 Hiveon",
        build: "Thu Apr 10 18:12:59 UTC 2025",
        terahash: 63.0,
        watts: 1890.0,
        chips_per_board: 88,
        shape: WriteShape::MinerMode,
        ..ANTMINER
    },
    Model {
        family: Family::Hammer,
        name: "Hammer D10",
        build: "2023-05-28 17-20-35 CST",
        terahash: 0.005,
        watts: 3300.0,
        standby: 35.0,
        shape: WriteShape::WorkMode,
        ..ANTMINER
    },
    Model {
        family: Family::Elphapex,
        name: "DG1",
        build: "DG1_SW_V1.0.2",
        terahash: 0.011,
        watts: 3420.0,
        standby: 40.0,
        boards: 4,
        shape: WriteShape::WorkMode,
        ..ANTMINER
    },
    Model {
        family: Family::Cgminer,
        name: "GSX",
        build: "4.13.1",
        terahash: 0.32,
        watts: 9.0,
        standby: 1.0,
        boards: 1,
        chips_per_board: 1,
        fans: 0,
        hot: 58.0,
        mhz: 400,
        difficulty: 1024.0,
        shape: WriteShape::None,
        old_style: false,
        sleep_survives_reboot: false,
        times: CGMINER_TIMES,
    },
];

const WHATSMINER: Model = Model {
    family: Family::Whatsminer,
    name: "M30S++_VH40",
    build: "20230714.15.Rel",
    terahash: 112.0,
    watts: 3472.0,
    standby: 13.0,
    boards: 3,
    chips_per_board: 111,
    fans: 2,
    hot: 82.0,
    mhz: 648,
    difficulty: 262_144.0,
    shape: WriteShape::None,
    old_style: false,
    sleep_survives_reboot: false,
    times: WHATSMINER_TIMES,
};

const AVALON: Model = Model {
    family: Family::Avalon,
    name: "1346-110",
    build: "24041001_08b0955_0196aba",
    terahash: 110.0,
    watts: 3348.0,
    standby: 11.0,
    boards: 3,
    chips_per_board: 120,
    fans: 2,
    hot: 76.0,
    mhz: 600,
    difficulty: 262_144.0,
    shape: WriteShape::None,
    old_style: false,
    sleep_survives_reboot: false,
    times: AVALON_TIMES,
};

const BRAIINS: Model = Model {
    family: Family::Braiins,
    name: "Antminer S19J Pro",
    build: "boser-buildroot 0.1.0-45f356ea",
    terahash: 104.0,
    watts: 3068.0,
    standby: 28.0,
    boards: 3,
    chips_per_board: 126,
    fans: 4,
    hot: 74.0,
    mhz: 545,
    difficulty: 131_072.0,
    shape: WriteShape::None,
    old_style: false,
    sleep_survives_reboot: false,
    times: BRAIINS_TIMES,
};

const LUXOS: Model = Model {
    family: Family::Luxos,
    name: "Antminer S19k Pro",
    build: "2025.4.8.220305-57b389c7",
    terahash: 120.0,
    watts: 2760.0,
    standby: 25.0,
    boards: 3,
    chips_per_board: 77,
    fans: 4,
    hot: 66.0,
    mhz: 590,
    difficulty: 131_072.0,
    shape: WriteShape::None,
    old_style: false,
    sleep_survives_reboot: true,
    times: LUXOS_TIMES,
};

/// The models of a family.
pub fn of(family: Family) -> impl Iterator<Item = &'static Model> {
    MODELS.iter().filter(move |m| m.family == family)
}
