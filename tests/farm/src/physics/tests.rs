use super::*;
use crate::models::{Family, of};

fn plant(family: Family, scale: f64) -> Plant {
    let model = of(family).next().expect("every family has a model");
    let settings = Settings { asleep: false, level: Level::Normal, limit: None, profile: 0 };
    Plant::new(model, settings, Draws::new(7, 1), scale)
}

#[test]
fn polling_does_not_change_the_physics() {
    let (mut seldom, mut often) = (plant(Family::Whatsminer, 1.0), plant(Family::Whatsminer, 1.0));
    for p in [&mut seldom, &mut often] {
        p.advance(10.0);
        p.stop(10.0, 0.0);
    }
    for i in 100..9_000 {
        often.advance(f64::from(i) / 10.0);
        often.sense(f64::from(i) / 10.0);
    }
    for p in [&mut seldom, &mut often] {
        p.advance(900.0);
        p.wake(900.0, 0.0);
    }
    for i in 9_000..12_000 {
        often.advance(f64::from(i) / 10.0);
    }
    seldom.advance(1_200.0);
    often.advance(1_200.0);
    let (a, b) = (seldom.sense(1_200.0), often.sense(1_200.0));
    assert_eq!(format!("{a:?}"), format!("{b:?}"));
    assert_eq!(seldom.phase, Phase::Ramping);
}

#[test]
fn a_stopped_machine_draws_standby_power_and_cools() {
    let mut p = plant(Family::Whatsminer, 1.0);
    let before = p.sense(0.0);
    assert!(before.watts > 3_000.0 && before.rate > 100e12 && before.chip > 70.0, "{before:?}");
    p.stop(0.0, 0.0);
    p.advance(8.0);
    assert_eq!(p.phase, Phase::Stopping);
    let falling = p.sense(8.0);
    assert!(falling.watts < before.watts && falling.watts > 100.0, "{falling:?}");
    p.advance(30.0);
    let stopped = p.sense(30.0);
    assert_eq!((p.phase, stopped.rate), (Phase::Asleep, 0.0));
    assert!(stopped.watts < 16.0 && stopped.average > 0.0, "{stopped:?}");
    assert!(stopped.chip > 50.0, "still warm: {stopped:?}");
    let cold = p.sense(1_800.0);
    assert!(cold.chip < 40.0 && cold.m15 < 0.2 * before.rate, "{cold:?}");
}

#[test]
fn waking_takes_minutes_and_the_scale_compresses_them() {
    for (scale, done) in [(1.0, 450.0), (50.0, 9.0)] {
        let mut p = plant(Family::Whatsminer, scale);
        p.stop(0.0, 0.0);
        p.advance(100.0);
        p.wake(100.0, 0.0);
        p.advance(100.0 + done * 0.5);
        assert!(p.sense(100.0 + done * 0.5).true_rate < 0.9 * p.plate_hash());
        p.advance(100.0 + done);
        assert_eq!(p.phase, Phase::Mining, "scale {scale}");
        assert!((p.sense(100.0 + done).true_rate - p.plate_hash()).abs() < 1.0);
    }
}

#[test]
fn limits_levels_and_profiles_lower_power_more_than_rate() {
    let mut p = plant(Family::Whatsminer, 1.0);
    let (watts, rate) = p.target();
    p.settings.limit = Some((watts * 0.7) as u32);
    let (w, h) = p.target();
    assert!((w / watts - 0.7).abs() < 0.001 && h / rate > 0.7, "{}", h / rate);
    p.settings.limit = None;
    p.settings.profile = -4;
    assert!((p.target().0 / watts - 0.8).abs() < 0.001);
    p.settings.profile = 0;
    p.settings.level = Level::HighEfficiency;
    p.adjust(5.0, false, 0.0);
    p.advance(60.0);
    assert_eq!(p.phase, Phase::Mining);
    assert!(p.sense(60.0).watts < 0.8 * watts);
}

#[test]
fn a_reboot_wakes_what_does_not_keep_its_sleep() {
    for (family, phase) in [(Family::Avalon, Phase::Mining), (Family::Luxos, Phase::Asleep)] {
        let mut p = plant(family, 1.0);
        p.stop(0.0, 0.0);
        p.advance(50.0);
        assert_eq!(p.phase, Phase::Asleep);
        p.reboot(50.0);
        assert!(!p.api_up(60.0));
        p.advance(1_000.0);
        assert_eq!(p.phase, phase, "{family}");
    }
}

#[test]
fn work_is_the_area_under_the_rate() {
    let mut p = plant(Family::Luxos, 1.0);
    let w0 = p.sense(0.0).work;
    let per_second = p.sense(0.0).true_rate;
    assert!((p.sense(10.0).work - w0 - 10.0 * per_second).abs() < 1e6);
    p.stop(10.0, 0.0);
    p.advance(100.0);
    let at_rest = p.sense(100.0).work;
    // One second of delay, then a triangle of three seconds.
    assert!((at_rest - w0 - 12.5 * per_second).abs() < 1e6);
    assert!((p.sense(200.0).work - at_rest).abs() < 1.0);
}
