//! What devices do instead of what they say, and how each is named.

use crate::bench::bench;
use hashinsight_farm::FaultKind;
use hashinsight_firmware::{Change, DeviceError};
use hashinsight_protocol::device::FactV1;
use hashinsight_protocol::units::Watts;

/// Families by firmware and model.
const ALL: &[(&str, &str)] = &[
    ("vnish", "Antminer S21 Pro"),
    ("epic", "AntMiner S19 XP"),
    ("braiins", "Antminer S19J Pro"),
    ("braiins", "Antminer S19"),
    ("auradine", "AT1500"),
    ("axeos", "Gamma"),
    ("axeos", "NerdQAxe++"),
    ("proto", "Proto Rig"),
    ("goldshell", "Goldshell-KD6"),
    ("futurebit", "Apollo II"),
];

/// Those that a stop needs a sign-in for.
const SIGN_IN: &[(&str, &str)] = &[
    ("vnish", "Antminer S21 Pro"),
    ("epic", "AntMiner S19 XP"),
    ("auradine", "AT1500"),
    ("goldshell", "Goldshell-KD6"),
    ("futurebit", "Apollo II"),
];

/// Those that report their power.
const METERED: &[(&str, &str)] = &[
    ("vnish", "Antminer S21 Pro"),
    ("epic", "AntMiner S19 XP"),
    ("auradine", "AT1500"),
    ("axeos", "Gamma"),
    ("proto", "Proto Rig"),
    ("futurebit", "Apollo II"),
];

#[tokio::test]
async fn accepted_and_ignored() {
    for (firmware, model) in ALL {
        let b = bench(firmware, model).await;
        let who = b.identify().await;
        let pre = b.pre(&who).await;
        b.fault(FaultKind::Lie, None);
        let lied = b.stop(&who, &pre).await.unwrap();
        assert_eq!((lied.accepted, lied.mode), (FactV1::Yes, FactV1::No), "{firmware}: {}", lied.detail);
        assert!(lied.detail.contains("accepted and ignored"), "{firmware}: {}", lied.detail);
        assert_eq!(b.state().phase, "mining");
    }
}

#[tokio::test]
async fn a_mode_without_effect() {
    for (firmware, model) in METERED {
        let b = bench(firmware, model).await;
        let who = b.identify().await;
        let (pre, running) = (b.pre(&who).await, b.read(&who).await);
        b.fault(FaultKind::NoEffect, None);
        let said = b.stop(&who, &pre).await.unwrap();
        assert_eq!(said.mode, FactV1::Yes, "{firmware}: {}", said.detail);
        b.pass(600);
        assert!(b.state().power_w > 0.5 * running.power.map_or(0.0, Watts::get), "{firmware}: it hashes on");
        let (mode, effect) = b.stopped(&who, running.power).await;
        assert_eq!((mode, effect), (FactV1::Yes, FactV1::No), "{firmware}: {:?}", b.read(&who).await);
    }
}

#[tokio::test]
async fn a_late_effect_is_neither_failure_nor_success() {
    for (firmware, model) in ALL {
        let b = bench(firmware, model).await;
        let who = b.identify().await;
        let (pre, running) = (b.pre(&who).await, b.read(&who).await);
        b.fault(FaultKind::Late, Some(3_000.0));
        let late = b.stop(&who, &pre).await.unwrap();
        // Some say at once that they stop, some only when they have.
        assert_eq!(late.accepted, FactV1::Yes, "{firmware}: {}", late.detail);
        assert_ne!(b.stopped(&who, running.power).await.1, FactV1::Yes, "{firmware}");
        b.pass(3_200);
        assert_eq!(b.stopped(&who, running.power).await, (FactV1::Yes, FactV1::Yes), "{firmware}");
    }
}

#[tokio::test]
async fn refused_credentials_are_named() {
    for (firmware, model) in SIGN_IN {
        let mut b = bench(firmware, model).await;
        let who = b.identify().await;
        let pre = b.pre(&who).await;
        b.fault(FaultKind::Locked, None);
        let error = b.stop(&who, &pre).await.unwrap_err();
        assert!(matches!(error, DeviceError::AuthRefused { .. }), "{firmware}: {error}");
        assert!(error.to_string().contains("the factory's password; set the miner's credentials"), "{error}");
        b.set_password("operator", "hush-hush");
        let error = b.stop(&who, &pre).await.unwrap_err().to_string();
        assert!(error.contains("the user \"operator\" with the password that is set"), "{error}");
        assert!(!error.contains("hush"), "{error}");
        assert_eq!(b.state().phase, "mining");
    }
}

