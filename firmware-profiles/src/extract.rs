//! The extractor: a profile's lines compiled once into a trie, run over a reply in one pass.
//!
//! No dynamic value is built: the walker follows the reply's keys through the trie, steps over what
//! no line names, and hands each named scalar to a [`Finds`]. A reply of 5 kB costs one look-up a
//! key and one parse a number.
//!
//! Limits: [`MAX_ENTRIES`] list entries a reading, [`MAX_TEXT`] bytes a text; what goes beyond is
//! left out.

use crate::json::{Cursor, Kind, MAX_DEPTH, Repair, Repairs, Scalar, leading_number};
use crate::profile::RateUnit;
use crate::rules::{Pattern, Rule, Step, Target, Unit, Word, rate_factor};
use crate::text;
use std::collections::HashMap;

/// More boards, fans, sensors and pools than any device has.
pub const MAX_ENTRIES: usize = 2048;
/// Longest text that is kept, in bytes.
pub const MAX_TEXT: usize = 512;

type NodeId = u32;

#[derive(Debug, Default)]
struct Node {
    keys: Table,
    /// Keys with a run of digits, which is left out of the name.
    numbered: Table,
    any: Option<NodeId>,
    indexed: bool,
    actions: Vec<Action>,
}

impl Node {
    fn has_children(&self) -> bool {
        !self.keys.is_empty() || !self.numbered.is_empty() || self.any.is_some()
    }
}

/// A small hash table of names: most keys of a reply are in none, and are told so by one look.
#[derive(Debug, Default)]
struct Table {
    /// Names in two parts, between which digits may stand.
    names: Vec<(Box<str>, Box<str>, NodeId)>,
    /// Twice as many slots as names or more; a slot is the place of a name plus one, or zero.
    slots: Vec<u16>,
}

impl Table {
    fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    #[inline]
    fn find(&self, before: &str, after: &str) -> Option<NodeId> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut slot = hash(before.as_bytes(), after.as_bytes()) & mask;
        loop {
            let place = usize::from(*self.slots.get(slot)?);
            let (a, b, id) = self.names.get(place.checked_sub(1)?)?;
            if **a == *before && **b == *after {
                return Some(*id);
            }
            slot = (slot + 1) & mask;
        }
    }

    fn insert(&mut self, before: &str, after: &str, id: NodeId) {
        self.names.push((before.into(), after.into(), id));
        let size = (self.names.len() * 4).next_power_of_two();
        self.slots = vec![0; size];
        for (n, (a, b, _)) in self.names.iter().enumerate() {
            let mut slot = hash(a.as_bytes(), b.as_bytes()) & (size - 1);
            while self.slots.get(slot).is_some_and(|place| *place != 0) {
                slot = (slot + 1) & (size - 1);
            }
            if let Some(free) = self.slots.get_mut(slot) {
                // A profile has some hundred names.
                *free = u16::try_from(n + 1).unwrap_or(u16::MAX);
            }
        }
    }
}

#[inline]
fn hash(before: &[u8], after: &[u8]) -> usize {
    let step = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
    let h = before.iter().fold(0xcbf2_9ce4_8422_2325, step);
    let h = after.iter().fold(h ^ 0xff, step);
    (h ^ (h >> 32)) as usize
}

#[derive(Debug)]
struct Action {
    rank: u16,
    block: u16,
    rule: Rule,
}

/// A profile's lines, compiled.
#[derive(Debug, Default)]
pub struct Extractor {
    nodes: Vec<Node>,
    /// The root of each reply by its request's name; "*" is any reply.
    roots: HashMap<String, NodeId>,
}

impl Extractor {
    /// Compiles lines: the replies each is for, the rank of its block, the line. The rank of a line
    /// is its place. A line for "*" is for every reply.
    pub fn compile(lines: &[(&[String], u16, Rule)]) -> Self {
        let mut out = Self::default();
        for name in lines.iter().flat_map(|(replies, ..)| replies.iter()) {
            if !out.roots.contains_key(name) {
                let root = out.node();
                out.roots.insert(name.clone(), root);
            }
        }
        for (rank, (replies, block, rule)) in lines.iter().enumerate() {
            let everywhere = replies.iter().any(|name| name == "*");
            let mut roots: Vec<NodeId> = out
                .roots
                .iter()
                .filter(|(name, _)| everywhere || replies.contains(name))
                .map(|(_, root)| *root)
                .collect();
            roots.sort_unstable();
            for root in roots {
                out.add(root, u16::try_from(rank).unwrap_or(u16::MAX), *block, rule);
            }
        }
        out
    }

