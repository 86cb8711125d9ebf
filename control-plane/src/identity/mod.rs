//! Who may do what: users, their passwords, sessions and API keys.
//!
//! Passwords are Argon2id and slow on purpose; session ids and API keys have 256 and 260 random bits
//! and are stored as their SHA-256. Tries at passwords are limited for each name and each address,
//! in memory: what a guesser gains by a restart is one more round.

pub mod api_keys;
pub mod guard;
pub mod login;
pub mod passwords;
pub mod roles;
pub mod sessions;
pub mod users;

pub use roles::{Permission, Role};

use hashinsight_protocol::ids::UserId;
use std::sync::Mutex;

/// What is shared by all sign-ins.
#[derive(Debug, Default)]
pub struct Identity {
    passwords: passwords::Passwords,
    guard: Mutex<guard::Guard>,
}

/// Who makes a request.
#[derive(Clone, Debug)]
pub struct Caller {
    pub user: UserId,
    pub name: String,
    pub role: Role,
    pub by: By,
}

/// How the caller is known.
#[derive(Clone, Debug)]
pub enum By {
    Session {
        /// SHA-256 of the session's id, as stored.
        id_hash: String,
        csrf: String,
        /// Nothing but setting a new password is open.
        must_change_password: bool,
    },
    ApiKey,
}

impl Caller {
    pub fn may(&self, permission: Permission) -> bool {
        self.role.may(permission)
    }

    /// What the caller's forms carry; empty for an API key, which needs none.
    pub fn csrf(&self) -> &str {
        match &self.by {
            By::Session { csrf, .. } => csrf,
            By::ApiKey => "",
        }
    }
}