#[tokio::test]
async fn tokens_that_run_out_are_had_anew() {
    for (firmware, model) in ALL {
        let b = bench(firmware, model).await;
        let who = b.identify().await;
        if !who.capabilities.locate {
            continue;
        }
        // Long enough for one request and its answer, at the farm's pace.
        b.fault(FaultKind::Expire, Some(900.0));
        for on in [true, false, true] {
            let outcome = b.change(&who, &Change::Locate { on }).await.unwrap();
            assert_eq!(outcome.mode, FactV1::Yes, "{firmware}: {}", outcome.detail);
            b.pass(1_800);
        }
    }
}

#[tokio::test]
async fn no_power_is_not_zero_power() {
    for (firmware, model) in METERED {
        let b = bench(firmware, model).await;
        let who = b.identify().await;
        b.fault(FaultKind::ZeroPower, None);
        let reading = b.read(&who).await;
        assert!(reading.power.is_none_or(|power| power.get() > 0.0), "{firmware}: {reading:?}");
        // A device that hashes and says 0 W is not proven to stand.
        assert_ne!(b.stopped(&who, Watts::new(3000.0)).await.1, FactV1::Yes, "{firmware}");
    }
}

#[tokio::test]
async fn a_setting_that_moved_is_put_back_and_named() {
    let b = bench("vnish", "Antminer S21 Pro").await;
    let who = b.identify().await;
    let pre = b.pre(&who).await;
    let hash = b.state().config_hash;
    b.fault(FaultKind::Moves, None);
    let error = b.stop(&who, &pre).await.unwrap_err();
    assert!(
        matches!(&error, DeviceError::FieldMoved { fields, restored: true, .. } if fields == "misc/restart_temp"),
        "{error}"
    );
    assert_eq!(b.state().config_hash, hash);
}

#[tokio::test]
async fn cold_water_is_not_woken_against() {
    let b = bench("vnish", "Antminer S19 Pro Hydro").await;
    let who = b.identify().await;
    let pre = b.pre(&who).await;
    b.stop(&who, &pre).await.unwrap();
    b.pass(400);
    b.fault(FaultKind::ColdWater, None);
    let writes = b.state().writes;
    let cold = b.wake(&who, &pre).await.unwrap();
    assert_eq!((cold.accepted, cold.mode), (FactV1::NotApplicable, FactV1::No));
    assert!(cold.detail.contains("its water has 8 °C and needs 15 °C"), "{}", cold.detail);
    assert_eq!(b.state().writes, writes, "nothing was sent");
    b.farm.clear_faults();
    let woken = b.wake(&who, &pre).await.unwrap();
    assert_eq!(woken.mode, FactV1::Yes, "{}", woken.detail);
}

#[tokio::test]
async fn a_wake_that_is_ignored_is_said() {
    for (firmware, model) in METERED {
        let b = bench(firmware, model).await;
        let who = b.identify().await;
        let pre = b.pre(&who).await;
        b.stop(&who, &pre).await.unwrap();
        b.pass(300);
        b.fault(FaultKind::Lie, None);
        let lied = b.wake(&who, &pre).await.unwrap();
        assert_eq!((lied.accepted, lied.mode), (FactV1::Yes, FactV1::No), "{firmware}: {}", lied.detail);
        assert!(lied.detail.contains("accepted and ignored"), "{firmware}: {}", lied.detail);
        assert_eq!(b.state().phase, "asleep");
    }
}

#[tokio::test]
async fn a_limit_that_moved_is_put_back() {
    for (firmware, model) in
        [("braiins", "Antminer S19J Pro"), ("auradine", "AT1500"), ("proto", "Proto Rig")]
    {
        let b = bench(firmware, model).await;
        let who = b.identify().await;
        let before = b.state();
        // What is to be kept is a limit of the site's own.
        let own = Watts::new((before.power_w * 0.9).round()).unwrap();
        b.change(&who, &Change::PowerLimit(own)).await.unwrap();
        let pre = b.pre(&who).await;
        let limit = b.state().limit_w;
        b.fault(FaultKind::Moves, None);
        b.stop(&who, &pre).await.unwrap();
        b.farm.clear_faults();
        b.pass(300);
        assert_ne!(b.state().limit_w, limit, "{firmware}: it moved");
        let woken = b.wake(&who, &pre).await.unwrap();
        assert_eq!(woken.mode, FactV1::Yes, "{firmware}: {}", woken.detail);
        assert!(woken.detail.contains("put back"), "{firmware}: {}", woken.detail);
        b.pass(1_200);
        assert_eq!(b.state().limit_w, limit, "{firmware}");
        assert_eq!(b.running(&who, &pre).await, (FactV1::Yes, FactV1::Yes), "{firmware}");
    }
}
