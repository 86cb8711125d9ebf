//! Passwords: Argon2id, hashed on threads of their own, few at a time.
//!
//! A hash takes 19 MiB and tens of milliseconds, so at most [`AT_ONCE`] run and at most [`WAITING`]
//! wait: a flood of sign-ins is refused instead of taking the machine.

use crate::error::{Error, Kind, Result};
use crate::web::i18n::Message;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use hashinsight_protocol::units::DurationMs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Semaphore;

const AT_ONCE: usize = 2;
const WAITING: usize = 32;
/// Bytes of a password that are looked at; more is refused.
const LONGEST: usize = 256;
/// Characters of a password that a person chooses.
const SHORTEST: usize = 12;

/// Hashes and verifies.
#[derive(Debug)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)), waiting: Arc::default() }
    }
}

impl Passwords {
    /// The hash of a password, a PHC string with a salt of its own.
    ///
    /// # Errors
    /// Too many wait already.
    pub async fn hash(&self, password: String) -> Result<String> {
        self.run(move || {
            let hash = Argon2::default().hash_password(password.as_bytes()).map_err(Error::internal)?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Whether `password` is the one of `hash`. Without a hash (there is no such user) it takes as
    /// long and is wrong, so that names can't be told by the time.
    ///
    /// # Errors
    /// Too many wait already.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool> {
        self.run(move || {
            let Some(hash) = hash else {
                let _ = Argon2::default().hash_password(password.as_bytes());
                return Ok(false);
            };
            Ok(password.len() <= LONGEST
                && PasswordVerifier::<str>::verify_password(&Argon2::default(), password.as_bytes(), &hash)
                    .is_ok())
        })
        .await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let _place = Place::take(&self.waiting)?;
        let _turn = self.turns.acquire().await.map_err(Error::internal)?;
        tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
    }
}

/// A place in the queue, given back when dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(waiting: &Arc<AtomicUsize>) -> Result<Self> {
        let place = Self(Arc::clone(waiting));
        if waiting.fetch_add(1, Ordering::SeqCst) >= WAITING + AT_ONCE {
            let text = Message::key("error-too-many-sign-ins");
            return Err(Error::new(Kind::TooMany(DurationMs::from_secs(5)), text));
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whether a person may choose this password.
///
/// # Errors
/// Too short, too long, or the user's name; the text says which.
pub fn check_choice(password: &str, user: &str) -> Result<()> {
    if password.chars().count() < SHORTEST {
        return Err(Error::invalid(Message::key("error-password-short").with("least", SHORTEST as i64)));
    }
    if password.len() > LONGEST {
        return Err(Error::invalid(Message::key("error-password-long").with("most", LONGEST as i64)));
    }
    let plain = |text: &str| text.trim().to_lowercase();
    let mut characters = password.chars();
    let first = characters.next();
    if plain(password) == plain(user) || characters.all(|c| Some(c) == first) {
        return Err(Error::invalid(Message::key("error-password-weak")));
    }
    Ok(())
}

/// A password for somebody to sign in with once: 20 digits of 5 bits, in groups for reading aloud.
pub fn one_time() -> String {
    let digits = crate::random::secret(20);
    let groups: Vec<_> = (0..4).map(|group| &digits[group * 5..group * 5 + 5]).collect();
    groups.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_password_itself_is_taken() {
        let passwords = Passwords::default();
        let hash = passwords.hash("correct horse battery".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$"));
        assert!(passwords.verify("correct horse battery".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("correct horse batterY".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("x".repeat(LONGEST + 1), Some(hash)).await.unwrap());
        assert!(!passwords.verify("anything".into(), None).await.unwrap());
    }

    #[tokio::test]
    async fn a_flood_is_refused() {
        let passwords = Passwords::default();
        let places: Vec<_> =
            (0..WAITING + AT_ONCE).map(|_| Place::take(&passwords.waiting).unwrap()).collect();
        let refused = passwords.verify("x".into(), None).await.unwrap_err();
        assert!(matches!(refused.kind(), Kind::TooMany(_)));
        drop(places);
        assert!(passwords.verify("x".into(), None).await.is_ok());
    }

    #[test]
    fn a_choice_is_long_enough_and_no_name() {
        assert!(check_choice("elevenchars", "owner").is_err());
        assert!(check_choice("aaaaaaaaaaaaaaaa", "owner").is_err());
        assert!(check_choice("a-long-user-name", "A-long-user-name").is_err());
        assert!(check_choice(&"ab".repeat(LONGEST), "owner").is_err());
        assert!(check_choice("十二个字符的中文密码也可以用", "owner").is_ok());
        let once = one_time();
        assert_eq!((once.len(), once.matches('-').count()), (23, 3));
    }
}
