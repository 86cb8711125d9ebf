//! Renewal: the next certificate of an agent against the present one, on the enrolment port.
//!
//! - **Who**: the database knows every certificate by its fingerprint, so it does not matter whether it has
//!   expired, nor whether its authority is still in use. It must not be revoked, nor its agent.
//! - **Proof**: a signature of the certificate's key over the request. A stranger who repeats a request
//!   gets a certificate of a key that he does not hold.
//! - **Limits**: [`MOST`] certificates of an agent within [`WITHIN`]; refusals count as failed tries of
//!   their address, as with tokens.
//! - **Recovery**: the old certificate stays good, so an answer that is lost costs one of those.

use super::ca::Request as CertificateRequest;
use super::ca::sha256;
use super::enrolment::broker_address;
use crate::error::{Error, Kind, Result};
use crate::{App, args, audit, row};
use hashinsight_protocol::enrolment::{RenewRequest, RenewResponse, from_hex_bytes, hex, renewal_message};
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::limits::bounded_text;
use hashinsight_protocol::units::{DurationMs, Millis};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::net::IpAddr;

/// Certificates of one agent within [`WITHIN`].
pub const MOST: i64 = 12;
pub const WITHIN: DurationMs = DurationMs::from_minutes(24 * 60);

row! {
    struct HolderRow {
        agent: AgentId,
        certificate_revoked: Option<Millis>,
        agent_revoked: Option<Millis>,
    }
}

/// Renews an agent's certificate.
///
/// # Errors
/// The certificate is not known, revoked or not the asker's own; there were too many; the database fails.
pub async fn renew(app: &App, request: &RenewRequest, from: IpAddr) -> Result<RenewResponse> {
    let forbidden = |text: &str| Error::new(Kind::Forbidden, text.to_owned());
    let der = CertificateDer::from_pem_slice(request.certificate_pem.as_bytes())
        .map_err(|_| Error::invalid("the present certificate is not one in PEM form"))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der)
        .map_err(|_| Error::invalid("the present certificate is not one in PEM form"))?;
    let db = &app.stores.business;
    let holder: Option<HolderRow> = db
        .fetch_optional(
            "select c.agent_id, c.revoked_at, a.revoked_at from agent_certificates c
             join agents a on a.id = c.agent_id where c.fingerprint = $1",
            args![hex(&sha256(&der))],
        )
        .await?;
    let unknown = "this certificate is not known here; enrol this gateway again";
    let HolderRow { agent, certificate_revoked, agent_revoked } = holder.ok_or_else(|| forbidden(unknown))?;
    if certificate_revoked.is_some() || agent_revoked.is_some() {
        return Err(forbidden("this gateway's access was taken away; enrol it again if that was a mistake"));
    }
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &parsed.public_key().subject_public_key.data);
    let proof = from_hex_bytes(&request.proof).unwrap_or_default();
    let message = renewal_message(&request.certificate_pem, &request.csr_pem);
    key.verify(&message, &proof)
        .map_err(|_| forbidden("the request is not signed by the key of the certificate that it shows"))?;
    let next = CertificateRequest::from_pem(&request.csr_pem)?;

    let now = app.clock.now();
    let held = app.agents.held();
    let issued = held.authority.issue(&next, agent, now)?;
    let mut tx = db.begin().await?;
    let since = Millis(now.0.saturating_sub(WITHIN.0 as i64));
    let (lately,): (i64,) = tx
        .fetch_one(
            "select count(*) from agent_certificates where agent_id = $1 and issued_at > $2",
            args![agent, since],
        )
        .await?;
    if lately >= MOST {
        let text = "this gateway has renewed its certificate too often today; look at its clock and disk";
        return Err(Error::new(Kind::TooMany(WITHIN), text));
    }
    tx.execute(
        "insert into agent_certificates (fingerprint, agent_id, serial, not_after, issued_at)
         values ($1, $2, $3, $4, $5)",
        args![hex(&issued.fingerprint), agent, &issued.serial, issued.not_after, now],
    )
    .await?;
    let expired = parsed.validity().not_after.timestamp().saturating_mul(1000) < now.0;
    let state = if expired { "expired " } else { "" };
    let detail =
        format!("{state}certificate renewed from {from}, version {}", bounded_text(&request.version));
    audit::record(&mut tx, now, "renewal", "agent.renew", &agent.to_string(), &detail).await?;
    tx.commit().await?;
    app.agents.directory.learn_certificate(agent, issued.fingerprint);
    app.metrics.renewed.add(1);
    tracing::info!(%agent, expired, "A certificate was renewed.");
    let (broker, broker_name) = broker_address(app);
    Ok(RenewResponse {
        certificate_pem: format!("{}{}", issued.pem, held.authority.pem()),
        trust: held.keys.trust().to_text().map_err(Error::internal)?,
        broker,
        broker_name,
    })
}
