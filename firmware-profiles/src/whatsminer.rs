//! Whatsminer's API 2 for writes: a token, and commands encrypted under it.
//!
//! `get_token` gives {time, salt, newsalt}; key = md5crypt(password, salt), sign = md5crypt(key +
//! the last four characters of time, newsalt), and a command with the sign in it travels as
//! base64(AES-256-ECB(sha256(key))). A device hands out 32 tokens an address, each good for 30
//! minutes, so a token is kept and used again; code 135 means that it has run out, 136 that too
//! many are out.

use crate::device::{DeviceError, Secret};
use crate::drivers::{Context, Status};
use crate::md5crypt::md5crypt;
use crate::tcp;
use aes::Aes256;
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hashinsight_protocol::device::FactV1;
use hashinsight_protocol::units::{DurationMs, Millis};
use serde_json::{Value, json};

/// A token lives 30 minutes; it is used for a little less.
const TOKEN_LIFE: DurationMs = DurationMs::from_minutes(25);
/// Codes of a reply to a command: the token is not known or has run out, the command could not be
/// read under the token's key, all tokens are given out, writes are not allowed.
const TOKEN_ERROR: i64 = 135;
const UNREADABLE: i64 = 23;
const TOO_MANY_TOKENS: i64 = 136;
const DENIED: i64 = 45;

/// What a device gave us to sign commands with.
#[derive(Clone)]
pub struct Token {
    sign: Secret,
    key: [u8; 32],
    until: Millis,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("until", &self.until).finish_non_exhaustive()
    }
}

impl Token {
    /// From the three texts of a `get_token` reply.
    pub fn derive(password: &str, time: &str, salt: &str, newsalt: &str, now: Millis) -> Self {
        let key = md5crypt(password.as_bytes(), salt.as_bytes());
        let tail = time.get(time.len().saturating_sub(4)..).unwrap_or(time);
        let sign = md5crypt(format!("{key}{tail}").as_bytes(), newsalt.as_bytes());
        let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
        let mut aes_key = [0; 32];
        aes_key.copy_from_slice(digest.as_ref());
        Self { sign: Secret::new(sign), key: aes_key, until: now.plus(TOKEN_LIFE) }
    }

    fn encrypt(&self, plain: &str) -> String {
        encrypt(self.key, plain)
    }

    fn decrypt(&self, text: &str) -> Option<String> {
        decrypt(self.key, text)
    }
}

/// AES-256-ECB with zeros up to a whole block, in base64.
pub fn encrypt(key: [u8; 32], plain: &str) -> String {
    let cipher = Aes256::new(&Array::from(key));
    let mut bytes = plain.as_bytes().to_vec();
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    let mut out = Vec::with_capacity(bytes.len());
    for chunk in bytes.chunks_exact(16) {
        let mut block = [0; 16];
        block.copy_from_slice(chunk);
        let mut block = Array::from(block);
        cipher.encrypt_block(&mut block);
        out.extend_from_slice(&block);
    }
    STANDARD.encode(out)
}

fn decrypt(key: [u8; 32], text: &str) -> Option<String> {
    let cipher = Aes256::new(&Array::from(key));
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let bytes = STANDARD.decode(compact).ok()?;
    let mut out = Vec::with_capacity(bytes.len());
    for chunk in bytes.chunks_exact(16) {
        let mut block = [0; 16];
        block.copy_from_slice(chunk);
        let mut block = Array::from(block);
        cipher.decrypt_block(&mut block);
        out.extend_from_slice(&block);
    }
    let end = out.iter().position(|byte| *byte == 0).unwrap_or(out.len());
    out.truncate(end);
    String::from_utf8(out).ok()
}

