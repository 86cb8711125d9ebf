//! What devices say that is not so, and what they refuse: each found out and named.

use crate::{LIMITS, One, is_clear};
use hashinsight_farm::{Family, FaultKind, FaultOrder};
use hashinsight_firmware::{DeviceError, WriteOutcome, identify, judge_stopped, pre_state, stop, wake};
use hashinsight_protocol::device::{FactV1, PreStateV1};
use hashinsight_protocol::units::Millis;
use std::time::Duration;

const ALL: [(Family, Option<&str>); 11] = [
    (Family::Antminer, Some("Antminer S21")),
    (Family::Whatsminer, None),
    (Family::WhatsminerV3, None),
    (Family::Avalon, Some("1346-110")),
    (Family::Braiins, None),
    (Family::Luxos, None),
    (Family::Sealminer, None),
    (Family::Marathon, None),
    (Family::Hiveon, None),
    (Family::Hammer, None),
    (Family::Elphapex, None),
];

async fn settings(one: &One) -> PreStateV1 {
    pre_state(&one.profiles, &one.device, &one.who, &LIMITS).await.unwrap()
}

async fn order(one: &One, pre: &PreStateV1) -> Result<WriteOutcome, DeviceError> {
    stop(&one.profiles, &one.device, &one.who, pre, &LIMITS, Millis(0)).await
}

/// "Success" for a write that is thrown away.
#[tokio::test]
async fn accepted_and_ignored() {
    for (family, model) in ALL {
        let one = One::start(family, model).await;
        let pre = settings(&one).await;
        one.fault(FaultKind::Lie);
        let outcome = order(&one, &pre).await.unwrap();
        assert_eq!(outcome.mode, FactV1::No, "{family}: {outcome:?}");
        let reading = one.read().await;
        let power = reading.power;
        assert_eq!(
            judge_stopped(&one.profiles, &one.who, &reading, Some(&pre), power).1,
            FactV1::No,
            "{family}"
        );
        one.farm.stop().await;
    }
}

/// The mode is taken, the boards go on: the mode is a fact, and so is that nothing came of it.
#[tokio::test]
async fn a_mode_without_effect() {
    for (family, model) in ALL {
        // These have no word for the mode but what the boards do, or show only those.
        if matches!(family, Family::Braiins | Family::Avalon | Family::Sealminer) {
            continue;
        }
        let one = One::start(family, model).await;
        let pre = settings(&one).await;
        let power = one.read().await.power;
        one.fault(FaultKind::NoEffect);
        let outcome = order(&one, &pre).await.unwrap();
        assert_eq!(outcome.mode, FactV1::Yes, "{family}: {outcome:?}");
        let reading = one.read_until(|_| true).await;
        let back = settings(&one).await;
        let facts = judge_stopped(&one.profiles, &one.who, &reading, Some(&back), power);
        assert_eq!(facts, (FactV1::Yes, FactV1::No), "{family}: {reading:?}");
        one.farm.stop().await;
    }
}

/// A late effect is no refusal, and is seen when it comes.
#[tokio::test]
async fn a_late_effect() {
    let one = One::start(Family::Luxos, None).await;
    let (pre, power) = (settings(&one).await, one.read().await.power);
    one.farm.fault(&FaultOrder { value: Some(3.0), ..FaultOrder::on(FaultKind::Late, one.ip) }).unwrap();
    assert_eq!(order(&one, &pre).await.unwrap().mode, FactV1::Yes);
    let early = one.read().await;
    assert_eq!(judge_stopped(&one.profiles, &one.who, &early, None, power).1, FactV1::No);
    let late = one.read_until(|r| r.power.is_some_and(|w| w.get() < 40.0)).await;
    assert_eq!(judge_stopped(&one.profiles, &one.who, &late, None, power), (FactV1::Yes, FactV1::Yes));
}

/// A setting that nobody named moves: it is put back, and the attempt ends with its name.
#[tokio::test]
async fn one_unrelated_field_moved() {
    for (family, model, field) in [
        (Family::Antminer, Some("Antminer S19K Pro"), "bitmain-freq-level"),
        (Family::Hiveon, None, "bitmain-freq-level"),
    ] {
        let one = One::start(family, model).await;
        let pre = settings(&one).await;
        one.fault(FaultKind::Moves);
        let error = order(&one, &pre).await.unwrap_err();
        assert!(
            matches!(&error, DeviceError::FieldMoved { fields, .. } if fields == field),
            "{family}: {error}"
        );
        assert!(is_clear(&error), "{error}");
        one.farm.stop().await;
    }
}

