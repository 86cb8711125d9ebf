//! The order form: what an operator typed, kept as typed, and what it means.

use crate::curtailment::request::{Goal, MAX_AHEAD, MAX_MINUTES, Order, PlanRequest, Ramp, Rules};
use crate::curtailment::usual::Usual;
use crate::fleet::sites::Site;
use crate::web::i18n::{Language, Message};
use crate::web::when::{self, NoTime};
use hashinsight_protocol::limits::TEXT_BYTES;
use hashinsight_protocol::units::{DurationMs, Millis};
use serde::Deserialize;
use std::ops::RangeInclusive;

/// A start that was typed this long ago is meant as "now": fields have no seconds.
const JUST_NOW: DurationMs = DurationMs::from_minutes(1);

/// The fields, as typed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct OrderForm {
    /// `reduce` or `all`.
    pub goal: String,
    pub kw: String,
    pub minutes: String,
    /// `now` or `at`.
    pub when: String,
    pub start: String,
    pub order: String,
    pub down_batch: String,
    pub down_every: String,
    pub up_batch: String,
    pub up_every: String,
    /// Minutes.
    pub min_off: String,
    pub min_on: String,
    pub starts: String,
    pub reason: String,
    /// Of a preview: what makes sending it twice one plan.
    pub key: String,
    /// The button: `preview`, `edit` or `send`.
    pub act: String,
}

