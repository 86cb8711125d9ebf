//! The books of each family: whatever a driver asks on its way, every answer that carries the rate is
//! returned or told of, once.

use crate::bench::{Bench, LIMITS, bench};
use hashinsight_firmware::{Heard, check_access, identify_again};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

struct Books {
    bench: Bench,
    told: Arc<AtomicU64>,
    read: u64,
}

impl Books {
    async fn open(family: &str, model: &str) -> Self {
        let mut bench = bench(family, model).await;
        let told = Arc::new(AtomicU64::new(0));
        let ear = told.clone();
        bench.device.heard = Some(Heard::new(move |_| _ = ear.fetch_add(1, Ordering::Relaxed)));
        Self { bench, told, read: 0 }
    }

    /// The device counts an answer when its last byte is sent, which may be after it was read.
    async fn check(&self, family: &str, step: &str) {
        let kept = || self.read + self.told.load(Ordering::Relaxed);
        for _ in 0..100 {
            if kept() == self.bench.state().samples {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(kept(), self.bench.state().samples, "{family}: kept and answered, after {step}");
    }
}

async fn balance(family: &str, model: &str) {
    let mut books = Books::open(family, model).await;
    let who = books.bench.identify().await;
    books.check(family, "its identification").await;
    books.bench.read(&who).await;
    books.read += 1;
    books.check(family, "a reading").await;
    let b = &books.bench;
    check_access(&b.profiles, &b.device, &who, &LIMITS).await;
    books.check(family, "the look at its access").await;
    let pre = b.pre(&who).await;
    books.check(family, "the look at its settings").await;
    b.stop(&who, &pre).await.unwrap();
    books.check(family, "the stop").await;
    b.pass(300);
    identify_again(&b.profiles, &b.device, &who, &LIMITS).await.unwrap();
    books.check(family, "being recognised again").await;
    b.wake(&who, &pre).await.unwrap();
    books.check(family, "the waking").await;
    b.pass(1200);
    books.bench.read(&who).await;
    books.read += 1;
    books.check(family, "the last reading").await;
}

macro_rules! families {
    ($($test:ident: $family:literal, $model:literal;)*) => {$(
        #[tokio::test]
        async fn $test() {
            balance($family, $model).await;
        }
    )*};
}

families! {
    vnish: "vnish", "Antminer S21 Pro";
    epic: "epic", "AntMiner S19 XP";
    braiins: "braiins", "Antminer S19J Pro";
    auradine: "auradine", "AT1500";
    bitaxe: "axeos", "Gamma";
    proto: "proto", "Proto Rig";
    goldshell: "goldshell", "Goldshell-KD6";
    futurebit: "futurebit", "Apollo II";
    sealminer: "sealminer", "A2";
    marathon: "marathon", "Antminer S19j Pro";
    hiveon: "hiveon", "Antminer S19x88 Hiveon";
    hammer: "hammer", "Hammer D10";
    elphapex: "elphapex", "DG1";
}