    fn add(&mut self, root: NodeId, rank: u16, block: u16, rule: &Rule) {
        let mut at = root;
        for (step, indexed) in &rule.path {
            // An empty key with brackets is the list at the top of the reply.
            if !matches!(step, Step::Key(key) if key.is_empty()) {
                at = self.child_or_new(at, step);
            }
            if *indexed {
                self.nodes[at as usize].indexed = true;
            }
        }
        self.nodes[at as usize].actions.push(Action { rank, block, rule: rule.clone() });
    }

    fn node(&mut self) -> NodeId {
        self.nodes.push(Node::default());
        // A profile has some hundred lines; the count fits.
        u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
    }

    fn child_or_new(&mut self, at: NodeId, step: &Step) -> NodeId {
        let node = &self.nodes[at as usize];
        let found = match step {
            Step::Key(key) => node.keys.find(key, ""),
            Step::Numbered(before, after) => node.numbered.find(before, after),
            Step::Any => node.any,
        };
        if let Some(id) = found {
            return id;
        }
        let id = self.node();
        let node = &mut self.nodes[at as usize];
        match step {
            Step::Key(key) => node.keys.insert(key, "", id),
            Step::Numbered(before, after) => node.numbered.insert(before, after, id),
            Step::Any => node.any = Some(id),
        }
        id
    }

    /// The child that a key leads to, and the index in it.
    fn child(&self, at: NodeId, key: &str) -> Option<(NodeId, Option<u32>)> {
        let node = self.nodes.get(at as usize)?;
        if let Some(id) = node.keys.find(key, "") {
            return Some((id, None));
        }
        if !node.numbered.is_empty()
            && let Some((before, digits, after)) = last_digits(key)
            && let Some(id) = node.numbered.find(before, after)
        {
            return Some((id, digits.parse().ok()));
        }
        node.any.map(|id| (id, None))
    }

    /// Runs over one reply. `name` is the request's.
    pub fn run(&self, name: &str, bytes: &[u8], finds: &mut Finds) {
        finds.reply = finds.reply.saturating_add(1);
        if text::is_text_reply(bytes) {
            finds.repairs.add(Repair::PlainText);
            return self.run_text(name, bytes, finds);
        }
        let mut cursor = Cursor::new(bytes);
        let kind = cursor.kind();
        if name.contains('+') && kind == Kind::Object {
            cursor.open();
            while let Some(command) = cursor.member() {
                match self.root(&command) {
                    Some(root) => self.walk(&mut cursor, root, Place::default(), 0, finds),
                    None => cursor.skip(),
                }
            }
        } else if let Some(root) = self.root(name) {
            self.walk(&mut cursor, root, Place::default(), 0, finds);
        }
        cursor.finish();
        finds.repairs.merge(cursor.repairs);
    }

    fn root(&self, name: &str) -> Option<NodeId> {
        self.roots.get(name).or_else(|| self.roots.get("*")).copied()
    }

    fn run_text(&self, name: &str, bytes: &[u8], finds: &mut Finds) {
        let whole = String::from_utf8_lossy(bytes);
        let mut counts: HashMap<&str, u32> = HashMap::new();
        for section in text::sections(&whole) {
            // A joined text reply names its commands in sections of their own; lists are enough to
            // tell what belongs where.
            let command = if name.contains('+') { list_command(section.list) } else { name };
            let Some(root) = self.root(command) else { continue };
            let Some((list, _)) = self.child(root, section.list) else { continue };
            let count = counts.entry(section.list).or_default();
            let place = if self.nodes[list as usize].indexed { Place::at(*count) } else { Place::default() };
            *count += 1;
            for (key, value) in section.fields.iter() {
                if let Some((child, index)) = self.child(list, key) {
                    let place = index.map_or(place, Place::at);
                    let value = text::unescape(value);
                    self.scalar(child, key, &Scalar::Text(value), place, 0, finds);
                }
            }
        }
    }

    fn walk(&self, cursor: &mut Cursor<'_>, at: NodeId, place: Place, depth: u8, finds: &mut Finds) {
        self.walk_named(cursor, at, "", place, depth, finds);
    }

