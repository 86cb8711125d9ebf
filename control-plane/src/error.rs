//! The one error type of the control plane.
//!
//! What the outside may read (`text`) and what happened inside (`source`) are kept apart: the text
//! says what a person can do and never quotes a database or a file; the source is logged once, where
//! the error leaves the program. The kind alone decides the HTTP status.

use crate::web::i18n::{Language, Message};
use hashinsight_protocol::units::DurationMs;
use std::fmt;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong, as far as the one who asked is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request can't be meant: 400.
    Invalid,
    /// Who asks is not known: 401.
    Unauthenticated,
    /// Who asks may not: 403.
    Forbidden,
    /// No such thing, or none that the asker may see: 404.
    NotFound,
    /// It was changed, taken or decided meanwhile: 409.
    Conflict,
    /// Too many tries; again after this long: 429.
    TooMany(DurationMs),
    /// Not now: 503.
    Unavailable,
    /// Ours: 500.
    Internal,
}

/// An error with its outside text and its inside chain.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    text: Message,
    source: Option<Source>,
}

impl Error {
    /// An error of `kind`; `text` is a key of the translations with its arguments, or plain words.
    pub fn new(kind: Kind, text: impl Into<Message>) -> Self {
        Self { kind, text: text.into(), source: None }
    }

    pub fn invalid(text: impl Into<Message>) -> Self {
        Self::new(Kind::Invalid, text)
    }

    pub fn not_found() -> Self {
        Self::new(Kind::NotFound, Message::key("error-not-found"))
    }

    pub fn forbidden() -> Self {
        Self::new(Kind::Forbidden, Message::key("error-forbidden"))
    }

    pub fn unauthenticated() -> Self {
        Self::new(Kind::Unauthenticated, Message::key("error-unauthenticated"))
    }

    pub fn conflict(text: impl Into<Message>) -> Self {
        Self::new(Kind::Conflict, text)
    }

    /// Something inside failed; the outside learns only that.
    pub fn internal(source: impl Into<Source>) -> Self {
        Self { kind: Kind::Internal, text: Message::key("error-internal"), source: Some(source.into()) }
    }

    /// The inside of this error.
    #[must_use]
    pub fn because(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The outside text in a language.
    pub fn text(&self, language: Language) -> String {
        self.text.in_language(language)
    }

    /// The outside text, to be said elsewhere than on an error's own page.
    pub fn message(&self) -> Message {
        self.text.clone()
    }

    /// The inside chain in one line, for the log.
    pub fn chain(&self) -> String {
        let mut out = self.to_string();
        let mut next = self.source.as_deref().map(|s| s as &dyn std::error::Error);
        while let Some(error) = next {
            out = format!("{out}: {error}");
            next = error.source();
        }
        out
    }

    /// Whether what was to be stored is at fault, as against the database: it would fail each time.
    pub fn is_of_content(&self) -> bool {
        let Some(source) = self.source.as_deref() else { return false };
        if source.is::<Panicked>() {
            return true;
        }
        let Some(sqlx::Error::Database(error)) = source.downcast_ref::<sqlx::Error>() else { return false };
        let code = error.code().unwrap_or_default();
        if error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some() {
            // Data exceptions, broken constraints, values beyond the server's limits.
            ["22", "23", "54"].iter().any(|class| code.starts_with(class))
        } else {
            // Too big, constraint, mismatch, range; the upper bits say more.
            code.parse().is_ok_and(|code: u32| [18, 19, 20, 25].contains(&(code & 0xff)))
        }
    }

    /// Whether a database refused a row for being there already, or for leaning on nothing.
    pub fn is_constraint(&self) -> bool {
        let database = self.source.as_deref().and_then(|s| s.downcast_ref::<sqlx::Error>());
        database.and_then(sqlx::Error::as_database_error).is_some_and(|e| {
            e.is_unique_violation() || e.is_foreign_key_violation() || e.is_check_violation()
        })
    }
}

/// A bug that what was to be stored brought to light.
#[derive(Debug, thiserror::Error)]
#[error("storing it made the program fail")]
pub struct Panicked;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text.in_language(Language::English))
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as &(dyn std::error::Error + 'static))
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::internal(error)
    }
}

impl From<hashinsight_protocol::ids::NotAnId> for Error {
    fn from(error: hashinsight_protocol::ids::NotAnId) -> Self {
        // An id that can't be one names nothing.
        Self::not_found().because(error)
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::internal(error)
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
