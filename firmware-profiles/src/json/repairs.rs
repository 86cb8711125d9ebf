//! What had to be put right in a reply.

/// What had to be put right in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Repair {
    MissingComma = 1,
    StrayComma = 1 << 1,
    BareWord = 1 << 2,
    QuotedTwice = 1 << 3,
    Truncated = 1 << 4,
    Mismatched = 1 << 5,
    TooDeep = 1 << 6,
    NotUtf8 = 1 << 7,
    TrailingBytes = 1 << 8,
    NotANumber = 1 << 9,
    PlainText = 1 << 10,
    Comment = 1 << 11,
}

impl Repair {
    const ALL: [(Self, &'static str); 12] = [
        (Self::MissingComma, "a comma was missing"),
        (Self::StrayComma, "a comma stood where none belongs"),
        (Self::BareWord, "a word or key had no quotes"),
        (Self::QuotedTwice, "a key was quoted twice"),
        (Self::Truncated, "the reply was cut short"),
        (Self::Mismatched, "brackets did not match"),
        (Self::TooDeep, "values were nested too deep and left out"),
        (Self::NotUtf8, "text was not UTF-8"),
        (Self::TrailingBytes, "bytes followed the end of the reply"),
        (Self::NotANumber, "a number was nan or inf"),
        (Self::PlainText, "the reply was plain text, not JSON"),
        (Self::Comment, "lines of comment stood before the reply"),
    ];
}

/// The repairs made in one reply or one reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repairs(u16);

impl Repairs {
    pub fn add(&mut self, repair: Repair) {
        self.0 |= repair as u16;
    }

    pub fn merge(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub fn has(self, repair: Repair) -> bool {
        self.0 & repair as u16 != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each repair as a sentence.
    pub fn sentences(self) -> impl Iterator<Item = &'static str> {
        Repair::ALL.into_iter().filter(move |(repair, _)| self.has(*repair)).map(|(_, text)| text)
    }
}
