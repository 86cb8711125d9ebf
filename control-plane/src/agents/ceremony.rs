//! The ceremony by which keys are replaced: `hashinsight admin keys …`. Files alone; no database.
//!
//! ```text
//! server                        offline, beside root.key        server
//! keys propose --signing-key    keys sign                       keys install
//!   makes the next key, writes    shows the list and signs it     agents get the list
//!   the list that is wanted                                     keys activate
//!                                                                 the next key takes over
//! ```
//! Between `install` and `activate` old and new overlap: every connected agent has the list within
//! seconds; whoever is away longer gets it when it comes, by the renewal of its certificate if need be.
//! Afterwards `propose --retire` leaves the old ones out, with the same two steps. A running server takes
//! up what was installed or activated by itself.

use super::ca::{self, Authority};
use super::keys::{self, ROOT, ROOT_PUBLIC, SIGNING, TRUST};
use super::{ca::sha256, files};
use crate::error::{Error, Kind, Result};
use hashinsight_protocol::enrolment::{from_hex_bytes, hex};
use hashinsight_protocol::envelope::Body as _;
use hashinsight_protocol::signing::SigningKey;
use hashinsight_protocol::trust::{SignedTrustV1, TrustListV1, newer};
use hashinsight_protocol::units::Millis;
use std::fmt::Write as _;
use std::path::Path;

const SIGNING_NEXT: &str = "signing.next.key";

/// What a proposal changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    pub signing_key: bool,
    pub authority: bool,
    /// Leave out what is not in use.
    pub retire: bool,
}

/// Makes a root in a folder of its own: `root.key`, to be kept offline, and `root.pub` for the server.
///
/// # Errors
/// There is one, or the folder can't be written.
pub fn make_root(folder: &Path) -> Result<String> {
    if files::read(folder, ROOT_PUBLIC)?.is_some() || files::read(folder, ROOT)?.is_some() {
        return Err(files::failed(&folder.join(ROOT), "is there already; a root is made once", None));
    }
    std::fs::create_dir_all(folder).map_err(|e| files::failed(folder, "can't be made", Some(e)))?;
    Ok(hex(&keys::root(folder)?.0))
}

/// Moves the root's key from the server's folder to another one, which is then taken away.
///
/// # Errors
/// It is not there, or the other folder can't be written.
pub fn take_root(data: &Path, to: &Path) -> Result<()> {
    let key = files::read(data, ROOT)?.ok_or_else(|| {
        Error::new(Kind::NotFound, format!("there is no {} to take away", data.join(ROOT).display()))
    })?;
    std::fs::create_dir_all(to).map_err(|e| files::failed(to, "can't be made", Some(e)))?;
    files::create(to, ROOT, &key)?;
    files::create(to, ROOT_PUBLIC, hex(&keys::root(data)?.0).as_bytes())?;
    if files::read(to, ROOT)?.as_deref() != Some(&key[..]) {
        return Err(files::failed(&to.join(ROOT), "is another root's; choose an empty folder", None));
    }
    std::fs::remove_file(data.join(ROOT))
        .map_err(|e| files::failed(&data.join(ROOT), "can't be removed", Some(e)))
}

