//! Randomness from the operating system, and what is made of it.

use ring::rand::{SecureRandom, SystemRandom};

/// `N` random bytes.
///
/// # Panics
/// The operating system has no randomness: nothing of ours is safe to go on with then.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    SystemRandom::new().fill(&mut out).expect("the operating system gives random bytes");
    out
}

/// A secret for a person to type or store: `digits` base32 digits, 5 bits each.
pub fn secret(digits: usize) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut out = String::with_capacity(digits);
    while out.len() < digits {
        for byte in bytes::<32>().into_iter().take(digits - out.len()) {
            out.push(char::from(ALPHABET[usize::from(byte & 31)]));
        }
    }
    out
}

/// SHA-256 in hex: how secrets of full strength are stored.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hashinsight_protocol::enrolment::hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}
