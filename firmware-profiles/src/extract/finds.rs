//! What was found in the replies of one device, on its way into a reading.
//!
//! A value that stands alone has a slot by its target, which the line of the lowest rank keeps; the
//! values of a list are kept as they come. Texts are copied only where they are kept.

use super::Action;
use crate::json::{Repairs, Scalar, leading_number, whole_number};
use crate::profile::RateUnit;
use crate::rules::{List, Pattern, Target, Unit, Word, rate_factor};
use std::borrow::Cow;

/// More boards, fans, sensors and pools than any device has.
pub const MAX_ENTRIES: usize = 2048;
/// Longest text that is kept, in bytes.
pub const MAX_TEXT: usize = 512;
/// What a device with all its sensors has, so that a list seldom grows.
const USUAL_ENTRIES: usize = 18;

/// Where in the reply's lists a value stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Place(Option<u32>);

impl Place {
    pub fn at(index: u32) -> Self {
        Self(Some(index))
    }

    /// The index in the outer list.
    fn row(self) -> Option<u32> {
        self.0.map(|place| if place < 256 { place } else { place / 256 - 1 })
    }

    /// A list in a list: pools in groups keep apart.
    pub fn step(self, index: u32) -> Self {
        Self(Some(match self.0 {
            None => index,
            Some(outer) => (outer.saturating_add(1)).saturating_mul(256).saturating_add(index),
        }))
    }
}

/// A number with its unit still open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Amount {
    pub value: f64,
    pub unit: Unit,
    pub block: u16,
}

/// One value of a list.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    Amount(Amount),
    Text(String),
    Word(Word),
}

/// One value of a list, and where it was found.
#[derive(Clone, Debug)]
pub struct Found {
    pub block: u16,
    /// The rank of its line: the lower, the sooner it is believed.
    pub rank: u16,
    pub reply: u16,
    pub target: Target,
    pub place: Option<u32>,
    pub entry: Entry,
}

/// A value that stands alone, with the rank of the line that found it.
type Slot<T> = Option<(u16, T)>;

/// What was found in the replies of one device.
#[derive(Debug)]
pub struct Finds {
    numbers: [Slot<Amount>; Target::COUNT],
    texts: [Slot<String>; Target::COUNT],
    words: [Slot<Word>; Target::COUNT],
    units: Vec<(u16, f64)>,
    /// What the device's model counts in, where its replies do not say.
    pub model_unit: Option<RateUnit>,
    lists: [Vec<Found>; List::COUNT],
    entries: usize,
    pub repairs: Repairs,
    /// The number of the reply that is being read.
    reply: u16,
    /// The reply each sum is taken over: a second reply that says the same adds nothing.
    sums: [u16; Target::COUNT],
}

impl Default for Finds {
    fn default() -> Self {
        Self {
            numbers: [const { None }; Target::COUNT],
            texts: [const { None }; Target::COUNT],
            words: [const { None }; Target::COUNT],
            units: Vec::new(),
            model_unit: None,
            lists: Default::default(),
            entries: 0,
            repairs: Repairs::default(),
            reply: 0,
            sums: [0; Target::COUNT],
        }
    }
}

fn get<T>(slots: &[Slot<T>], target: Target) -> Option<&(u16, T)> {
    slots.get(target as usize)?.as_ref()
}

/// Whether a line of this rank may put its value into a slot.
fn is_open<T>(slots: &[Slot<T>], target: Target, rank: u16) -> bool {
    get(slots, target).is_none_or(|(kept, _)| rank < *kept)
}

fn put<T>(slots: &mut [Slot<T>], target: Target, rank: u16, value: T) {
    if let Some(slot) = slots.get_mut(target as usize) {
        *slot = Some((rank, value));
    }
}

impl Finds {
    pub fn amount(&self, target: Target) -> Option<f64> {
        get(&self.numbers, target).map(|(_, amount)| self.scaled(*amount, target))
    }

    pub fn text(&self, target: Target) -> Option<&str> {
        get(&self.texts, target).map(|(_, text)| text.as_str())
    }

    pub fn word(&self, target: Target) -> Option<Word> {
        get(&self.words, target).map(|(_, word)| *word)
    }

    /// Takes a text out.
    pub fn take_text(&mut self, target: Target) -> Option<String> {
        self.texts.get_mut(target as usize)?.take().map(|(_, text)| text)
    }

    /// The values of a list, in the order they were found in.
    pub fn list(&self, list: List) -> &[Found] {
        self.lists.get(list as usize).map_or(&[], Vec::as_slice)
    }

    /// Takes the values of a list out.
    pub fn take_list(&mut self, list: List) -> Vec<Found> {
        self.lists.get_mut(list as usize).map(std::mem::take).unwrap_or_default()
    }

    /// Another reply is read from now on.
    pub(super) fn next_reply(&mut self) {
        self.reply = self.reply.saturating_add(1);
    }