/// The list that is wanted, unsigned, as text. Makes the next keys where they are missing.
///
/// # Errors
/// The files can't be read or written, or there is nothing to change.
pub fn propose(data: &Path, wanted: Wanted, now: Millis) -> Result<(TrustListV1, String)> {
    let root = keys::root(data)?;
    let held = match files::read(data, TRUST)? {
        Some(_) => Some(keys::read_trust(data, &root)?.1),
        None => None,
    };
    keys::make_key(data, SIGNING)?;
    let authority = Authority::open(data, now)?;
    let mut signing_keys = vec![keys::read_key(data, SIGNING)?.verifying_key()];
    let mut authorities = vec![authority.certificate().to_vec()];
    if wanted.signing_key {
        keys::make_key(data, SIGNING_NEXT)?;
    }
    if wanted.authority {
        Authority::make_next(data, now)?;
    }
    if files::read(data, SIGNING_NEXT)?.is_some() {
        signing_keys.push(keys::read_key(data, SIGNING_NEXT)?.verifying_key());
    }
    if let Some(next) = Authority::next(data)? {
        authorities.push(next.certificate().to_vec());
    }
    if let Some(held) = held.as_ref().filter(|_| !wanted.retire) {
        let more: Vec<_> = held.signing_keys.iter().filter(|k| !signing_keys.contains(k)).copied().collect();
        signing_keys.extend(more);
        let more: Vec<_> = held.authorities.iter().filter(|a| !authorities.contains(a)).cloned().collect();
        authorities.extend(more);
    }
    let same = held.as_ref().is_some_and(|held| {
        held.signing_keys.len() == signing_keys.len()
            && held.authorities.len() == authorities.len()
            && signing_keys.iter().all(|key| held.signing_keys.contains(key))
            && authorities.iter().all(|der| held.authorities.contains(der))
    });
    if same {
        let text = "nothing would change; ask for --signing-key, --authority or --retire";
        return Err(Error::new(Kind::Conflict, text));
    }
    let version = held.map_or(0, |held| held.version) + 1;
    let list = TrustListV1 { version, issued: now, signing_keys, authorities };
    let text = hex(&list.encode().map_err(Error::internal)?);
    Ok((list, text))
}

/// Signs a proposal with the root of a folder.
///
/// # Errors
/// It is no proposal, or there is no root.
pub fn sign(root: &Path, proposal: &str) -> Result<(TrustListV1, String)> {
    let list = from_hex_bytes(proposal.trim()).and_then(|bytes| TrustListV1::decode(&bytes).ok());
    let list =
        list.ok_or_else(|| Error::invalid("this is no proposal of \"hashinsight admin keys propose\""))?;
    let key: SigningKey = keys::read_key(root, ROOT)?;
    let signed = SignedTrustV1::sign(&key, &list).map_err(Error::internal)?;
    Ok((list, signed.to_text().map_err(Error::internal)?))
}

/// Puts a signed list in place of the one of a server's folder.
///
/// # Errors
/// It is not the root's, not newer, or leaves out what the server signs with.
pub fn install(data: &Path, text: &str) -> Result<TrustListV1> {
    let root = keys::root(data)?;
    let signed = SignedTrustV1::from_text(text).map_err(|e| Error::invalid(e.to_string()))?;
    let held = match files::read(data, TRUST)? {
        Some(_) => keys::read_trust(data, &root)?.1,
        None => {
            TrustListV1 { version: 0, issued: Millis(0), signing_keys: Vec::new(), authorities: Vec::new() }
        }
    };
    let list = newer(&root, &held, &signed).map_err(|e| Error::invalid(e.to_string()))?;
    let list = list.ok_or_else(|| Error::new(Kind::Conflict, "this list is installed already"))?;
    let authority = Authority::read(data)?;
    let in_use = list.signing_keys.contains(&keys::read_key(data, SIGNING)?.verifying_key())
        && list.authorities.iter().any(|der| der == authority.certificate().as_ref());
    if !in_use {
        return Err(Error::invalid(
            "this list leaves out a key that the server still uses; activate the next first",
        ));
    }
    files::replace(data, TRUST, signed.to_text().map_err(Error::internal)?.as_bytes())?;
    Ok(list)
}

/// Lets the next keys take over, where the installed list names them. Says which did.
///
/// # Errors
/// There is none, the list does not name it, or the files can't be written.
pub fn activate(data: &Path) -> Result<Vec<&'static str>> {
    let (_, list) = keys::read_trust(data, &keys::root(data)?)?;
    let not_yet = |what: &str| {
        let text =
            format!("the installed list does not name the next {what}; propose, sign and install first");
        Error::new(Kind::Conflict, text)
    };
    let mut done = Vec::new();
    if files::read(data, SIGNING_NEXT)?.is_some() {
        if !list.signing_keys.contains(&keys::read_key(data, SIGNING_NEXT)?.verifying_key()) {
            return Err(not_yet("signing key"));
        }
        files::rename(data, SIGNING_NEXT, SIGNING)?;
        done.push("signing key");
    }
    if let Some(next) = Authority::next(data)? {
        if !list.authorities.iter().any(|der| der == next.certificate().as_ref()) {
            return Err(not_yet("authority"));
        }
        ca::activate(data)?;
        done.push("authority");
    }
    if done.is_empty() {
        return Err(Error::new(
            Kind::NotFound,
            "there is no next key; begin with \"hashinsight admin keys propose\"",
        ));
    }
    Ok(done)
}

