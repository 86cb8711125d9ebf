//! Keeps the agent's certificate good, without anybody's visit.
//!
//! - **When**: from two thirds of its life on, spread over a tenth of it so that agents that were enrolled
//!   together don't come together; and at once when TLS to the broker fails, since then the certificate
//!   may have expired, or the broker's authority may be one that this agent has not heard of.
//! - **How**: by HTTPS to the enrolment port, with a new key. The present certificate may have expired: its
//!   key signs the request. The answer carries the trust list that the pinned root has signed, and counts
//!   only if the server's own certificate is by an authority of that list. So an agent that was off while
//!   every key but the root was replaced comes back by itself.
//! - **Stored** as one file, key and certificate together. The old certificate stays good, so nothing is lost
//!   by a crash or a lost answer.
//! - **Failures** are repeated after [`FIRST_PAUSE`], doubling up to [`LONGEST_PAUSE`]; while TLS goes on
//!   failing, every [`DOUBT_PAUSE`].

use crate::clock::Clock;
use crate::https;
use crate::identity_files::{self, Identity, IdentityError};
use crate::trust::{NotTaken, Trust};
use hashinsight_protocol::enrolment::{RENEW_PATH, RenewRequest, RenewResponse, hex, renewal_message};
use hashinsight_protocol::trust::SignedTrustV1;
use hashinsight_protocol::units::{DurationMs, Millis};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);
/// The network may be back long before: a failing connection ends a longer pause.
const DOUBT_PAUSE: Duration = Duration::from_secs(300);
/// How often the time is looked at.
const LOOK: Duration = Duration::from_secs(600);

/// The identity in use; clones share it.
#[derive(Clone)]
pub struct Holder(Arc<Inner>);

struct Inner {
    data_dir: PathBuf,
    /// The configuration's broker, in place of the one that enrolment named.
    broker: Option<String>,
    identity: RwLock<Arc<Identity>>,
    trust: Trust,
    doubted: Arc<Notify>,
}

