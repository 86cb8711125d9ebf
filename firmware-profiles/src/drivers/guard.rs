//! What must hold before a device is woken. Pure.
//!
//! A wake-up of boards whose chips are far apart in temperature fails or breaks solder joints, so it
//! waits until they are close together, or until the device has stood long enough that they are.

use crate::profile::Guards;

/// What is known of a device that is to be woken.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Chip temperatures, in degrees Celsius.
    pub chips: Vec<f64>,
    /// Water temperatures, in degrees Celsius.
    pub water: Vec<f64>,
    /// Seconds since it stopped.
    pub stopped_for: Option<f64>,
}

/// Why the device must not be woken now. What is unknown forbids nothing: a device that reports
/// neither temperatures nor a time could otherwise never be woken.
pub(super) fn refuses(guards: &Guards, seen: &Seen) -> Option<String> {
    if let (Some(least), Some(stood)) = (guards.min_off_s, seen.stopped_for)
        && stood < least as f64
    {
        return Some(format!("it stopped {stood:.0} s ago and has to stand for {least} s"));
    }
    if let Some(least) = guards.water_min_c
        && let Some(coldest) = seen.water.iter().copied().filter(|t| *t != 0.0).min_by(f64::total_cmp)
        && coldest < least
    {
        return Some(format!("its water has {coldest:.0} °C and needs {least:.0} °C"));
    }
    let limit = guards.chip_spread_c?;
    // A sensor at 0 is not there.
    let chips: Vec<f64> = seen.chips.iter().copied().filter(|t| *t != 0.0).collect();
    let coldest = chips.iter().copied().min_by(f64::total_cmp);
    let hottest = chips.iter().copied().max_by(f64::total_cmp);
    let spread = coldest.zip(hottest).map(|(coldest, hottest)| hottest - coldest);
    let stood_long =
        guards.chip_spread_until_s.zip(seen.stopped_for).map(|(until, stood)| stood >= until as f64);
    match (spread, stood_long) {
        (_, Some(true)) | (None, None) => None,
        (Some(spread), _) if spread < limit => None,
        (Some(spread), _) => {
            let since = seen
                .stopped_for
                .map_or_else(String::new, |stood| format!(" and it stopped {stood:.0} s ago"));
            Some(format!("its chips are {spread:.0} °C apart{since}; it has to cool evenly first"))
        }
        (None, Some(false)) => {
            let stood = seen.stopped_for.unwrap_or_default();
            Some(format!("it stopped {stood:.0} s ago and has to cool evenly first"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hot_device_waits() {
        let guards = Guards {
            chip_spread_c: Some(5.0),
            chip_spread_until_s: Some(120),
            water_min_c: Some(15.0),
            min_off_s: None,
        };
        let check = |chips: &[f64], water: &[f64], stopped_for: Option<f64>, part: &str| {
            let why = refuses(&guards, &Seen { chips: chips.to_vec(), water: water.to_vec(), stopped_for });
            match part {
                "" => assert_eq!(why, None),
                part => assert!(why.as_ref().is_some_and(|why| why.contains(part)), "{why:?}"),
            }
        };
        check(&[40.0, 44.9], &[], Some(10.0), "");
        check(&[40.0, 46.0], &[], Some(10.0), "6 °C apart and it stopped 10 s ago");
        check(&[40.0, 46.0], &[], Some(120.0), "");
        check(&[], &[], Some(42.0), "42 s ago");
        check(&[0.0, 50.0], &[], None, "");
        check(&[], &[], None, "");
        check(&[40.0, 41.0], &[12.0, 18.0], Some(500.0), "12 °C and needs 15");
        check(&[40.0, 41.0], &[0.0, 18.0], Some(500.0), "");
        let min_off = Guards { min_off_s: Some(300), ..Guards::default() };
        assert!(refuses(&min_off, &Seen { stopped_for: Some(10.0), ..Seen::default() }).is_some());
        assert_eq!(refuses(&min_off, &Seen::default()), None);
    }
}