/// A list for people.
pub fn shown(list: &TrustListV1) -> String {
    let mut out = format!("trust list {}\n", list.version);
    for key in &list.signing_keys {
        let _ = writeln!(out, "  signing key  {}", hex(&key.0));
    }
    for der in &list.authorities {
        let _ = writeln!(out, "  authority    {} (SHA-256 of its certificate)", hex(&sha256(der)));
    }
    out
}

/// What a server's folder holds, for people.
///
/// # Errors
/// The files can't be read.
pub fn status(data: &Path) -> Result<String> {
    let root = keys::root(data)?;
    let (_, list) = keys::read_trust(data, &root)?;
    let mut out = format!("root {}\n{}", hex(&root.0), shown(&list));
    let signing = keys::read_key(data, SIGNING)?.verifying_key();
    let _ = writeln!(out, "signs with {}", hex(&signing.0));
    if files::read(data, ROOT)?.is_some() {
        out.push_str("root.key lies beside the server: take it away with \"hashinsight admin keys take-root --out DIR\"\n");
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::keys::Keys;

    const NOW: Millis = Millis(1_790_000_000_000);

    fn open(data: &Path) -> Result<Keys> {
        let authority = Authority::open(data, NOW)?;
        Keys::open(data, authority.certificate(), NOW)
    }

    #[test]
    fn keys_are_replaced_with_overlap_under_a_root_that_is_away() {
        let (data, usb) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (data, usb) = (data.path(), usb.path());
        let first = open(data).unwrap();
        take_root(data, usb).unwrap();
        assert!(files::read(data, ROOT).unwrap().is_none());
        assert!(propose(data, Wanted::default(), NOW).is_err(), "nothing changes");
        let wanted = Wanted { signing_key: true, authority: true, retire: false };
        let (list, proposal) = propose(data, wanted, NOW).unwrap();
        assert_eq!((list.version, list.signing_keys.len(), list.authorities.len()), (2, 2, 2));
        assert!(activate(data).is_err(), "not installed yet");
        assert!(install(data, &proposal).is_err(), "not signed");
        let (_, signed) = sign(usb, &proposal).unwrap();
        install(data, &signed).unwrap();
        assert!(install(data, &signed).is_err(), "twice");
        let overlap = open(data).unwrap();
        assert_eq!(overlap.signing().verifying_key(), first.signing().verifying_key());
        assert_eq!(activate(data).unwrap(), ["signing key", "authority"]);
        let second = open(data).unwrap();
        assert_eq!(second.signing().verifying_key(), list.signing_keys[1]);
        assert_eq!(Authority::open(data, NOW).unwrap().certificate().as_ref(), list.authorities[1]);

        let (list, proposal) = propose(data, Wanted { retire: true, ..Wanted::default() }, NOW).unwrap();
        assert_eq!((list.version, list.signing_keys.len(), list.authorities.len()), (3, 1, 1));
        install(data, &sign(usb, &proposal).unwrap().1).unwrap();
        assert!(!open(data).unwrap().list().signing_keys.contains(&first.signing().verifying_key()));
        assert!(install(data, &signed).is_err(), "an older list");
    }

    #[test]
    fn a_root_that_was_never_here_will_do() {
        let (data, usb) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (data, usb) = (data.path(), usb.path());
        make_root(usb).unwrap();
        assert!(make_root(usb).is_err(), "once");
        std::fs::copy(usb.join(ROOT_PUBLIC), data.join(ROOT_PUBLIC)).unwrap();
        assert!(open(data).is_err(), "no list yet");
        let (_, proposal) = propose(data, Wanted::default(), NOW).unwrap();
        install(data, &sign(usb, &proposal).unwrap().1).unwrap();
        open(data).unwrap();
        assert!(!data.join(ROOT).exists());
        let other = tempfile::tempdir().unwrap();
        make_root(other.path()).unwrap();
        let (_, proposal) = propose(data, Wanted { signing_key: true, ..Wanted::default() }, NOW).unwrap();
        assert!(install(data, &sign(other.path(), &proposal).unwrap().1).is_err(), "another's root");
    }
}
