//! The write protection of Whatsminer's API 2: md5crypt of the password, AES-256-ECB, base64.
//!
//! `key` is the hash part of md5crypt(password, salt); `sign` that of md5crypt(key + time, newsalt); the
//! AES key is SHA-256 of `key`. A command is JSON padded with NULs, encrypted block by block.

use aes::Aes256;
use aes::cipher::{Block, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};

/// The hash part of `$1$salt$hash`: what `openssl passwd -1` prints after the third dollar.
pub fn md5crypt(password: &str, salt: &str) -> String {
    let (password, salt) = (password.as_bytes(), salt.as_bytes());
    let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut outer = Md5::new().chain_update(password).chain_update(b"$1$").chain_update(salt);
    for chunk in password.chunks(16) {
        outer.update(&inner[..chunk.len()]);
    }
    let mut n = password.len();
    while n > 0 {
        // The reference implementation takes the first byte of a buffer that was cleared before.
        outer.update(if n & 1 == 1 { &[0][..] } else { &password[..1] });
        n >>= 1;
    }
    let mut hash = outer.finalize();
    for round in 0..1000 {
        let mut next = Md5::new();
        let odd = round % 2 == 1;
        next.update(if odd { password } else { &hash[..] });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if odd { &hash[..] } else { password });
        hash = next.finalize();
    }
    const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut out = String::with_capacity(22);
    let mut put = |mut bits: u32, digits: usize| {
        for _ in 0..digits {
            out.push(char::from(ALPHABET[(bits & 63) as usize]));
            bits >>= 6;
        }
    };
    for i in 0..5 {
        let last = if i == 4 { 5 } else { i + 12 };
        put(u32::from(hash[i]) << 16 | u32::from(hash[i + 6]) << 8 | u32::from(hash[last]), 4);
    }
    put(u32::from(hash[11]), 2);
    out
}

/// The text under an AES key itself, as API 3 seals pools.
pub fn decrypt_with(key: &[u8; 32], data: &str) -> Option<String> {
    open(&Aes256::new(&(*key).into()), data).ok()
}

fn cipher(key: &str) -> Aes256 {
    let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    Aes256::new(&bytes.into())
}

/// Encrypts JSON text as the protocol does.
pub fn encrypt(key: &str, text: &str) -> String {
    let cipher = cipher(key);
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(bytes.len().div_ceil(16) * 16, 0);
    for chunk in bytes.chunks_exact_mut(16) {
        let mut block = Block::<Aes256>::default();
        block.copy_from_slice(chunk);
        cipher.encrypt_block(&mut block);
        chunk.copy_from_slice(&block);
    }
    STANDARD.encode(bytes)
}

/// Why a command could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    Base64,
    /// Not text under this key.
    Key,
}

/// The text under `key`, its padding removed.
pub fn decrypt(key: &str, data: &str) -> Result<String, Unreadable> {
    open(&cipher(key), data)
}

fn open(cipher: &Aes256, data: &str) -> Result<String, Unreadable> {
    let compact: String = data.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let mut bytes = STANDARD.decode(compact).map_err(|_| Unreadable::Base64)?;
    if bytes.is_empty() || bytes.len() % 16 != 0 {
        return Err(Unreadable::Key);
    }
    for chunk in bytes.chunks_exact_mut(16) {
        let mut block = Block::<Aes256>::default();
        block.copy_from_slice(chunk);
        cipher.decrypt_block(&mut block);
        chunk.copy_from_slice(&block);
    }
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|_| Unreadable::Key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn md5crypt_is_that_of_openssl() {
        assert_eq!(md5crypt("admin", "BQ5hoXV9"), "RxmaDUO33TS7O26yeMHZ81");
    }

    #[test]
    fn what_is_encrypted_can_be_read_with_the_same_key_only() {
        let text = r#"{"cmd":"power_off","respbefore":"true","token":"x"}"#;
        let data = encrypt("key", text);
        assert_eq!(decrypt("key", &data).as_deref(), Ok(text));
        assert_ne!(decrypt("other", &data).as_deref(), Ok(text));
        assert_eq!(decrypt("key", "%%%"), Err(Unreadable::Base64));
        assert_eq!(decrypt("key", "YWJj"), Err(Unreadable::Key));
    }
}
