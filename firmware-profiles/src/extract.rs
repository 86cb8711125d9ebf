//! The extractor: a profile's lines compiled once into a trie, run over a reply in one pass.
//!
//! No dynamic value is built: the walker follows the reply's keys through the trie, steps over what
//! no line names, and hands each named scalar to a [`Finds`]. A reply of 5 kB costs one look-up a
//! key and one parse a number.
//!
//! Limits: [`MAX_ENTRIES`] list entries a reading, [`MAX_TEXT`] bytes a text; what goes beyond is
//! left out.

use crate::json::{Cursor, Kind, MAX_DEPTH, Repair, Scalar};
use crate::rules::{Rule, Step};
use crate::text;
use std::collections::HashMap;

mod finds;
mod order;
mod table;

pub use finds::{Entry, Finds, Found, MAX_ENTRIES, MAX_TEXT, is_sensor_value};

use finds::Place;
use order::{Budget, Orders, Walk};
use table::Table;

type NodeId = u32;

#[derive(Debug, Default)]
struct Node {
    keys: Table,
    orders: Orders,
    any: Option<NodeId>,
    indexed: bool,
    actions: Vec<Action>,
}

impl Node {
    fn has_children(&self) -> bool {
        !self.keys.is_empty() || self.any.is_some()
    }
}

/// What is done with a value at a node.
#[derive(Debug)]
struct Action {
    rank: u16,
    block: u16,
    /// Its path ends with any key, so the key says something.
    keyed: bool,
    /// The line, without its path.
    rule: Rule,
}

/// A profile's lines, compiled.
#[derive(Debug, Default)]
pub struct Extractor {
    nodes: Vec<Node>,
    /// The root of each reply by its request's name; "*" is any reply.
    roots: HashMap<String, NodeId>,
    learned: Budget,
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
        let keyed = rule.path.last().is_some_and(|(step, _)| *step == Step::Any);
        let rule = Rule { path: Vec::new(), ..rule.clone() };
        self.nodes[at as usize].actions.push(Action { rank, block, keyed, rule });
    }

    fn node(&mut self) -> NodeId {
        self.nodes.push(Node::default());
        // A profile has some hundred lines; the count fits.
        u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
    }

    fn child_or_new(&mut self, at: NodeId, step: &Step) -> NodeId {
        let node = &self.nodes[at as usize];
        let found = match step {
            Step::Key(key) => node.keys.exact(key),
            Step::Numbered(before, after) => node.keys.numbered(before, after),
            Step::Any => node.any,
        };
        if let Some(id) = found {
            return id;
        }
        let id = self.node();
        let node = &mut self.nodes[at as usize];
        match step {
            Step::Key(key) => node.keys.put_exact(key, id),
            Step::Numbered(before, after) => node.keys.put_numbered(before, after, id),
            Step::Any => node.any = Some(id),
        }
        id
    }

    /// The child that a key leads to, and the index in it.
    #[inline]
    fn child(&self, at: NodeId, key: &[u8]) -> Option<(NodeId, Option<u32>)> {
        let node = self.nodes.get(at as usize)?;
        node.keys.find(key).or_else(|| node.any.map(|id| (id, None)))
    }

    /// Runs over one reply. `name` is the request's.
    pub fn run(&self, name: &str, bytes: &[u8], finds: &mut Finds) {
        finds.next_reply();
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
            let Some((list, _)) = self.child(root, section.list.as_bytes()) else { continue };
            let count = counts.entry(section.list).or_default();
            let place = if self.nodes[list as usize].indexed { Place::at(*count) } else { Place::default() };
            *count += 1;
            for (key, value) in section.fields.iter() {
                let key = key.as_bytes();
                if let Some((child, index)) = self.child(list, key) {
                    let place = index.map_or(place, Place::at);
                    let value = text::unescape(value);
                    self.scalar(child, key, &Scalar::Text(value), place, 0, finds);
                }
            }
        }
    }

    fn walk(&self, cursor: &mut Cursor<'_>, at: NodeId, place: Place, depth: u8, finds: &mut Finds) {
        self.walk_named(cursor, at, b"", place, depth, finds);
    }

    fn walk_named(
        &self,
        cursor: &mut Cursor<'_>,
        at: NodeId,
        key: &[u8],
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
                let mut label: Option<Vec<u8>> = None;
                let mut walk = Walk::new(&self.nodes[at as usize].orders);
                while let Some((key, child)) = walk.next(cursor, |key| self.child(at, key)) {
                    let (named, child) = match &label {
                        Some(label) if *key == *b"value" => (label.as_slice(), self.child(at, label)),
                        _ => (&*key, child),
                    };
                    match child {
                        Some((child, index)) => {
                            let place = index.map_or(place, |i| place.step(i));
                            self.walk_named(cursor, child, named, place, depth + 1, finds);
                        }
                        None if *key == *b"name" && cursor.kind() == Kind::Scalar => {
                            label = finds::as_text(&cursor.scalar()).map(|text| text.as_bytes().to_vec());
                        }
                        None => cursor.skip(),
                    }
                }
                walk.end(&self.learned);
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

    fn scalar(&self, at: NodeId, key: &[u8], value: &Scalar<'_>, place: Place, depth: u8, finds: &mut Finds) {
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
                    let key = key.as_bytes();
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