    fn walk_named(
        &self,
        cursor: &mut Cursor<'_>,
        at: NodeId,
        key: &str,
        place: Place,
        depth: u8,
        finds: &mut Finds,
    ) {
        if depth >= MAX_DEPTH {
            cursor.repairs.add(Repair::TooDeep);
            cursor.skip();
            return;
        }
        match cursor.kind() {
            Kind::Object => {
                cursor.open();
                // A pair `{"name": "Fan 1 Speed", "value": 3000}` is read as `"Fan 1 Speed": 3000`.
                let mut label: Option<String> = None;
                while let Some(key) = cursor.member() {
                    let named = match &label {
                        Some(label) if key == "value" => label,
                        _ => &*key,
                    };
                    match self.child(at, named) {
                        Some((child, index)) => {
                            let place = index.map_or(place, |i| place.step(i));
                            self.walk_named(cursor, child, named, place, depth + 1, finds);
                        }
                        None if key == "name" && cursor.kind() == Kind::Scalar => {
                            label = as_text(&cursor.scalar());
                        }
                        None => cursor.skip(),
                    }
                }
            }
            Kind::Array => {
                cursor.open();
                let node = &self.nodes[at as usize];
                // `nth` counts in lists of numbers as it does in texts.
                let picks = node.actions.iter().any(|a| a.rule.nth.is_some());
                let mut n = 0_u32;
                while cursor.element() {
                    let inner = if node.indexed { place.step(n) } else { place };
                    if picks && cursor.kind() == Kind::Scalar {
                        let value = cursor.scalar();
                        for action in &node.actions {
                            if action.rule.nth.is_none_or(|nth| nth == n as usize) {
                                finds.take(action, key, &value, inner, true);
                            }
                        }
                    } else {
                        self.walk_named(cursor, at, key, inner, depth + 1, finds);
                    }
                    n = n.saturating_add(1);
                }
            }
            Kind::Scalar => {
                let value = cursor.scalar();
                self.scalar(at, key, &value, place, depth, finds);
            }
            Kind::None => {}
        }
    }

    fn scalar(&self, at: NodeId, key: &str, value: &Scalar<'_>, place: Place, depth: u8, finds: &mut Finds) {
        let node = &self.nodes[at as usize];
        for action in &node.actions {
            finds.take(action, key, value, place, false);
        }
        if node.has_children()
            && depth < MAX_DEPTH
            && let Scalar::Text(text) = value
        {
            if is_json(text) {
                let mut inner = Cursor::new(text.as_bytes());
                self.walk(&mut inner, at, place, depth + 1, finds);
            } else {
                for (key, value) in text::brackets(text) {
                    if let Some((child, index)) = self.child(at, key) {
                        let place = index.map_or(place, |i| place.step(i));
                        let value = Scalar::Text(value.into());
                        for action in &self.nodes[child as usize].actions {
                            finds.take(action, key, &value, place, false);
                        }
                    }
                }
            }
        }
    }
}

/// Whether a text holds JSON rather than Avalon's `Key[value]` pairs.
fn is_json(text: &str) -> bool {
    let text = text.trim_start();
    let Some(inner) = text.strip_prefix(['{', '[']) else { return false };
    !text::is_bracketed(text) || inner.trim_start().starts_with(['"', '{'])
}

/// The command whose reply holds a list, for joined text replies.
fn list_command(list: &str) -> &'static str {
    match list {
        "SUMMARY" => "summary",
        "POOLS" => "pools",
        "DEVS" => "devs",
        "STATS" => "stats",
        "VERSION" => "version",
        "CONFIG" => "config",
        "DEVDETAILS" => "devdetails",
        _ => "*",
    }
}

/// A key around its last run of digits.
fn last_digits(key: &str) -> Option<(&str, &str, &str)> {
    let bytes = key.as_bytes();
    let end = bytes.iter().rposition(u8::is_ascii_digit)? + 1;
    let head = bytes.get(..end)?;
    let start = head.iter().rposition(|b| !b.is_ascii_digit()).map_or(0, |at| at + 1);
    // Digits are one byte each, so both places are between characters.
    Some((key.get(..start)?, key.get(start..end)?, key.get(end..)?))
}

/// Where in the reply's lists a value stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Place(Option<u32>);

impl Place {
    fn at(index: u32) -> Self {
        Self(Some(index))
    }

    /// The index in the outer list.
    fn row(self) -> Option<u32> {
        self.0.map(|place| if place < 256 { place } else { place / 256 - 1 })
    }