/// What is wrong, field by field.
#[derive(Clone, Debug, Default)]
pub struct Faults(Vec<(&'static str, Message)>);

impl Faults {
    pub fn of(field: &'static str, message: Message) -> Self {
        Self(vec![(field, message)])
    }

    pub fn any(&self) -> bool {
        !self.0.is_empty()
    }

    pub fn has(&self, field: &str) -> bool {
        self.0.iter().any(|(of, _)| *of == field)
    }

    pub fn text(&self, field: &str, t: &Language) -> Option<String> {
        self.0.iter().find(|(of, _)| *of == field).map(|(_, message)| message.in_language(*t))
    }

    fn add(&mut self, field: &'static str, key: &'static str) {
        self.0.push((field, Message::key(key)));
    }
}

impl OrderForm {
    /// An empty form with what is usual at the site.
    pub fn fresh(site: &Site, usual: &Usual, now: Millis) -> Self {
        let next_hour = Millis((now.0 / 3_600_000 + 1).saturating_mul(3_600_000));
        Self { start: when::field(next_hour, &when::zone(&site.time_zone)), ..Self::filled(usual) }
    }

    fn filled(usual: &Usual) -> Self {
        let Usual { rules, ramp_down, ramp_up } = usual;
        Self {
            goal: "reduce".to_owned(),
            minutes: "60".to_owned(),
            when: "now".to_owned(),
            order: "least_efficient_first".to_owned(),
            down_batch: ramp_down.batch.to_string(),
            down_every: ramp_down.every_s.to_string(),
            up_batch: ramp_up.batch.to_string(),
            up_every: ramp_up.every_s.to_string(),
            min_off: minutes_of(rules.min_off_s),
            min_on: minutes_of(rules.min_on_s),
            starts: rules.starts_a_day.map(|n| n.to_string()).unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Whether something under "advanced" is other than usual, or wrong: then it is shown open.
    pub fn is_advanced(&self, usual: &Usual, faults: &Faults) -> bool {
        let of = |f: Self| {
            [f.order, f.down_batch, f.down_every, f.up_batch, f.up_every, f.min_off, f.min_on, f.starts]
        };
        let names = ["down_batch", "down_every", "up_batch", "up_every", "min_off", "min_on", "starts"];
        of(self.clone()) != of(Self::filled(usual)) || names.iter().any(|name| faults.has(name))
    }

    /// What a preview's own form carries on.
    pub fn kept(&self) -> [(&'static str, &str); 15] {
        [
            ("goal", &self.goal),
            ("kw", &self.kw),
            ("minutes", &self.minutes),
            ("when", &self.when),
            ("start", &self.start),
            ("order", &self.order),
            ("down_batch", &self.down_batch),
            ("down_every", &self.down_every),
            ("up_batch", &self.up_batch),
            ("up_every", &self.up_every),
            ("min_off", &self.min_off),
            ("min_on", &self.min_on),
            ("starts", &self.starts),
            ("reason", &self.reason),
            ("key", &self.key),
        ]
    }

    /// What is ordered.
    ///
    /// # Errors
    /// All that can't be meant, each with its field.
    pub fn read(&self, site: &Site, now: Millis) -> Result<PlanRequest, Faults> {
        let mut faults = Faults::default();
        let goal = match self.goal.as_str() {
            "all" => Goal::All,
            _ => {
                let kw = number(&self.kw).filter(|kw| (0.1..=10_000_000.0).contains(kw));
                kw.map_or_else(
                    || {
                        faults.add("kw", "order-fault-kw");
                        Goal::All
                    },
                    Goal::ReduceKw,
                )
            }
        };
        let minutes = whole(&self.minutes, 1..=MAX_MINUTES).unwrap_or_else(|| {
            faults.add("minutes", "order-fault-minutes");
            0
        });
        let start = if self.when == "at" { self.start(site, now, &mut faults) } else { None };
        let mut part = |field: &'static str, text: &str, range: RangeInclusive<u32>, key: &'static str| {
            whole(text, range).unwrap_or_else(|| {
                faults.add(field, key);
                0
            })
        };
        let batch = 1..=u32::from(u16::MAX);
        let small = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        let ramp_down = Ramp {
            batch: small(part("down_batch", &self.down_batch, batch.clone(), "order-fault-batch")),
            every_s: part("down_every", &self.down_every, 0..=3600, "order-fault-every"),
        };
        let ramp_up = Ramp {
            batch: small(part("up_batch", &self.up_batch, batch, "order-fault-batch")),
            every_s: part("up_every", &self.up_every, 0..=3600, "order-fault-every"),
        };
        let starts_a_day = match self.starts.trim() {
            "" => None,
            text => Some(small(part("starts", text, 1..=1000, "order-fault-starts"))),
        };
        let mut rest = |field: &'static str, text: &str| {
            let minutes = number(text).filter(|minutes| (0.0..=1440.0).contains(minutes));
            minutes.map_or_else(
                || {
                    faults.add(field, "order-fault-rest");
                    0
                },
                |minutes| (minutes * 60.0).round() as u32,
            )
        };
        let rules = Rules {
            min_off_s: rest("min_off", &self.min_off),
            min_on_s: rest("min_on", &self.min_on),
            starts_a_day,
        };
        let reason = self.reason.trim();
        if reason.len() > TEXT_BYTES {
            faults.add("reason", "order-fault-reason");
        }
        if faults.any() {
            return Err(faults);
        }
        let request = PlanRequest {
            site: site.id,
            goal,
            start,
            minutes,
            order: match self.order.as_str() {
                "most_power_first" => Order::MostPowerFirst,
                _ => Order::LeastEfficientFirst,
            },
            exclude: Vec::new(),
            ramp_down: Some(ramp_down),
            ramp_up: Some(ramp_up),
            rules: Some(rules),
            reason: reason.to_owned(),
        };
        match request.check(now) {
            Ok(()) => Ok(request),
            // The fields are checked against the same bounds; what they let through is said as it comes.
            Err(error) => Err(Faults::of("form", Message::Plain(error.to_string()))),
        }
    }

    fn start(&self, site: &Site, now: Millis, faults: &mut Faults) -> Option<Millis> {
        let key = match when::parse(&self.start, &when::zone(&site.time_zone)) {
            Ok(start) if start < now && now.since(start) < JUST_NOW => return None,
            Ok(start) if start < now => "order-fault-start-past",
            Ok(start) if start > now.plus(MAX_AHEAD) => "order-fault-start-far",
            Ok(start) => return Some(start),
            Err(NoTime::NotUnderstood) => "order-fault-start",
            Err(NoTime::Skipped) => "order-fault-start-skipped",
        };
        faults.add("start", key);
        None
    }
}

/// Digits as any keyboard gives them, a Chinese one in full width too.
fn plain(text: &str) -> String {
    let plain = |c: char| match c {
        '０'..='９' => char::from_digit(c as u32 - '０' as u32, 10).unwrap_or(c),
        '．' | '。' => '.',
        c => c,
    };
    text.trim().chars().take(32).map(plain).collect()
}

fn number(text: &str) -> Option<f64> {
    let text = plain(text);
    // Words like "inf" and exponents are no numbers to people.
    let digits = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.parse().ok().filter(|number: &f64| digits && number.is_finite())
}

fn whole(text: &str, range: RangeInclusive<u32>) -> Option<u32> {
    plain(text).parse().ok().filter(|number| range.contains(number))
}

fn minutes_of(seconds: u32) -> String {
    (f64::from(seconds) / 60.0).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashinsight_protocol::ids::SiteId;

    const NOW: Millis = Millis(1_782_925_200_000);

    fn site() -> Site {
        let id = SiteId::from_random([1; 16]);
        Site { id, name: "North".to_owned(), time_zone: "America/Chicago".to_owned(), capacity_w: None }
    }

    fn form() -> OrderForm {
        OrderForm { kw: "250".to_owned(), ..OrderForm::fresh(&site(), &Usual::default(), NOW) }
    }

    #[test]
    fn the_usual_order_is_the_default_request() {
        let request = form().read(&site(), NOW).unwrap();
        assert_eq!((request.goal, request.start, request.minutes), (Goal::ReduceKw(250.0), None, 60));
        assert_eq!(request.usual(), Usual::default());
        assert!(!form().is_advanced(&Usual::default(), &Faults::default()));
        let wide = OrderForm { kw: "１２．５".to_owned(), ..form() };
        assert_eq!(wide.read(&site(), NOW).unwrap().goal, Goal::ReduceKw(12.5));
    }

    #[test]
    fn every_field_that_is_wrong_is_named() {
        let set = |f: fn(&mut OrderForm)| {
            let mut form = form();
            f(&mut form);
            form
        };
        let cases: Vec<(OrderForm, &str)> = vec![
            (set(|f| f.kw.clear()), "kw"),
            (set(|f| f.kw = "-5".to_owned()), "kw"),
            (set(|f| f.kw = "inf".to_owned()), "kw"),
            (set(|f| f.kw = "1e3".to_owned()), "kw"),
            (set(|f| f.minutes = "0".to_owned()), "minutes"),
            (set(|f| f.minutes = "1.5".to_owned()), "minutes"),
            (set(|f| f.minutes = "99999".to_owned()), "minutes"),
            (set(|f| (f.when, f.start) = ("at".to_owned(), "soon".to_owned())), "start"),
            (set(|f| (f.when, f.start) = ("at".to_owned(), "2026-07-01T11:00".to_owned())), "start"),
            (set(|f| (f.when, f.start) = ("at".to_owned(), "2027-07-01T11:00".to_owned())), "start"),
            (set(|f| f.down_batch = "0".to_owned()), "down_batch"),
            (set(|f| f.up_batch = "70000".to_owned()), "up_batch"),
            (set(|f| f.up_every = "3601".to_owned()), "up_every"),
            (set(|f| f.min_off = "x".to_owned()), "min_off"),
            (set(|f| f.starts = "0".to_owned()), "starts"),
            (set(|f| f.reason = "长".repeat(400)), "reason"),
        ];
        for (form, field) in cases {
            let faults = form.read(&site(), NOW).unwrap_err();
            assert!(faults.has(field) && faults.0.len() == 1, "{field}: {faults:?}");
            for t in Language::ALL {
                let text = faults.text(field, &t).unwrap();
                assert!(!text.starts_with("order-"), "{text}");
            }
        }
    }

    #[test]
    fn a_start_is_on_the_sites_clock() {
        let at = |start: &str| OrderForm { when: "at".to_owned(), start: start.to_owned(), ..form() };
        let read = |start: &str| at(start).read(&site(), NOW).unwrap().start;
        assert_eq!(read("2026-07-01T13:00"), Some(NOW.plus(DurationMs::from_minutes(60))));
        // The present minute began some seconds ago.
        let late = NOW.plus(DurationMs::from_secs(20));
        assert_eq!(at("2026-07-01T12:00").read(&site(), late).unwrap().start, None);
    }
}