/// 0 W and 0 rpm at full rate, as water-cooled models report: no power is known, and nothing is
/// taken for stopped.
#[tokio::test]
async fn no_power_reported() {
    let one = One::start(Family::Antminer, Some("Antminer S21")).await;
    one.fault(FaultKind::ZeroPower);
    let pre = settings(&one).await;
    let running = one.read().await;
    assert!(running.power.is_none_or(|w| w.get() > 0.0) && running.is_mining == Some(true), "{running:?}");
    assert_eq!(judge_stopped(&one.profiles, &one.who, &running, Some(&pre), None).1, FactV1::No);
    assert_eq!(order(&one, &pre).await.unwrap().mode, FactV1::Yes);
    let asleep = one.read_until(|r| r.hashrate.is_none_or(|rate| rate.get() == 0.0)).await;
    let back = settings(&one).await;
    assert_eq!(
        judge_stopped(&one.profiles, &one.who, &asleep, Some(&back), None),
        (FactV1::Yes, FactV1::Yes)
    );
}

/// Averages of a whole life stand while a device sleeps; none of them is taken for its rate.
#[tokio::test]
async fn averages_of_a_sleeper() {
    for family in [Family::Avalon, Family::Sealminer, Family::Braiins] {
        let one = One::start(family, None).await;
        let (pre, power) = (settings(&one).await, one.read().await.power);
        order(&one, &pre).await.unwrap();
        let asleep =
            one.read_until(|r| r.hashrate.is_some_and(|rate| rate.get() == 0.0) && r.power < power).await;
        assert_eq!(asleep.hashrate.map(|rate| rate.get()), Some(0.0), "{family}: {asleep:?}");
        one.farm.stop().await;
    }
}

/// Tokens that run out are replaced without a word.
#[tokio::test]
async fn tokens_that_run_out() {
    let one = One::start(Family::Whatsminer, None).await;
    let pre = settings(&one).await;
    one.farm.fault(&FaultOrder { value: Some(1.0), ..FaultOrder::on(FaultKind::Expire, one.ip) }).unwrap();
    assert_eq!(order(&one, &pre).await.unwrap().mode, FactV1::Yes);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let woken = wake(&one.profiles, &one.device, &one.who, &pre, &LIMITS, Millis(0)).await.unwrap();
    assert_eq!((woken.accepted, woken.mode), (FactV1::Yes, FactV1::Yes), "{woken:?}");
}

/// All tokens are given out, or the only session is another's: one clear error, and no second try.
#[tokio::test]
async fn a_second_session_is_refused() {
    for (family, word) in [(Family::Whatsminer, "136"), (Family::Luxos, "402")] {
        let one = One::start(family, None).await;
        let pre = settings(&one).await;
        one.fault(FaultKind::Busy);
        for _ in 0..2 {
            let error = order(&one, &pre).await.unwrap_err();
            assert!(matches!(error, DeviceError::Busy { .. }), "{family}: {error}");
            assert!(error.to_string().contains(word) && is_clear(&error), "{error}");
        }
        assert_eq!(one.state().phase, "mining");
        one.farm.stop().await;
    }
}

#[tokio::test]
async fn a_wrong_password_is_named() {
    for (family, model, user) in [
        (Family::Antminer, Some("Antminer S21"), "root"),
        (Family::Whatsminer, None, "admin"),
        (Family::WhatsminerV3, None, "super"),
        (Family::Marathon, None, "root"),
    ] {
        let mut one = One::start(family, model).await;
        let pre = settings(&one).await;
        one.with_password(user, "hush-hush");
        let error = order(&one, &pre).await.unwrap_err();
        assert!(matches!(error, DeviceError::AuthRefused { .. }), "{family}: {error}");
        assert!(is_clear(&error), "{error}");
        assert_eq!(one.state().phase, "mining");
        one.farm.stop().await;
    }
}

/// Half a reply to a question for a token is rubbish, not a refusal of writes.
#[tokio::test]
async fn replies_cut_short_and_without_end() {
    for (family, model) in ALL {
        let one = One::start(family, model).await;
        for kind in [FaultKind::Truncated, FaultKind::Oversized] {
            one.fault(kind);
            let pre = PreStateV1 {
                mode: hashinsight_protocol::device::ModeV1::Normal,
                vendor_mode: None,
                limit: None,
                profile: None,
                config_hash: None,
            };
            let begun = tokio::time::Instant::now();
            let outcome = order(&one, &pre).await;
            assert!(begun.elapsed() < Duration::from_secs(60), "{family} {kind:?}");
            if let Err(error) = &outcome {
                assert!(
                    !matches!(error, DeviceError::WriteNotAllowed { .. }) && is_clear(error),
                    "{family}: {error}"
                );
            }
            one.farm.clear_faults();
        }
        one.farm.stop().await;
    }
}

/// A hung device costs a deadline, no more.
#[tokio::test]
async fn a_silent_device_ends_within_its_deadline() {
    let one = One::start(Family::Luxos, None).await;
    one.fault(FaultKind::Hang);
    let begun = tokio::time::Instant::now();
    let limits = hashinsight_firmware::Limits { deadline: Duration::from_secs(1), ..LIMITS };
    let error = identify(&one.profiles, &one.device, &limits).await.unwrap_err();
    assert!(matches!(error, DeviceError::Silent { .. }) && is_clear(&error), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(3));
}
