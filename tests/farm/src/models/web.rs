//! The machines of families with a web API.

use super::{Family, Model, Times, WriteShape};

pub(super) const VNISH: Model = Model {
    family: Family::Vnish,
    name: "Antminer S21 Pro",
    build: "1.2.7",
    terahash: 234.0,
    watts: 3510.0,
    standby: 27.0,
    boards: 3,
    chips_per_board: 65,
    fans: 4,
    hot: 70.0,
    mhz: 555,
    difficulty: 262_144.0,
    shape: WriteShape::None,
    old_style: false,
    sleep_survives_reboot: true,
    times: VNISH_TIMES,
};

const VNISH_TIMES: Times = Times {
    stop_delay: 1.0,
    stop_ramp: 14.0,
    wake_delay: 2.0,
    boot: 60.0,
    ramp: 300.0,
    api_gap: 0.0,
    reply: 0.0,
    down: 70.0,
};

pub(super) const EPIC: Model = Model {
    family: Family::Epic,
    name: "AntMiner S19 XP",
    build: "PowerPlay-BMS v1.5.13",
    terahash: 143.0,
    watts: 3050.0,
    standby: 24.0,
    boards: 3,
    chips_per_board: 110,
    fans: 4,
    hot: 71.0,
    mhz: 485,
    difficulty: 262_144.0,
    shape: WriteShape::None,
    old_style: false,
    sleep_survives_reboot: false,
    times: Times { stop_ramp: 5.0, boot: 35.0, ramp: 200.0, ..VNISH_TIMES },
};

pub(super) const AURADINE: Model = Model {
    family: Family::Auradine,
    name: "AT1500",
    build: "FluxOS-2023-12.27-9bf070ee",
    terahash: 185.0,
    watts: 3515.0,
    standby: 59.0,
    chips_per_board: 132,
    ..EPIC
};

pub(super) const AXEOS: Model = Model {
    family: Family::Axeos,
    name: "Gamma",
    build: "v2.14.0",
    terahash: 1.2,
    watts: 18.0,
    standby: 1.5,
    boards: 1,
    chips_per_board: 1,
    fans: 1,
    hot: 60.0,
    mhz: 525,
    difficulty: 1024.0,
    times: Times {
        stop_delay: 0.5,
        stop_ramp: 1.0,
        wake_delay: 0.5,
        boot: 4.0,
        ramp: 20.0,
        down: 12.0,
        ..VNISH_TIMES
    },
    ..EPIC
};

pub(super) const PROTO: Model = Model {
    family: Family::Proto,
    name: "Proto Rig",
    build: "1.8.0",
    terahash: 819.0,
    watts: 12_000.0,
    standby: 55.0,
    boards: 9,
    fans: 6,
    sleep_survives_reboot: true,
    ..EPIC
};

pub(super) const GOLDSHELL: Model = Model {
    family: Family::Goldshell,
    name: "Goldshell-KD6",
    build: "2.2.5",
    terahash: 29.2,
    watts: 2630.0,
    standby: 34.0,
    boards: 4,
    chips_per_board: 16,
    sleep_survives_reboot: true,
    ..EPIC
};

pub(super) const FUTUREBIT: Model = Model {
    family: Family::Futurebit,
    name: "Apollo II",
    build: "2.0.6",
    terahash: 9.0,
    watts: 290.0,
    standby: 11.0,
    boards: 1,
    chips_per_board: 44,
    fans: 1,
    hot: 68.0,
    difficulty: 4096.0,
    ..EPIC
};