    /// The amount in our unit.
    pub fn scaled(&self, amount: Amount, target: Target) -> f64 {
        let factor = match amount.unit {
            Unit::Default(default) => {
                let said =
                    self.units.iter().find(|(block, _)| *block == amount.block).map(|(_, factor)| *factor);
                let model = self.model_unit.map(|unit| {
                    if target == Target::BoardRate { unit.boards } else { unit.total(amount.value) }
                });
                said.or(model).unwrap_or(default)
            }
            unit => unit.factor(),
        };
        amount.value * factor
    }

    pub(super) fn take(
        &mut self,
        action: &Action,
        key: &[u8],
        value: &Scalar<'_>,
        place: Place,
        picked: bool,
    ) {
        let rule = &action.rule;
        if !rule.map.is_empty() {
            if let Some(word) = look_up(&rule.map, value) {
                self.word_found(action, word, place);
            }
            return;
        }
        match rule.target {
            Target::RateUnit => {
                if let Scalar::Text(text) = value
                    && let Some(factor) = rate_factor(text)
                {
                    self.units.push((action.block, factor));
                }
            }
            Target::Model | Target::Version | Target::Serial | Target::Mac | Target::Profile => {
                self.text_found(action, value)
            }
            Target::PoolUrl | Target::PoolHost | Target::PoolWorker => {
                if let Some(text) = as_text(value) {
                    self.entry(action, place, Entry::Text(text.into_owned()));
                }
            }
            // An error is named by its key (`{"218":"…"}`) or by its value.
            Target::Error => {
                // Beside its code an entry may say why.
                if action.keyed && key == b"reason" {
                    let Some(text) = as_text(value).filter(|t| !t.is_empty()) else { return };
                    return self.push(action, Target::ErrorText, place, Entry::Text(text.into_owned()));
                }
                let text = if action.keyed {
                    Some(cut(&String::from_utf8_lossy(key)).to_owned().into())
                } else {
                    as_text(value)
                };
                if let Some(text) = text.filter(|t| !t.is_empty()) {
                    self.entry(action, place, Entry::Text(text.into_owned()));
                }
            }
            Target::ErrorText => {
                if let Some(text) = as_text(value).filter(|t| !t.is_empty()) {
                    self.entry(action, place, Entry::Text(text.into_owned()));
                }
            }
            Target::Temp | Target::BoardTemp | Target::Fan => {
                self.numbers_found(action, value, place, picked)
            }
            _ => {
                let Some(amount) = self.amount_of(action, value, picked) else { return };
                if rule.target.list().is_some() {
                    self.entry(action, place, Entry::Amount(amount));
                } else if rule.sum {
                    self.add(action, amount);
                } else if is_open(&self.numbers, rule.target, action.rank) {
                    put(&mut self.numbers, rule.target, action.rank, amount);
                }
            }
        }
    }

    /// Adds to the sum that a line makes over one reply.
    fn add(&mut self, action: &Action, amount: Amount) {
        let target = action.rule.target;
        if is_open(&self.numbers, target, action.rank) {
            put(&mut self.numbers, target, action.rank, amount);
            if let Some(reply) = self.sums.get_mut(target as usize) {
                *reply = self.reply;
            }
        } else if self.sums.get(target as usize) == Some(&self.reply)
            && let Some(Some((rank, sum))) = self.numbers.get_mut(target as usize)
            && *rank == action.rank
        {
            sum.value += amount.value;
        }
    }

