//! What goes wrong when: all of it follows from the seed.

use fastrand::Rng;
use hashinsight_demo::link::Weather;
use std::ops::Range;
use std::time::Duration;

/// Pause from one fault to the next, milliseconds.
const PAUSE: Range<u64> = 2_500..7_000;

/// One thing that goes wrong, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Between an agent and the broker.
    Link { agent: usize, weather: Weather, lasts: Duration },
    /// kill -9; started again after a while.
    KillAgent { agent: usize, away: Duration },
    /// Ended in order; started again after a while.
    StopAgent { agent: usize, away: Duration },
    /// kill -9 of the control plane, its broker and its open databases.
    KillControlPlane { away: Duration },
    /// Every agent's wall clock is off by so many milliseconds. A `trusted` one is believed to be right.
    Clock { off_ms: i64, trusted: bool, lasts: Duration },
    /// An agent's disk takes no more.
    DiskFull { agent: usize, lasts: Duration },
    /// No fault: an operator orders a reduction.
    Order,
}

/// The faults of a run by their time since its start, in order.
pub fn schedule(seed: u64, length: Duration, agents: usize, disk: bool) -> Vec<(Duration, Fault)> {
    let mut rng = Rng::with_seed(seed);
    let mut faults = Vec::new();
    let mut at = 0;
    loop {
        at += rng.u64(PAUSE);
        if u128::from(at) >= length.as_millis() {
            return faults;
        }
        faults.push((Duration::from_millis(at), draw(&mut rng, agents, disk)));
    }
}

fn draw(rng: &mut Rng, agents: usize, disk: bool) -> Fault {
    let agent = rng.usize(0..agents.max(1));
    let lasts = Duration::from_millis(rng.u64(1_000..12_000));
    let away = Duration::from_millis(rng.u64(0..5_000));
    let link = |weather| Fault::Link { agent, weather, lasts };
    match rng.u8(0..16) {
        0 | 1 => link(Weather::Cut),
        2 => link(Weather::Silent),
        3 => link(Weather::Late(Duration::from_millis(rng.u64(20..1_500)))),
        4 => link(Weather::Narrow(rng.u64(500..20_000))),
        5..=7 => link(Weather::Snap),
        8 | 9 => Fault::KillAgent { agent, away },
        10 => Fault::StopAgent { agent, away },
        11 | 12 => Fault::KillControlPlane { away },
        13 => {
            let trusted = rng.bool();
            // A clock that claims to be right strays little; one that doesn't may say anything.
            let most = if trusted { 30_000 } else { 400 * 86_400_000 };
            Fault::Clock { off_ms: rng.i64(-most..=most), trusted, lasts }
        }
        14 if disk => Fault::DiskFull { agent, lasts },
        _ => Fault::Order,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_run() {
        let run = |seed| schedule(seed, Duration::from_secs(300), 2, true);
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        assert!(run(7).len() > 40 && run(7).windows(2).all(|w| w[0].0 < w[1].0));
    }

    #[test]
    fn every_fault_comes_up() {
        let all = schedule(1, Duration::from_secs(3_000), 2, true);
        let seen = |test: fn(&Fault) -> bool| assert!(all.iter().any(|(_, fault)| test(fault)));
        for weather in [Weather::Cut, Weather::Silent, Weather::Snap] {
            assert!(all.iter().any(|(_, f)| matches!(f, Fault::Link { weather: w, .. } if *w == weather)));
        }
        seen(|f| matches!(f, Fault::Link { weather: Weather::Late(_), .. }));
        seen(|f| matches!(f, Fault::Link { weather: Weather::Narrow(_), .. }));
        seen(|f| matches!(f, Fault::KillAgent { agent: 1, .. }));
        seen(|f| matches!(f, Fault::StopAgent { .. }));
        seen(|f| matches!(f, Fault::KillControlPlane { .. }));
        seen(|f| matches!(f, Fault::Clock { trusted: true, .. }));
        seen(|f| matches!(f, Fault::Clock { trusted: false, .. }));
        seen(|f| matches!(f, Fault::DiskFull { .. }));
        seen(|f| *f == Fault::Order);
        let none = schedule(1, Duration::from_secs(3_000), 2, false);
        assert!(!none.iter().any(|(_, f)| matches!(f, Fault::DiskFull { .. })));
    }
}
