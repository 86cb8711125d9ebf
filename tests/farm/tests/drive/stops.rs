//! Every family that can be controlled: stopped, and woken to exactly what it was.

use crate::{LIMITS, One};
use hashinsight_farm::Family;
use hashinsight_firmware::{Change, change, judge_running, judge_stopped, pre_state, stop, wake};
use hashinsight_protocol::device::{FactV1, PreStateV1};
use hashinsight_protocol::units::{Millis, Watts};

async fn settings(one: &One) -> PreStateV1 {
    pre_state(&one.profiles, &one.device, &one.who, &LIMITS).await.unwrap()
}

async fn there_and_back(family: Family, model: Option<&str>) {
    let one = One::start(family, model).await;
    let before = one.state();
    let running = one.read().await;
    assert_eq!(running.is_mining, Some(true), "{family}");
    let pre = settings(&one).await;
    let outcome = stop(&one.profiles, &one.device, &one.who, &pre, &LIMITS, Millis(0)).await.unwrap();
    assert!(matches!(outcome.accepted, FactV1::Yes | FactV1::Unknown), "{family}: {outcome:?}");
    assert_eq!(outcome.mode, FactV1::Yes, "{family}: {outcome:?}");

    let asleep = one
        .read_until(|r| {
            r.hashrate.is_none_or(|rate| rate.get() == 0.0) && r.power.is_none_or(|w| w.get() < 120.0)
        })
        .await;
    let back = settings(&one).await;
    let facts = judge_stopped(&one.profiles, &one.who, &asleep, Some(&back), running.power);
    assert_eq!(facts, (FactV1::Yes, FactV1::Yes), "{family}: {asleep:?}");
    assert!(one.state().power_w < 150.0, "{family} draws {} W", one.state().power_w);

    // A second stop sends nothing.
    let writes = one.state().writes;
    let again = stop(&one.profiles, &one.device, &one.who, &pre, &LIMITS, Millis(0)).await.unwrap();
    assert_eq!((again.accepted, one.state().writes), (FactV1::NotApplicable, writes), "{family}: {again:?}");

    let outcome = wake(&one.profiles, &one.device, &one.who, &pre, &LIMITS, Millis(0)).await.unwrap();
    assert_ne!(outcome.mode, FactV1::No, "{family}: {outcome:?}");
    let running = one.read_until(|r| r.hashrate.is_some_and(|rate| rate.get() > 0.0)).await;
    let back = settings(&one).await;
    let facts = judge_running(&one.profiles, &one.who, &running, Some(&back), &pre);
    assert_eq!(facts, (FactV1::Yes, FactV1::Yes), "{family}: {running:?} {back:?}");
    assert_eq!(one.state().settings(), before.settings(), "{family} is as it was");
    one.farm.stop().await;
}

#[tokio::test]
async fn antminers_stop_and_wake_whatever_shape_they_take() {
    for model in
        ["Antminer S19j Pro", "Antminer S21", "Antminer S19 XP", "Antminer S19K Pro", "Antminer S21+"]
    {
        there_and_back(Family::Antminer, Some(model)).await;
    }
}

#[tokio::test]
async fn whatsminers_stop_and_wake() {
    there_and_back(Family::Whatsminer, None).await;
    there_and_back(Family::WhatsminerV3, None).await;
}

#[tokio::test]
async fn avalons_braiins_and_luxos_stop_and_wake() {
    there_and_back(Family::Avalon, Some("1346-110")).await;
    there_and_back(Family::Braiins, None).await;
    there_and_back(Family::Luxos, None).await;
}

#[tokio::test]
async fn sealminers_and_mara_stop_and_wake() {
    there_and_back(Family::Sealminer, None).await;
    there_and_back(Family::Marathon, None).await;
}

#[tokio::test]
async fn the_kin_of_the_antminer_stop_and_wake() {
    there_and_back(Family::Hiveon, None).await;
    there_and_back(Family::Hammer, None).await;
    there_and_back(Family::Elphapex, None).await;
}

/// A plan may use a limit as its level: the wake-up takes it back, from sleep and without one.
#[tokio::test]
async fn a_wake_up_puts_limit_and_profile_back() {
    for family in [Family::Whatsminer, Family::WhatsminerV3, Family::Sealminer, Family::Luxos] {
        let one = One::start(family, None).await;
        let before = one.state();
        let pre = settings(&one).await;
        let limit = Change::PowerLimit(Watts::new((before.power_w * 0.8).round()).unwrap());
        let outcome = change(&one.profiles, &one.device, &one.who, &limit, &LIMITS, Millis(0)).await.unwrap();
        assert_eq!((outcome.accepted, outcome.mode), (FactV1::Yes, FactV1::Yes), "{family}: {outcome:?}");
        assert_ne!(one.state().settings(), before.settings(), "{family}");
        let outcome = wake(&one.profiles, &one.device, &one.who, &pre, &LIMITS, Millis(0)).await.unwrap();
        assert_eq!(outcome.mode, FactV1::Yes, "{family}: {outcome:?}");
        assert_eq!(one.state().settings(), before.settings(), "{family} is as it was");
        one.farm.stop().await;
    }
}