/// Why a certificate was not renewed.
#[derive(Debug, Error)]
pub enum RenewalError {
    #[error(transparent)]
    Https(#[from] https::HttpsError),
    #[error("the control plane's answer is faulty: {0}")]
    Answer(String),
    #[error(transparent)]
    Trust(#[from] NotTaken),
    #[error(transparent)]
    Files(#[from] IdentityError),
    #[error("the agent's own key can't sign: {0}")]
    Key(String),
    #[error("this gateway was enrolled without the control plane's address; enrol it again")]
    NoAddress,
}

impl Holder {
    pub fn new(data_dir: &Path, identity: Identity, broker: Option<String>) -> Self {
        let trust = identity.trust(data_dir);
        let identity = RwLock::new(Arc::new(at_broker(identity, broker.as_deref())));
        let (data_dir, doubted) = (data_dir.to_owned(), Arc::default());
        Self(Arc::new(Inner { data_dir, broker, identity, trust, doubted }))
    }

    /// The identity as it is now.
    pub fn identity(&self) -> Arc<Identity> {
        self.0.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn trust(&self) -> &Trust {
        &self.0.trust
    }

    /// To be notified when TLS to the broker fails: the certificate or the trust list may be too old.
    pub fn doubted(&self) -> Arc<Notify> {
        self.0.doubted.clone()
    }

    /// Renews when it is time or in doubt, until stopped.
    pub async fn run(self, clock: Clock, stop: CancellationToken) {
        let (mut pause, mut told) = (FIRST_PAUSE, String::new());
        loop {
            let identity = self.identity();
            if !due(clock.for_tls(), identity.valid, identity.agent().as_bytes()[0]) {
                let waited = tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.0.doubted.notified() => true,
                    () = tokio::time::sleep(LOOK) => false,
                };
                if !waited {
                    continue;
                }
            }
            match self.renew(&clock).await {
                Ok(()) => (pause, told) = (FIRST_PAUSE, String::new()),
                Err(error) => {
                    let text = error.to_string();
                    // The same failure a thousand times is one line.
                    if text != told {
                        tracing::warn!("the agent's certificate could not be renewed: {text}");
                    }
                    told = text;
                }
            }
            // After a success as well: a doubt that renewal does not lift must not renew without end.
            let wait = async {
                tokio::time::sleep(pause.min(DOUBT_PAUSE)).await;
                tokio::select! {
                    () = self.0.doubted.notified() => self.0.doubted.notify_one(),
                    () = tokio::time::sleep(pause.saturating_sub(DOUBT_PAUSE)) => {}
                }
            };
            if stop.run_until_cancelled(wait).await.is_none() {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Renews the certificate and takes the trust list that comes with it.
    ///
    /// # Errors
    /// The control plane can't be reached, refuses, or can't be believed; nothing is changed then.
    pub async fn renew(&self, clock: &Clock) -> Result<(), RenewalError> {
        let identity = self.identity();
        let (host, port) = identity.control().ok_or(RenewalError::NoAddress)?;
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|e| RenewalError::Key(e.to_string()))?;
        let csr_pem = rcgen::CertificateParams::default()
            .serialize_request(&key)
            .and_then(|csr| csr.pem())
            .map_err(|e| RenewalError::Key(e.to_string()))?;
        let request = RenewRequest {
            proof: hex(&sign(&identity, &csr_pem)?),
            certificate_pem: identity.certificate_pem.clone(),
            csr_pem,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let (answer, server): (RenewResponse, _) =
            https::post_to_anybody(&host, port, RENEW_PATH, &request, clock).await?;
        let signed =
            SignedTrustV1::from_text(&answer.trust).map_err(|e| RenewalError::Answer(e.to_string()))?;
        let list = self.0.trust.with(&signed).map_err(NotTaken::from)?;
        server.is_by(&list.authorities, clock)?;
        // From here on the answer is the control plane's.
        identity_files::check_address(&answer.broker, &answer.broker_name)
            .map_err(|what| RenewalError::Answer(what.to_owned()))?;
        self.0.trust.learn(&signed)?;
        identity_files::write_renewed(&self.0.data_dir, &key.serialize_pem(), &answer)?;
        let next = at_broker(Identity::load(&self.0.data_dir)?, self.0.broker.as_deref());
        tracing::info!(until = next.valid.1.0, trust = list.version, "the agent's certificate is renewed");
        *self.0.identity.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Ok(())
    }
}

fn at_broker(mut identity: Identity, broker: Option<&str>) -> Identity {
    if let Some(broker) = broker {
        broker.clone_into(&mut identity.settings.broker);
    }
    identity
}

/// The proof that this agent holds the present certificate's key.
fn sign(identity: &Identity, csr_pem: &str) -> Result<Vec<u8>, RenewalError> {
    let failed = |e: &dyn std::fmt::Display| RenewalError::Key(e.to_string());
    let random = SystemRandom::new();
    let key = identity.key();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.secret_der(), &random)
        .map_err(|e| failed(&e))?;
    let message = renewal_message(&identity.certificate_pem, csr_pem);
    Ok(key.sign(&random, &message).map_err(|e| failed(&e))?.as_ref().to_vec())
}

/// Whether a certificate that is good from `valid.0` to `valid.1` should be renewed now; `draw` spreads
/// agents over a tenth of its life.
fn due(now: Millis, valid: (Millis, Millis), draw: u8) -> bool {
    let life = valid.1.since(valid.0).0;
    let wait = life / 3 * 2 - life / 10 * u64::from(draw) / 255;
    now >= valid.0.plus(DurationMs(wait))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    #[test]
    fn renewal_is_due_well_before_the_end_and_not_for_all_at_once() {
        let valid = (Millis(0), Millis(365 * DAY));
        let first = |draw| (0..365).find(|day| due(Millis(day * DAY), valid, draw)).expect("some day");
        assert_eq!((first(0), first(255)), (244, 207));
        assert!(due(Millis(800 * DAY), valid, 9), "long after its end");
        assert!(!due(Millis(-DAY), valid, 255));
    }
}