    /// A list in a list: pools in groups keep apart.
    fn step(self, index: u32) -> Self {
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

/// What was found in the replies of one device.
#[derive(Debug, Default)]
pub struct Finds {
    numbers: HashMap<Target, (u16, Amount), Hasher>,
    texts: HashMap<Target, (u16, String), Hasher>,
    words: HashMap<Target, (u16, Word), Hasher>,
    units: Vec<(u16, f64)>,
    /// What the device's model counts in, where its replies do not say.
    pub model_unit: Option<RateUnit>,
    pub entries: Vec<Found>,
    pub repairs: Repairs,
    /// The number of the reply that is being read.
    reply: u16,
    /// The reply each sum is taken over: a second reply that says the same adds nothing.
    sums: HashMap<Target, u16, Hasher>,
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

/// Targets are few and small; a multiplication spreads them well enough.
type Hasher = std::hash::BuildHasherDefault<Spread>;

#[derive(Default)]
pub struct Spread(u64);

impl std::hash::Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn write_isize(&mut self, value: isize) {
        self.0 = (value as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Finds {
    pub fn amount(&self, target: Target) -> Option<f64> {
        self.numbers.get(&target).map(|(_, amount)| self.scaled(*amount, target))
    }

    pub fn text(&self, target: Target) -> Option<&str> {
        self.texts.get(&target).map(|(_, text)| text.as_str())
    }

    pub fn word(&self, target: Target) -> Option<Word> {
        self.words.get(&target).map(|(_, word)| *word)
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

    fn take(&mut self, action: &Action, key: &str, value: &Scalar<'_>, place: Place, picked: bool) {
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
                    self.entry(action, place, Entry::Text(text));
                }
            }
            // An error is named by its key (`{"218":"…"}`) or by its value.
            Target::Error => {
                let keyed = rule.path.last().is_some_and(|(step, _)| *step == Step::Any);
                // Beside its code an entry may say why.
                if keyed && key == "reason" {
                    let Some(text) = as_text(value).filter(|t| !t.is_empty()) else { return };
                    return self.push(action, Target::ErrorText, place, Entry::Text(text));
                }
                let text = if keyed { Some(key.to_owned()) } else { as_text(value) };
                if let Some(text) = text.filter(|t| !t.is_empty()) {
                    self.entry(action, place, Entry::Text(cut(&text)));
                }
            }
            Target::ErrorText => {
                if let Some(text) = as_text(value).filter(|t| !t.is_empty()) {
                    self.entry(action, place, Entry::Text(text));
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
                    let slot = self.numbers.entry(rule.target).or_insert((u16::MAX, amount));
                    if action.rank < slot.0 {
                        *slot = (action.rank, amount);
                        self.sums.insert(rule.target, self.reply);
                    } else if slot.0 == action.rank && self.sums.get(&rule.target) == Some(&self.reply) {
                        slot.1.value += amount.value;
                    }
                } else if self.numbers.get(&rule.target).is_none_or(|(rank, _)| action.rank < *rank) {
                    self.numbers.insert(rule.target, (action.rank, amount));
                }
            }
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
        if !action.rule.takes(value) || (action.rule.once && self.said_elsewhere(action, place)) {
            return;
        }
        let amount = Amount { value, unit: action.rule.unit, block: action.block };
        self.entry(action, place, Entry::Amount(amount));
    }

    /// Whether another board has said already what each of them repeats.
    fn said_elsewhere(&self, action: &Action, place: Place) -> bool {
        let same = |f: &&Found| f.rank == action.rank && f.target == action.rule.target;
        let first = self.entries.iter().find(same);
        first.is_some_and(|first| Place(first.place).row() != place.row() || first.reply != self.reply)
    }

    fn text_found(&mut self, action: &Action, value: &Scalar<'_>) {
        let target = action.rule.target;
        let better = self.texts.get(&target).is_none_or(|(rank, _)| action.rank < *rank);
        // Iceriver writes "none" where it does not know its model.
        if better && let Some(text) = as_text(value).filter(|t| !matches!(t.as_str(), "" | "none")) {
            self.texts.insert(target, (action.rank, text));
        }
    }

    fn word_found(&mut self, action: &Action, word: Word, place: Place) {
        if word == Word::Nothing {
            return;
        }
        let target = action.rule.target;
        if target.list().is_some() {
            self.entry(action, place, Entry::Word(word));
        } else if self.words.get(&target).is_none_or(|(rank, _)| action.rank < *rank) {
            self.words.insert(target, (action.rank, word));
        }
    }

    fn entry(&mut self, action: &Action, place: Place, entry: Entry) {
        self.push(action, action.rule.target, place, entry);
    }

    fn push(&mut self, action: &Action, target: Target, place: Place, entry: Entry) {
        if self.entries.len() < MAX_ENTRIES {
            let place = action.rule.at.or(place.0);
            let Action { rank, block, .. } = *action;
            self.entries.push(Found { block, rank, reply: self.reply, target, place, entry });
        }
    }
}

fn look_up(map: &[(Pattern, Word)], value: &Scalar<'_>) -> Option<Word> {
    let text = as_text(value)?.to_ascii_lowercase();
    map.iter()
        .find(|(pattern, _)| match pattern {
            Pattern::Exact(word) => *word == text,
            Pattern::Contains(part) => text.contains(part.as_str()),
            Pattern::Any => true,
        })
        .map(|(_, word)| *word)
}

/// A scalar as a text, without the quotes that some firmwares put around it a second time.
fn as_text(value: &Scalar<'_>) -> Option<String> {
    match value {
        Scalar::Text(text) => Some(cut(text.trim().trim_matches('\''))),
        Scalar::Number(digits) => Some(cut(digits)),
        Scalar::Bool(flag) => Some(flag.to_string()),
        Scalar::Null => None,
    }
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}
