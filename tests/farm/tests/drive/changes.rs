//! Reboot, light, pools and limit, each with what proves it.

use crate::{LIMITS, One};
use hashinsight_farm::{Family, FaultKind};
use hashinsight_firmware::{Change, DeviceError, PoolSetting, Secret, WriteOutcome, change, judge_change};
use hashinsight_protocol::device::FactV1;
use hashinsight_protocol::units::{Millis, Watts};

const PASSWORD: &str = "hush-hush";

async fn order(one: &One, wanted: &Change) -> Result<WriteOutcome, DeviceError> {
    change(&one.profiles, &one.device, &one.who, wanted, &LIMITS, Millis(1_000_000)).await
}

fn pools() -> Change {
    let pool = |host: &str| PoolSetting {
        url: format!("stratum+tcp://{host}.example:3333"),
        worker: "hosting.rack7".to_owned(),
        password: Secret::new(PASSWORD),
    };
    Change::Pools(vec![pool("new-a"), pool("new-b")])
}

const ALL: [(Family, Option<&str>); 12] = [
    (Family::Antminer, Some("Antminer S21")),
    (Family::Antminer, Some("Antminer S19 XP")),
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

/// What the profile claims works; what it does not claim sends nothing.
#[tokio::test]
async fn every_claim_holds_and_nothing_else_is_sent() {
    for (family, model) in ALL {
        let one = One::start(family, model).await;
        let before = one.state();
        let can = one.who.capabilities;
        let limit = Change::PowerLimit(Watts::new((before.power_w * 0.8).round()).unwrap());
        let each = [
            (can.reboot, Change::Reboot),
            (can.locate, Change::Locate { on: true }),
            (can.locate, Change::Locate { on: false }),
            (can.power_limit, limit),
            (can.set_pools, pools()),
        ];
        for (able, wanted) in each {
            if !able {
                let writes = one.state().writes;
                let error = order(&one, &wanted).await.unwrap_err();
                assert!(matches!(error, DeviceError::Unsupported { .. }), "{family}: {error}");
                assert_eq!(one.state().writes, writes, "{family}");
                continue;
            }
            let first = one.read_until(|r| r.is_mining == Some(true)).await;
            let outcome = order(&one, &wanted).await.unwrap_or_else(|e| panic!("{family} {wanted:?}: {e}"));
            assert_ne!(outcome.accepted, FactV1::No, "{family} {wanted:?}: {outcome:?}");
            assert!(!outcome.detail.contains(PASSWORD), "{family}: {outcome:?}");
            match &wanted {
                Change::Locate { on } => {
                    assert_eq!(
                        (outcome.mode, one.state().locating),
                        (FactV1::Yes, *on),
                        "{family}: {outcome:?}"
                    );
                }
                Change::PowerLimit(watts) => {
                    assert_eq!(outcome.mode, FactV1::Yes, "{family}: {outcome:?}");
                    let after = one.read_until(|r| judge_change(&wanted, &first, r).1 == FactV1::Yes).await;
                    assert_eq!(
                        judge_change(&wanted, &first, &after).1,
                        FactV1::Yes,
                        "{family}: {watts} {after:?}"
                    );
                }
                Change::Pools(_) => {
                    let after = one.read_until(|r| judge_change(&wanted, &first, r).0 == FactV1::Yes).await;
                    assert_eq!(
                        judge_change(&wanted, &first, &after),
                        (FactV1::Yes, FactV1::Yes),
                        "{family}: {after:?}"
                    );
                    assert_eq!(one.state().pools.len(), 2, "{family}");
                }
                Change::Reboot => {
                    let after = one.read_until(|r| judge_change(&wanted, &first, r).1 == FactV1::Yes).await;
                    assert_eq!(judge_change(&wanted, &first, &after).1, FactV1::Yes, "{family}: {after:?}");
                }
            }
        }
        one.farm.stop().await;
    }
}

/// Pools a second time: nothing is sent.
#[tokio::test]
async fn pools_that_are_set_are_not_set_again() {
    for family in [Family::Whatsminer, Family::Luxos, Family::Marathon] {
        let one = One::start(family, None).await;
        assert_eq!(order(&one, &pools()).await.unwrap().mode, FactV1::Yes, "{family}");
        let writes = one.state().writes;
        assert_eq!(order(&one, &pools()).await.unwrap().accepted, FactV1::NotApplicable, "{family}");
        assert_eq!(one.state().writes, writes, "{family}");
        one.farm.stop().await;
    }
}

#[tokio::test]
async fn a_lie_about_pools_is_found_out() {
    for (family, model) in
        [(Family::Antminer, Some("Antminer S21")), (Family::Whatsminer, None), (Family::Luxos, None)]
    {
        let one = One::start(family, model).await;
        one.fault(FaultKind::Lie);
        let before = one.state().pools;
        let outcome = order(&one, &pools()).await.unwrap();
        assert_eq!((outcome.accepted, outcome.mode), (FactV1::Yes, FactV1::No), "{family}: {outcome:?}");
        assert_eq!(one.state().pools, before);
        one.farm.stop().await;
    }
}

#[tokio::test]
async fn pools_that_cannot_be_are_not_sent() {
    let one = One::start(Family::Luxos, None).await;
    let Change::Pools(mut list) = pools() else { unreachable!() };
    for bad in [Change::Pools(Vec::new()), Change::Pools([list.clone(), list.clone()].concat())] {
        let error = order(&one, &bad).await.unwrap_err();
        assert!(matches!(error, DeviceError::BadPools { .. }), "{error}");
    }
    list[0].password = Secret::new("hush-hush,x");
    let error = order(&one, &Change::Pools(list)).await.unwrap_err();
    assert!(matches!(error, DeviceError::BadPools { .. }) && crate::is_clear(&error), "{error}");
    assert_eq!(one.state().writes, 0);
}
