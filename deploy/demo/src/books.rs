//! The books: what devices answered against what the control plane stored.
//!
//! Each answer must be stored exactly once. Both sides stamp the same moment with the same machine's
//! clock, so an answer and its stored reading lie within [`TOLERANCE_MS`] of each other; both are paired
//! in order, miner by miner.

use std::collections::BTreeMap;

/// From the last byte of an answer to the stamp of its reading. A busy machine may take its time.
pub const TOLERANCE_MS: i64 = 3_000;

/// Answers this close may be stamped in another order than they were given.
const TIE_MS: i64 = 100;

/// A poll that a device answered in full.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Wall time, milliseconds.
    pub at: i64,
    pub device: String,
    pub n: u64,
    pub hashrate_hs: Option<f64>,
}

/// A reading that the control plane stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub at: i64,
    pub hashrate_hs: Option<f64>,
}

/// What the comparison found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub answered: usize,
    pub stored: usize,
    /// Answered and stored, one to one.
    pub matched: usize,
    /// Answered, and nowhere to be found.
    pub lost: usize,
    /// Stored, and never answered, or stored twice.
    pub surplus: usize,
    /// Stored with another hashrate than the device said.
    pub wrong: usize,
}

impl Books {
    pub fn balance(&self) -> bool {
        self.answered > 0 && (self.lost, self.surplus, self.wrong) == (0, 0, 0)
    }
}

/// An answer that is stored nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// As the books name it.
    pub device: String,
    pub at: i64,
}

/// Pairs answers and readings of one device after another. `until` bounds what is compared: later ones
/// serve as partners and are not missed themselves.
pub fn compare(
    answers: &BTreeMap<String, Vec<Answer>>,
    stored: &BTreeMap<String, Vec<Stored>>,
    until: i64,
) -> Books {
    compare_each(answers, stored, until).0
}

/// As [`compare`], and names what is lost.
pub fn compare_each(
    answers: &BTreeMap<String, Vec<Answer>>,
    stored: &BTreeMap<String, Vec<Stored>>,
    until: i64,
) -> (Books, Vec<Missing>) {
    let mut books = Books::default();
    let mut missing = Vec::new();
    let none = (Vec::new(), Vec::new());
    let devices: std::collections::BTreeSet<_> = answers.keys().chain(stored.keys()).collect();
    for device in devices {
        let mut a = answers.get(device).unwrap_or(&none.0).clone();
        let mut s = stored.get(device).unwrap_or(&none.1).clone();
        a.sort_by_key(|a| a.at);
        s.sort_by_key(|s| s.at);
        let one = pair(&a, &s, until, &mut |at| missing.push(Missing { device: device.clone(), at }));
        books.answered += one.answered;
        books.stored += one.stored;
        books.matched += one.matched;
        books.lost += one.lost;
        books.surplus += one.surplus;
        books.wrong += one.wrong;
    }
    (books, missing)
}

fn pair(answers: &[Answer], stored: &[Stored], until: i64, lost: &mut dyn FnMut(i64)) -> Books {
    let mut books = Books {
        answered: answers.iter().filter(|a| a.at <= until).count(),
        stored: stored.iter().filter(|s| s.at <= until).count(),
        ..Books::default()
    };
    let all = answers;
    let (mut answers, mut stored) = (answers.iter().peekable(), stored.iter().peekable());
    loop {
        match (answers.peek(), stored.peek()) {
            (Some(a), Some(s)) if (a.at - s.at).abs() <= TOLERANCE_MS => {
                if a.at <= until {
                    books.matched += 1;
                    let tie = |b: &&Answer| (b.at - s.at).abs() <= TIE_MS;
                    let mut near = all.iter().filter(tie).chain([*a]);
                    books.wrong += usize::from(!near.any(|a| same(a.hashrate_hs, s.hashrate_hs)));
                }
                answers.next();
                stored.next();
            }
            (Some(a), s) if s.is_none_or(|s| a.at < s.at) => {
                if a.at <= until {
                    books.lost += 1;
                    lost(a.at);
                }
                answers.next();
            }
            (_, Some(s)) => {
                // One whose answer would lie after the bound is not judged.
                books.surplus += usize::from(s.at <= until - TOLERANCE_MS);
                stored.next();
            }
            (None, None) => return books,
            (Some(_), None) => unreachable!("an answer without any reading left is lost, above"),
        }
    }
}

/// Replies are rounded: two decimals of a gigahash at the finest, half a percent at the coarsest.
fn same(said: Option<f64>, stored: Option<f64>) -> bool {
    match (said, stored) {
        (Some(a), Some(b)) => (a - b).abs() <= a.abs() * 0.006 + 1e7,
        // A device that says nothing is stored as unknown, or as a stopped one.
        (None, b) => b.is_none_or(|b| b == 0.0),
        (Some(a), None) => a == 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(times: &[i64]) -> BTreeMap<String, Vec<Answer>> {
        let each = |(n, at): (usize, &i64)| Answer {
            at: *at,
            device: "d".into(),
            n: n as u64,
            hashrate_hs: Some(1e14),
        };
        BTreeMap::from([("d".to_owned(), times.iter().enumerate().map(each).collect())])
    }

    fn stored(times: &[i64]) -> BTreeMap<String, Vec<Stored>> {
        let each = |at: &i64| Stored { at: *at, hashrate_hs: Some(1e14) };
        BTreeMap::from([("d".to_owned(), times.iter().map(each).collect())])
    }

    #[test]
    fn every_kind_of_error_is_found() {
        struct Case(&'static [i64], &'static [i64], (usize, usize));
        for Case(a, s, (lost, surplus)) in [
            Case(&[10_000, 20_000], &[10_005, 20_100], (0, 0)),
            Case(&[10_000, 20_000], &[10_005], (1, 0)),
            Case(&[10_000], &[10_005, 10_006], (0, 1)),
            Case(&[10_000], &[10_005, 20_000], (0, 1)),
            Case(&[], &[20_000], (0, 1)),
            Case(&[10_000, 20_000, 30_000], &[10_001, 30_001], (1, 0)),
            // Beyond the bound nothing is judged.
            Case(&[10_000, 91_000], &[10_001], (0, 0)),
        ] {
            let books = compare(&answers(a), &stored(s), 90_000);
            assert_eq!((books.lost, books.surplus), (lost, surplus), "{a:?} {s:?}");
        }
    }

    #[test]
    fn another_figure_than_the_device_said_is_wrong() {
        let mut s = stored(&[10_000]);
        if let Some(list) = s.get_mut("d") {
            list[0].hashrate_hs = Some(2e14);
        }
        assert_eq!(compare(&answers(&[10_000]), &s, 90_000).wrong, 1);
    }

    #[test]
    fn empty_books_do_not_balance() {
        assert!(!compare(&BTreeMap::new(), &BTreeMap::new(), 1).balance());
    }
}
