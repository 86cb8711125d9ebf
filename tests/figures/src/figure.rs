//! A figure: a number, its unit, and the bound that it must keep.

use serde::Serialize;
use serde_json::json;

/// What a figure must keep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    fn words(self) -> String {
        match self {
            Self::AtLeast(least) => format!("at least {}", plain(least)),
            Self::AtMost(most) => format!("at most {}", plain(most)),
        }
    }
}

/// One number that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub figure: &'static str,
    /// How many miners it was measured with.
    pub miners: usize,
    pub value: f64,
    pub unit: &'static str,
    /// It is out of order to be beyond this.
    pub bound: Option<Bound>,
    /// What it should be.
    pub aim: Option<Bound>,
    /// What a reader has to know of it.
    pub note: String,
}

impl Figure {
    pub fn new(figure: &'static str, miners: usize, value: f64, unit: &'static str) -> Self {
        Self { figure, miners, value, unit, bound: None, aim: None, note: String::new() }
    }

    pub fn bound(self, bound: Bound) -> Self {
        Self { bound: Some(bound), ..self }
    }

    pub fn aim(self, aim: Bound) -> Self {
        Self { aim: Some(aim), ..self }
    }

    pub fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    pub fn is_ok(&self) -> bool {
        self.bound.is_none_or(|bound| bound.holds(self.value))
    }
}

/// Prints figures as they come, and remembers whether all kept their bounds.
pub struct Report {
    json: bool,
    ok: bool,
}

impl Report {
    pub fn new(json: bool) -> Self {
        Self { json, ok: true }
    }

    pub fn add(&mut self, figure: &Figure) {
        self.ok &= figure.is_ok();
        if self.json {
            let mut line = json!(figure);
            line["ok"] = figure.is_ok().into();
            println!("{line}");
            return;
        }
        let mut words = Vec::new();
        words.extend(figure.bound.map(Bound::words));
        words.extend(figure.aim.map(|aim| format!("aim: {}", aim.words())));
        words.extend(Some(figure.note.clone()).filter(|note| !note.is_empty()));
        let mark = if figure.is_ok() { "  " } else { "✗ " };
        let value = format!("{} {}", plain(figure.value), figure.unit);
        println!("{mark}{:<28} {:>6} miners {value:>22}  {}", figure.figure, figure.miners, words.join("; "));
    }

    pub fn is_ok(&self) -> bool {
        self.ok
    }
}

/// Few digits: a figure is no more exact than its machine is calm.
fn plain(value: f64) -> String {
    if value.fract() == 0.0 || value.abs() >= 1000.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}

/// The middle of some values; `NAN` of none, which keeps no bound.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (below, above) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    match (values.get(below), values.get(above)) {
        (Some(below), Some(above)) => (below + above) / 2.0,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn nothing_measured_keeps_no_bound() {
        for bound in [Bound::AtLeast(0.0), Bound::AtMost(1.0)] {
            assert!(!Figure::new("x", 1, f64::NAN, "s").bound(bound).is_ok());
        }
        assert!(Figure::new("x", 1, 2.0, "s").bound(Bound::AtLeast(2.0)).is_ok());
        assert!(!Figure::new("x", 1, 2.1, "s").bound(Bound::AtMost(2.0)).is_ok());
    }
}
