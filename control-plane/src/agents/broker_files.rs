//! What a broker of the operator's own needs from us, as files.

use super::ca::Authority;
use super::certificates::{CRL_FILE, revoked_serials};
use super::files;
use super::keys::Keys;
use crate::error::{Error, Result};
use crate::store::Stores;
use base64::Engine as _;
use hashinsight_protocol::units::Millis;
use std::fmt::Write as _;
use std::path::Path;

/// The authorities that the trust list names.
pub const AUTHORITIES: &str = "ca.pem";

/// Writes `ca.pem`, `server.pem`, `server.key` and `crl.pem` for a broker that agents reach as `host`.
/// The server's certificate is kept while it is good.
///
/// # Errors
/// The folders can't be read or written, or the database fails.
pub async fn write(data: &Path, stores: &Stores, host: &str, out: &Path, now: Millis) -> Result<()> {
    if rustls::pki_types::ServerName::try_from(host).is_err() {
        return Err(Error::invalid(format!("\"{host}\" is neither a host name nor an IP address")));
    }
    std::fs::create_dir_all(out).map_err(|e| files::failed(out, "can't be made", Some(e)))?;
    let authority = Authority::read(data)?;
    let keys = Keys::open(data, authority.certificate(), now)?;
    let mut all = String::new();
    for der in &keys.list().authorities {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<&str> =
            (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
        let _ = writeln!(all, "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----", lines.join("\n"));
    }
    files::replace(out, AUTHORITIES, all.as_bytes())?;
    authority.server(out, host, now)?;
    let revoked = revoked_serials(&stores.business, now).await?;
    files::replace(out, CRL_FILE, authority.crl(&revoked, now)?.as_bytes())
}
