//! Each family through a stop, a wake-up and the other changes.

use crate::bench::bench;
use hashinsight_firmware::{Change, PoolSetting, Secret, judge_change};
use hashinsight_protocol::device::{FactV1, ModeV1};
use hashinsight_protocol::units::Watts;

/// Stops a device, proves it by effect, wakes it and finds it as it was.
async fn cycle(firmware: &str, model: &str) {
    let b = bench(firmware, model).await;
    let who = b.identify().await;
    assert_eq!(who.firmware, firmware, "{who:?}");
    assert!(who.capabilities.sleep);
    let before = b.state();
    let running = b.read(&who).await;
    assert_eq!(running.is_mining, Some(true), "{firmware}: {running:?}");
    let truth = running.hashrate.unwrap().get() / before.hashrate_hs;
    assert!((0.8..1.2).contains(&truth), "{firmware}: {truth} of the true rate");
    let pre = b.pre(&who).await;
    let stopped = b.stop(&who, &pre).await.unwrap();
    assert_eq!(
        (stopped.accepted, stopped.mode),
        (FactV1::Yes, FactV1::Yes),
        "{firmware}: {}",
        stopped.detail
    );
    b.pass(300);
    assert_eq!(b.state().phase, "asleep", "{firmware}");
    let facts = b.stopped(&who, running.power).await;
    assert_eq!(facts, (FactV1::Yes, FactV1::Yes), "{firmware}: {:?}", b.read(&who).await);
    let again = b.stop(&who, &pre).await.unwrap();
    assert_eq!(again.accepted, FactV1::NotApplicable, "{firmware}: stopped twice");
    let woken = b.wake(&who, &pre).await.unwrap();
    assert_eq!((woken.accepted, woken.mode), (FactV1::Yes, FactV1::Yes), "{firmware}: {}", woken.detail);
    b.pass(1200);
    let facts = b.running(&who, &pre).await;
    assert_eq!(facts, (FactV1::Yes, FactV1::Yes), "{firmware}: {:?}", b.read(&who).await);
    assert_eq!(b.state().settings(), before.settings(), "{firmware}");
    assert_eq!(b.state().writes, 2, "{firmware}: one write each");
}

/// Reboot, light, pools and power limit, as far as the family says it can.
async fn changes(firmware: &str, model: &str) {
    let b = bench(firmware, model).await;
    let who = b.identify().await;
    let can = who.capabilities;
    if can.locate {
        for on in [true, false] {
            let outcome = b.change(&who, &Change::Locate { on }).await.unwrap();
            assert_eq!(
                (outcome.accepted, outcome.mode),
                (FactV1::Yes, FactV1::Yes),
                "{firmware}: {}",
                outcome.detail
            );
        }
    }
    if can.set_pools {
        let pool = |n: u32| PoolSetting {
            url: format!("stratum+tcp://pool{n}.example:3333"),
            worker: format!("site.m{n}"),
            password: Secret::new("x"),
        };
        let order = Change::Pools(vec![pool(1), pool(2)]);
        let outcome = b.change(&who, &order).await.unwrap();
        assert_eq!(
            (outcome.accepted, outcome.mode),
            (FactV1::Yes, FactV1::Yes),
            "{firmware}: {}",
            outcome.detail
        );
        let after = b.read(&who).await;
        assert_eq!(judge_change(&order, &after, &after).0, FactV1::Yes, "{firmware}: {:?}", after.pools);
    }
    if can.power_limit {
        let before = b.state();
        let pre = b.pre(&who).await;
        let limit = Watts::new((before.power_w * 0.85).round()).unwrap();
        let outcome = b.change(&who, &Change::PowerLimit(limit)).await.unwrap();
        assert_eq!(
            (outcome.accepted, outcome.mode),
            (FactV1::Yes, FactV1::Yes),
            "{firmware}: {}",
            outcome.detail
        );
        b.pass(900);
        let now = b.state().power_w;
        assert!(now <= limit.get() * 1.05 && now > limit.get() * 0.7, "{firmware}: {now} W at {limit:?}");
        // The way back is the pre-state's.
        let back = b.wake(&who, &pre).await.unwrap();
        assert_eq!(back.mode, FactV1::Yes, "{firmware}: {}", back.detail);
        b.pass(900);
        let state = b.state();
        assert_eq!(state.profile, before.profile, "{firmware}");
        assert!((state.power_w / before.power_w - 1.0).abs() < 0.05, "{firmware}: {} W", state.power_w);
    }
    if can.reboot {
        // Long after the restarts that other changes took.
        b.pass(3_600);
        let up = b.state().uptime_s;
        let outcome = b.change(&who, &Change::Reboot).await.unwrap();
        assert_ne!(outcome.accepted, FactV1::No, "{firmware}: {}", outcome.detail);
        b.pass(120);
        assert!(b.state().uptime_s < up, "{firmware}: rebooted");
    }
}

