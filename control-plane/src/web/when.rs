//! Times on a site's own clock, as people read and type them.

use super::format::UNKNOWN;
use hashinsight_protocol::units::{DurationMs, Millis};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// A time zone by its IANA name; UTC for a name that this machine doesn't know.
pub fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap_or(TimeZone::UTC)
}

fn zoned(at: Millis, zone: &TimeZone) -> Option<Zoned> {
    // `Err`: beyond what a calendar has.
    Timestamp::from_millisecond(at.0).ok().map(|time| time.to_zoned(zone.clone()))
}

fn written(at: Millis, zone: &TimeZone, format: &str) -> String {
    zoned(at, zone).map_or_else(|| UNKNOWN.to_owned(), |time| time.strftime(format).to_string())
}

/// Date, time to the minute, and zone.
pub fn date_time(at: Millis, zone: &TimeZone) -> String {
    written(at, zone, "%Y-%m-%d %H:%M %Z")
}

/// Time to the second, with its date when that is another than the day of `now`.
pub fn moment(at: Millis, now: Millis, zone: &TimeZone) -> String {
    let day = |at| zoned(at, zone).map(|time| time.date());
    written(at, zone, if day(at) == day(now) { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" })
}

/// From a start to an end: the day once when both lie in it.
pub fn span(from: Millis, to: Millis, zone: &TimeZone) -> String {
    let day = |at| zoned(at, zone).map(|time| time.date());
    let end = if day(from) == day(to) { "%H:%M %Z" } else { "%Y-%m-%d %H:%M %Z" };
    format!("{} – {}", written(from, zone, "%Y-%m-%d %H:%M"), written(to, zone, end))
}

/// As a browser's field for date and time holds it.
pub fn field(at: Millis, zone: &TimeZone) -> String {
    written(at, zone, "%Y-%m-%dT%H:%M")
}

/// What is left until a moment, as a clock shows it; the page's script counts on.
pub fn countdown(left: DurationMs) -> String {
    let seconds = left.0 / 1000;
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Why a typed time is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTime {
    NotUnderstood,
    /// Clocks are put forward over it on that day.
    Skipped,
}

/// A time typed on the site's clock. Of one that comes twice, when clocks are put back, the first is
/// meant.
///
/// # Errors
/// It is none.
pub fn parse(text: &str, zone: &TimeZone) -> Result<Millis, NoTime> {
    let time: DateTime = text.trim().parse().map_err(|_| NoTime::NotUnderstood)?;
    let time = zone.to_ambiguous_timestamp(time);
    if matches!(time.offset(), jiff::tz::AmbiguousOffset::Gap { .. }) {
        return Err(NoTime::Skipped);
    }
    time.compatible().map(|time| Millis(time.as_millisecond())).map_err(|_| NoTime::NotUnderstood)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_times_are_the_sites() {
        let chicago = zone("America/Chicago");
        let noon = parse("2026-07-01T12:00", &chicago).unwrap();
        assert_eq!(noon, Millis(1_782_925_200_000));
        assert_eq!(field(noon, &chicago), "2026-07-01T12:00");
        assert_eq!(date_time(noon, &chicago), "2026-07-01 12:00 CDT");
        let later = noon.plus(DurationMs::from_minutes(90));
        assert_eq!(span(noon, later, &chicago), "2026-07-01 12:00 – 13:30 CDT");
        assert_eq!(moment(later, noon, &chicago), "13:30:00");
        for (text, why) in [
            ("", NoTime::NotUnderstood),
            ("tomorrow", NoTime::NotUnderstood),
            ("2026-13-01T12:00", NoTime::NotUnderstood),
            ("2026-03-08T02:30", NoTime::Skipped),
        ] {
            assert_eq!(parse(text, &chicago), Err(why), "{text}");
        }
        let twice = parse("2026-11-01T01:30", &chicago).unwrap();
        assert_eq!(date_time(twice, &chicago), "2026-11-01 01:30 CDT");
    }

    #[test]
    fn what_is_left_counts_down() {
        assert_eq!(countdown(DurationMs::from_secs(3 * 3600 + 65)), "3:01:05");
        assert_eq!(countdown(DurationMs::ZERO), "0:00:00");
    }
}
