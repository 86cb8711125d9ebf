//! HTTP digest authentication, the server's side (RFC 2617, MD5), as lighttpd on a miner does it.
//!
//! A nonce is a hash of the minute and the device's secret, good for five minutes: nothing is kept.

use crate::rng::{Channel, Draws};
use md5::{Digest as _, Md5};
use std::fmt::Write as _;

pub const REALM: &str = "antMiner Configuration";
const USER: &str = "root";
const PASSWORD: &str = "root";
/// Minutes that a nonce is good for.
const LIFETIME: i64 = 5;

/// MD5 in hex.
fn hex(text: &str) -> String {
    let mut out = String::with_capacity(32);
    for byte in Md5::digest(text.as_bytes()) {
        // Writing into a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

fn nonce(draws: Draws, minute: i64) -> String {
    hex(&format!("{:x}:{minute}", draws.bits(Channel::Secret, 0)))
}

/// The value of `WWW-Authenticate`.
pub fn challenge(draws: Draws, minute: i64) -> String {
    format!("Digest realm=\"{REALM}\", nonce=\"{}\", qop=\"auth\"", nonce(draws, minute))
}

/// Whether an `Authorization` header proves the password for this request.
pub fn verify(header: &str, method: &str, path: &str, draws: Draws, minute: i64) -> bool {
    let Some(rest) = header.strip_prefix("Digest ") else { return false };
    let field =
        |name: &str| fields(rest).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let (Some(user), Some(realm), Some(given), Some(uri), Some(response)) =
        (field("username"), field("realm"), field("nonce"), field("uri"), field("response"))
    else {
        return false;
    };
    let fresh = (0..LIFETIME).any(|age| nonce(draws, minute - age) == given);
    if !fresh || user != USER || realm != REALM || uri != path {
        return false;
    }
    let ha1 = hex(&format!("{USER}:{REALM}:{PASSWORD}"));
    let ha2 = hex(&format!("{method}:{uri}"));
    let expect = match (field("qop"), field("nc"), field("cnonce")) {
        (Some(qop), Some(nc), Some(cnonce)) => hex(&format!("{ha1}:{given}:{nc}:{cnonce}:{qop}:{ha2}")),
        _ => hex(&format!("{ha1}:{given}:{ha2}")),
    };
    expect == response
}

/// `key=value` pairs, values bare or in quotes.
fn fields(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([',', ' ']);
        let (key, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_at(after.find([',', ' ']).unwrap_or(after.len())),
        };
        rest = after;
        Some((key, value))
    })
}

/// The header that a client with the factory password sends; for tests.
#[doc(hidden)]
pub fn authorize(challenge: &str, method: &str, path: &str) -> Option<String> {
    let given = fields(challenge.strip_prefix("Digest ")?).find(|(k, _)| *k == "nonce")?.1;
    let ha1 = hex(&format!("{USER}:{REALM}:{PASSWORD}"));
    let ha2 = hex(&format!("{method}:{path}"));
    let response = hex(&format!("{ha1}:{given}:00000001:abcd:auth:{ha2}"));
    Some(format!(
        "Digest username=\"{USER}\", realm=\"{REALM}\", nonce=\"{given}\", uri=\"{path}\", qop=auth, nc=00000001, cnonce=\"abcd\", response=\"{response}\""
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 2617, 3.5.
    #[test]
    fn the_formula_is_that_of_the_rfc() {
        let ha1 = hex("Mufasa:testrealm@host.com:Circle Of Life");
        let ha2 = hex("GET:/dir/index.html");
        let response = hex(&format!("{ha1}:dcd98b7102dd2f0e8b11d0f600bfb0c093:00000001:0a4f113b:auth:{ha2}"));
        assert_eq!(response, "6629fae49393a05397450978507c4ef1");
    }

    #[test]
    fn only_a_fresh_nonce_for_this_request_proves_anything() {
        let draws = Draws::new(1, 2);
        let header = authorize(&challenge(draws, 100), "GET", "/a").expect("a challenge");
        assert!(verify(&header, "GET", "/a", draws, 100));
        assert!(verify(&header, "GET", "/a", draws, 104));
        assert!(!verify(&header, "GET", "/a", draws, 105));
        assert!(!verify(&header, "POST", "/a", draws, 100));
        assert!(!verify(&header, "GET", "/b", draws, 100));
        assert!(!verify(&header, "GET", "/a", Draws::new(1, 3), 100));
        assert!(!verify("Basic cm9vdDpyb290", "GET", "/a", draws, 100));
        assert!(!verify("Digest username=\"", "GET", "/a", draws, 100));
    }
}