#[tokio::test]
async fn vnish() {
    cycle("vnish", "Antminer S21 Pro").await;
    changes("vnish", "Antminer S21 Pro").await;
}

#[tokio::test]
async fn epic() {
    cycle("epic", "AntMiner S19 XP").await;
    changes("epic", "AntMiner S19 XP").await;
}

#[tokio::test]
async fn braiins_over_rest() {
    cycle("braiins", "Antminer S19J Pro").await;
    changes("braiins", "Antminer S19J Pro").await;
}

#[tokio::test]
async fn braiins_over_graphql() {
    cycle("braiins", "Antminer S19").await;
    changes("braiins", "Antminer S19").await;
}

#[tokio::test]
async fn auradine() {
    cycle("auradine", "AT1500").await;
    changes("auradine", "AT1500").await;
}

#[tokio::test]
async fn bitaxe() {
    cycle("axeos", "Gamma").await;
    changes("axeos", "Gamma").await;
}

#[tokio::test]
async fn nerdqaxe() {
    cycle("axeos", "NerdQAxe++").await;
    changes("axeos", "NerdQAxe++").await;
}

#[tokio::test]
async fn proto() {
    cycle("proto", "Proto Rig").await;
    changes("proto", "Proto Rig").await;
}

#[tokio::test]
async fn goldshell() {
    cycle("goldshell", "Goldshell-KD6").await;
    changes("goldshell", "Goldshell-KD6").await;
}

#[tokio::test]
async fn futurebit() {
    cycle("futurebit", "Apollo II").await;
    changes("futurebit", "Apollo II").await;
}

#[tokio::test]
async fn vnish_waits_until_its_chips_have_cooled() {
    let b = bench("vnish", "Antminer S21 Pro").await;
    let who = b.identify().await;
    let pre = b.pre(&who).await;
    b.stop(&who, &pre).await.unwrap();
    // A device that has only just stopped is not woken, and nothing is sent.
    let writes = b.state().writes;
    let early = b.wake(&who, &pre).await.unwrap();
    if early.accepted == FactV1::NotApplicable {
        assert!(early.detail.contains("not woken yet"), "{}", early.detail);
        assert_eq!((early.mode, b.state().writes), (FactV1::No, writes));
    }
    b.pass(200);
    let woken = b.wake(&who, &pre).await.unwrap();
    assert_eq!(woken.mode, FactV1::Yes, "{}", woken.detail);
}

#[tokio::test]
async fn a_preset_that_moved_is_put_back() {
    let b = bench("vnish", "Antminer S21 Pro").await;
    let who = b.identify().await;
    let pre = b.pre(&who).await;
    let before = b.state();
    b.stop(&who, &pre).await.unwrap();
    b.pass(300);
    // Somebody else chose another preset in the meantime.
    let limit = Watts::new(2900.0).unwrap();
    let moved = b.change(&who, &Change::PowerLimit(limit)).await.unwrap();
    assert_eq!(moved.mode, FactV1::Yes, "{}", moved.detail);
    assert_ne!(b.state().profile, before.profile);
    let woken = b.wake(&who, &pre).await.unwrap();
    assert_eq!(woken.mode, FactV1::Yes, "{}", woken.detail);
    assert!(woken.detail.contains("put back"), "{}", woken.detail);
    b.pass(1200);
    assert_eq!(b.state().settings(), before.settings());
    assert_eq!(b.pre(&who).await.mode, ModeV1::Normal);
}