/// Sends one privileged command. A token that has run out is replaced once.
pub async fn command(
    context: &Context<'_>,
    name: &str,
    more: &[(&str, Value)],
) -> Result<Status, DeviceError> {
    let address = context.api().address;
    let mut kept = context.profiles.token(address).filter(|token| token.until > context.now);
    loop {
        let renewed = kept.is_none();
        let token = match kept.take() {
            Some(token) => token,
            None => {
                let token = get_token(context).await?;
                context.profiles.keep_token(address, Some(token.clone()));
                token
            }
        };
        let mut body = json!({"token": token.sign.reveal(), "cmd": name});
        for (key, value) in more {
            body[*key] = value.clone();
        }
        let request = json!({"enc": 1, "data": token.encrypt(&body.to_string())}).to_string();
        let reply = tcp::ask(&context.write_call(context.device.api_port), request.as_bytes()).await?;
        let value = crate::recognise::reply_value(&reply).unwrap_or(Value::Null);
        let status = match value.get("enc").and_then(Value::as_str) {
            Some(enc) => match token.decrypt(enc) {
                Some(plain) => Status::of(plain.as_bytes()),
                None => Status::unclear("a reply that our key does not open"),
            },
            None => Status::of(&reply),
        };
        let name = || context.api().name();
        return match status.code {
            Some(TOKEN_ERROR | UNREADABLE) => {
                context.profiles.keep_token(address, None);
                if !renewed {
                    // It ran out, or the device has restarted and knows none of its tokens.
                    continue;
                }
                // A new token that is not taken was signed with the wrong password.
                Err(context.refused_login(name()))
            }
            Some(TOO_MANY_TOKENS) => Err(too_many(context)),
            Some(DENIED) => Err(not_allowed(name(), &status)),
            _ => Ok(status),
        };
    }
}

/// After code 136 the device is not asked for this long.
const TOKEN_PAUSE: DurationMs = DurationMs::from_minutes(1);

fn too_many(context: &Context<'_>) -> DeviceError {
    let address = context.api();
    context.profiles.pause_tokens(address.address, context.now.plus(TOKEN_PAUSE));
    let words = "it has given out all its write tokens to this computer (code 136); they run out within 30 minutes, \
                 and another program here may be taking them";
    DeviceError::Busy { address: address.name(), words: words.to_owned() }
}

fn not_allowed(address: String, status: &Status) -> DeviceError {
    let hint = "writes must be switched on with WhatsMinerTool, after the default password was changed";
    DeviceError::WriteNotAllowed { address, words: format!("{} ({hint})", status.words()) }
}

async fn get_token(context: &Context<'_>) -> Result<Token, DeviceError> {
    let call = context.api();
    if context.profiles.tokens_paused(call.address, context.now) {
        return Err(too_many(context));
    }
    let reply = tcp::ask(&call, br#"{"cmd":"get_token"}"#).await?;
    let status = Status::of(&reply);
    match status.code {
        Some(TOO_MANY_TOKENS) => return Err(too_many(context)),
        _ if status.fact() == FactV1::No => return Err(not_allowed(call.name(), &status)),
        _ => {}
    }
    let garbage = || DeviceError::Garbage { address: call.name(), found: "half a token".to_owned() };
    // A salt that was cut would make a token that is never taken.
    let (value, _) =
        crate::json::parse(&reply).filter(|(_, repairs)| repairs.is_empty()).ok_or_else(garbage)?;
    let text = |key: &str| {
        value.get("Msg").and_then(|m| m.get(key)).and_then(|v| match v {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        })
    };
    match (text("time"), text("salt"), text("newsalt")) {
        (Some(time), Some(salt), Some(newsalt)) => {
            Ok(Token::derive(context.password("admin"), &time, &salt, &newsalt, context.now))
        }
        _ => Err(garbage()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encrypted_opens_again() {
        let token = Token::derive("admin", "1741505626", "BQ5hoXV9", "jbzkfQls", Millis(0));
        let sealed = token.encrypt("{\"cmd\":\"power_off\"}");
        assert_eq!(token.decrypt(&sealed).as_deref(), Some("{\"cmd\":\"power_off\"}"));
        assert_eq!(token.decrypt("?"), None);
    }

    #[test]
    fn only_the_last_four_characters_of_the_time_count() {
        let long = Token::derive("admin", "1741505626", "BQ5hoXV9", "jbzkfQls", Millis(0));
        let short = Token::derive("admin", "5626", "BQ5hoXV9", "jbzkfQls", Millis(0));
        assert_eq!(long.sign.reveal(), short.sign.reveal());
    }

    #[test]
    fn a_token_prints_no_secret() {
        let token = Token::derive("admin", "5626", "BQ5hoXV9", "jbzkfQls", Millis(0));
        assert!(!format!("{token:?}").contains(token.sign.reveal()));
    }
}