    fn amount_of(&self, action: &Action, value: &Scalar<'_>, picked: bool) -> Option<Amount> {
        let rule = &action.rule;
        let mut unit = rule.unit;
        let number = match (rule.nth, value) {
            (Some(nth), Scalar::Text(text)) if !picked => {
                leading_number(text.split([' ', ',', ';']).filter(|part| !part.is_empty()).nth(nth)?)?
            }
            (_, Scalar::Text(text)) if rule.unit == Unit::InText => {
                let number = leading_number(text)?;
                let after = text
                    .trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | ' ' | '-' | '+'));
                unit = Unit::Fixed(rate_factor(after)?);
                number
            }
            (_, Scalar::Text(text)) if rule.commas => leading_number(&text.replace(',', ""))?,
            (_, Scalar::Bool(flag)) if matches!(rule.target, Target::VendorMode | Target::PoolInUse) => {
                f64::from(u8::from(*flag))
            }
            _ => value.number()?,
        };
        if !rule.takes(number) {
            return None;
        }
        Some(Amount { value: number, unit, block: action.block })
    }

    /// Sensors and fans: one number, or several in one text (`59-59-73-73`, `77 77 76`).
    fn numbers_found(&mut self, action: &Action, value: &Scalar<'_>, place: Place, picked: bool) {
        let rule = &action.rule;
        let single = match value {
            Scalar::Text(text)
                if rule.nth.is_none()
                    && let Some(number) = whole_number(text) =>
            {
                Some(number)
            }
            Scalar::Text(text) if rule.nth.is_none() && !picked && !rule.commas => {
                let text = text.trim();
                let several = text.char_indices().any(|(at, c)| {
                    matches!(c, ' ' | ',' | ';' | '/' | '|')
                        || (c == '-'
                            && text.get(..at).is_some_and(|t| t.ends_with(|c: char| c.is_ascii_digit())))
                });
                if several {
                    let mut negative = false;
                    let mut begin = 0;
                    let ends = text.match_indices([' ', ',', ';', '/', '|', '-', '[', ']']);
                    for (end, separator) in ends.chain([(text.len(), "")]) {
                        let part = text.get(begin..end).unwrap_or_default();
                        begin = end + separator.len();
                        // Two dashes in a row are a dash and a sign.
                        if part.is_empty() {
                            negative = separator == "-";
                            continue;
                        }
                        let number =
                            leading_number(part).map(|n| if std::mem::take(&mut negative) { -n } else { n });
                        self.number_entry(action, number, place);
                    }
                    return;
                }
                leading_number(text)
            }
            _ => self.amount_of(action, value, picked).map(|a| a.value),
        };
        self.number_entry(action, single, place);
    }

    fn number_entry(&mut self, action: &Action, number: Option<f64>, place: Place) {
        let Some(value) = number else { return };
        let rule = &action.rule;
        if !rule.takes(value) || (rule.once && self.said_elsewhere(action, place)) {
            return;
        }
        // The places of missing boards and fans are most of a reply's numbers.
        let is_absent = match (rule.target, rule.unit) {
            // What one board says of all counts, also that there is nothing.
            _ if rule.once => false,
            (Target::Fan, _) => value <= 0.0,
            (_, Unit::Fixed(factor)) => !is_sensor_value(value * factor),
            _ => false,
        };
        if is_absent {
            return;
        }
        let amount = Amount { value, unit: action.rule.unit, block: action.block };
        self.entry(action, place, Entry::Amount(amount));
    }

    /// Whether another board has said already what each of them repeats.
    fn said_elsewhere(&self, action: &Action, place: Place) -> bool {
        let target = action.rule.target;
        let same = |f: &&Found| f.rank == action.rank && f.target == target;
        let first = target.list().and_then(|list| self.list(list).iter().find(same));
        first.is_some_and(|first| Place(first.place).row() != place.row() || first.reply != self.reply)
    }

    fn text_found(&mut self, action: &Action, value: &Scalar<'_>) {
        let target = action.rule.target;
        if is_open(&self.texts, target, action.rank)
            // Iceriver writes "none" where it does not know its model.
            && let Some(text) = as_text(value).filter(|t| !matches!(&**t, "" | "none"))
        {
            put(&mut self.texts, target, action.rank, text.into_owned());
        }
    }

    fn word_found(&mut self, action: &Action, word: Word, place: Place) {
        if word == Word::Nothing {
            return;
        }
        let target = action.rule.target;
        if target.list().is_some() {
            self.entry(action, place, Entry::Word(word));
        } else if is_open(&self.words, target, action.rank) {
            put(&mut self.words, target, action.rank, word);
        }
    }

    fn entry(&mut self, action: &Action, place: Place, entry: Entry) {
        self.push(action, action.rule.target, place, entry);
    }

    fn push(&mut self, action: &Action, target: Target, place: Place, entry: Entry) {
        let Some(list) = target.list().and_then(|list| self.lists.get_mut(list as usize)) else { return };
        if self.entries >= MAX_ENTRIES {
            return;
        }
        self.entries += 1;
        if list.capacity() == 0 {
            list.reserve(USUAL_ENTRIES);
        }
        let place = action.rule.at.or(place.0);
        let Action { rank, block, .. } = *action;
        list.push(Found { block, rank, reply: self.reply, target, place, entry });
    }
}

/// A number that no sensor means: unplugged ones report these.
pub fn is_sensor_value(degrees: f64) -> bool {
    degrees != 0.0 && degrees != 255.0 && degrees != 127.0 && (-40.0..=200.0).contains(&degrees)
}

fn look_up(map: &[(Pattern, Word)], value: &Scalar<'_>) -> Option<Word> {
    let text = as_text(value)?;
    map.iter().find(|(pattern, _)| pattern.fits(&text)).map(|(_, word)| *word)
}

/// A scalar as a text, without the quotes that some firmwares put around it a second time.
pub(super) fn as_text<'a>(value: &'a Scalar<'_>) -> Option<Cow<'a, str>> {
    match value {
        Scalar::Text(text) => Some(cut(text.trim().trim_matches('\'')).into()),
        Scalar::Number(digits, _) => Some(cut(digits).into()),
        Scalar::Bool(flag) => Some(if *flag { "true" } else { "false" }.into()),
        Scalar::Null => None,
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}
