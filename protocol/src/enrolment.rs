//! Enrolment over HTTP: a one-time token against a certificate, before there is a broker to talk to.
//!
//! The token names the certificate authority by its fingerprint, so the agent verifies the server it
//! talks to without any public certificate: `hi1.<secret, 52 base32 digits>.<SHA-256 of the authority's
//! certificate, 64 hex digits>`.
//!
//! Renewal comes to the same port: the present certificate, expired or not, a request for the next one,
//! and the proof that whoever asks holds the present one's key.

use crate::ids::{AgentId, SiteId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Path of the request on the enrolment port.
pub const ENROL_PATH: &str = "/enrol";
/// Path of the renewal of a certificate, on the same port.
pub const RENEW_PATH: &str = "/renew";

/// `POST` [`ENROL_PATH`], JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// The token's secret part.
    pub secret: String,
    /// Certificate signing request, PEM; its key stays on the gateway. Its subject is ignored.
    pub csr_pem: String,
    /// Public key that batches will be signed with, 64 hex digits.
    pub batch_key: String,
    /// Name of the gateway, for people.
    pub hostname: String,
    pub version: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EnrolResponse {
    pub agent: AgentId,
    pub site: SiteId,
    pub site_name: String,
    /// The agent's certificate chain, PEM.
    pub certificate_pem: String,
    /// Host and port of the broker.
    pub broker: String,
    /// Name to expect in the broker's certificate.
    pub broker_name: String,
    /// The offline root, 64 hex digits; pinned.
    pub root_key: String,
    /// Keys and authorities to trust, signed by the root: [`crate::trust::SignedTrustV1::to_text`].
    pub trust: String,
}

/// `POST` [`RENEW_PATH`], JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// The present certificate, PEM; it may have expired.
    pub certificate_pem: String,
    /// Certificate signing request of a new key, PEM.
    pub csr_pem: String,
    /// ECDSA P-256 with SHA-256, ASN.1 form, hex, by the present certificate's key over
    /// [`renewal_message`].
    pub proof: String,
    pub version: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RenewResponse {
    /// The agent's new certificate chain, PEM.
    pub certificate_pem: String,
    /// As in [`EnrolResponse`]; so are the others.
    pub trust: String,
    pub broker: String,
    pub broker_name: String,
}

/// What the proof of a renewal signs. A request that is repeated by a stranger gets a certificate of a
/// key that the stranger does not have.
pub fn renewal_message(certificate_pem: &str, csr_pem: &str) -> Vec<u8> {
    let mut message = b"hashinsight renewal 1\0".to_vec();
    for part in [certificate_pem, csr_pem] {
        message.extend_from_slice(&(part.len() as u64).to_be_bytes());
        message.extend_from_slice(part.as_bytes());
    }
    message
}

/// An answer that is not a certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EnrolRefusal {
    pub error: String,
}

/// What a technician types: secret and fingerprint.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolmentToken {
    secret: String,
    ca_fingerprint: [u8; 32],
}

#[derive(Debug, Error, PartialEq, Eq)]
#[error("this is not an enrolment token; copy it whole from the console (it starts with \"hi1.\")")]
pub struct NotAToken;

const SECRET_DIGITS: usize = 52;
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

impl EnrolmentToken {
    /// A token from 32 random bytes.
    pub fn new(random: [u8; 32], ca_fingerprint: [u8; 32]) -> Self {
        let mut secret = String::with_capacity(SECRET_DIGITS);
        let (mut bits, mut held) = (0u32, 0u32);
        for byte in random {
            bits = bits << 8 | u32::from(byte);
            held += 8;
            while held >= 5 {
                held -= 5;
                secret.push(char::from(BASE32[(bits >> held & 31) as usize]));
            }
        }
        secret.push(char::from(BASE32[(bits << (5 - held) & 31) as usize]));
        Self { secret, ca_fingerprint }
    }

    pub fn secret(&self) -> &str {
        &self.secret
    }

    pub fn ca_fingerprint(&self) -> &[u8; 32] {
        &self.ca_fingerprint
    }

    /// The whole text, for the one time it is shown.
    pub fn reveal(&self) -> String {
        format!("hi1.{}.{}", self.secret, hex(&self.ca_fingerprint))
    }
}

impl fmt::Debug for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnrolmentToken(…)")
    }
}

impl FromStr for EnrolmentToken {
    type Err = NotAToken;
    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let (secret, fingerprint) =
            text.trim().strip_prefix("hi1.").and_then(|t| t.split_once('.')).ok_or(NotAToken)?;
        if secret.len() != SECRET_DIGITS || !secret.bytes().all(|b| BASE32.contains(&b)) {
            return Err(NotAToken);
        }
        let ca_fingerprint = from_hex(fingerprint).ok_or(NotAToken)?;
        Ok(Self { secret: secret.to_owned(), ca_fingerprint })
    }
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Any number of bytes in hex.
pub fn from_hex_bytes(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16);
    let pair = |pair: &[u8]| match pair {
        [a, b] => u8::try_from(digit(*a)? * 16 + digit(*b)?).ok(),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

/// Exactly `N` bytes in hex.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != N * 2 {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.chunks(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_token_reads_back(random: [u8; 32], fingerprint: [u8; 32]) {
            let token = EnrolmentToken::new(random, fingerprint);
            prop_assert_eq!(token.reveal().parse(), Ok(token));
        }

        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = text.parse::<EnrolmentToken>();
            let _ = from_hex::<32>(&text);
        }
    }

    #[test]
    fn a_token_is_not_printed_by_accident() {
        let token = EnrolmentToken::new([1; 32], [2; 32]);
        assert!(!format!("{token:?}").contains(token.secret()));
    }
}
