//! Keys that are replaced, certificates that end, gateways that are exchanged: over the real wire.

#![allow(clippy::unwrap_used)]

mod support;

use hashinsight_broker::Refusal;
use hashinsight_control_plane::agents::ceremony::{self, Wanted};
use hashinsight_control_plane::agents::{certificates, renewal, tokens};
use hashinsight_control_plane::args;
use hashinsight_control_plane::clock::Clock;
use hashinsight_protocol::document::DesiredDocumentV1;
use hashinsight_protocol::enrolment::{RenewRequest, RenewResponse, hex, renewal_message};
use hashinsight_protocol::envelope::{Body as _, Envelope};
use hashinsight_protocol::signing::SigningKey;
use hashinsight_protocol::topics::{Down, Stream, Topic};
use hashinsight_protocol::trust::SignedTrustV1;
use hashinsight_protocol::units::{DurationMs, Millis};
use rcgen::{CertificateParams, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use support::{Agent, Plane, SOON, client, enrol_body};

const YEAR: DurationMs = DurationMs::from_minutes(365 * 24 * 60);
const DAY: i64 = 86_400_000;

/// A request for the next certificate, proven by `key`.
fn request(certificate: &str, key: &KeyPair, next: &KeyPair) -> RenewRequest {
    let csr_pem = CertificateParams::default().serialize_request(next).unwrap().pem().unwrap();
    let random = SystemRandom::new();
    let signer =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key.serialize_der(), &random).unwrap();
    let proof = signer.sign(&random, &renewal_message(certificate, &csr_pem)).unwrap();
    let (certificate_pem, version) = (certificate.to_owned(), "test".to_owned());
    RenewRequest { certificate_pem, csr_pem, proof: hex(proof.as_ref()), version }
}

async fn ask(plane: &Plane, request: &RenewRequest) -> (u16, String) {
    plane.request("POST /renew", &serde_json::to_vec(request).unwrap()).await
}

/// Renews the agent's certificate and shows the new one from now on.
async fn renew(plane: &Plane, agent: &mut Agent) {
    let next = KeyPair::generate().unwrap();
    let (status, answer) = ask(plane, &request(&agent.chain, &agent.tls_key, &next)).await;
    assert_eq!(status, 200, "{answer}");
    let answer: RenewResponse = serde_json::from_str(&answer).unwrap();
    let root = plane.app.agents.held().keys.root();
    let list = SignedTrustV1::from_text(&answer.trust).unwrap().open(&root).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(list.authorities.iter().map(|der| der.clone().into()));
    let chain =
        CertificateDer::pem_slice_iter(answer.certificate_pem.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(next.serialize_der()));
    agent.tls = Arc::new(client(roots).with_client_auth_cert(chain, key).unwrap());
    (agent.chain, agent.tls_key, agent.signers) = (answer.certificate_pem, next, list.signing_keys);
}

/// All steps of the ceremony but the proposal's, with the root on a medium of its own.
fn install(data: &Path, usb: &Path, wanted: Wanted) {
    let (_, proposal) = ceremony::propose(data, wanted, Clock::system().now()).unwrap();
    let (_, signed) = ceremony::sign(usb, &proposal).unwrap();
    ceremony::install(data, &signed).unwrap();
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..200 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not reached: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_renewed_by_proof_and_nothing_else() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let now = Clock::system().now();
    // The server's own certificate of then is still good now; the agents' are not.
    let then = Clock::standing_at(Millis(now.0 - YEAR.0 as i64 - 15 * DAY));
    let plane = Plane::start_in(Arc::clone(&folder), None, then).await;
    let (mut agent, other, gone) = (plane.agent(3).await, plane.agent(4).await, plane.agent(5).await);
    drop(plane.stop().await);

    let plane = Plane::start_in(folder, None, Clock::system()).await;
    assert!(agent.connect(&plane, 1).await.is_none(), "it has expired");
    let counted = "door_refused_total{reason=\"handshake\"} 1\n";
    until("it is counted", || plane.app.metrics.text().contains(counted)).await;
    certificates::revoke(&plane.app.stores.business, gone.id, "test", now).await.unwrap();
    let (key, next) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let stranger = CertificateParams::default().self_signed(&key).unwrap().pem();
    let mut changed = request(&agent.chain, &agent.tls_key, &next);
    changed.csr_pem = request(&agent.chain, &agent.tls_key, &key).csr_pem;
    for (request, status) in [
        (request(&agent.chain, &other.tls_key, &next), 403),
        (request(&stranger, &key, &next), 403),
        (request(&gone.chain, &gone.tls_key, &next), 403),
        (changed, 403),
        (request("no certificate", &key, &next), 400),
    ] {
        let (got, answer) = ask(&plane, &request).await;
        assert_eq!(got, status, "{answer}");
    }
    renew(&plane, &mut agent).await;
    assert!(agent.connect(&plane, 2).await.is_some());
    let (detail,): (String,) = plane
        .app
        .stores
        .business
        .fetch_one("select detail from audit_log where what = 'agent.renew'", args![])
        .await
        .unwrap();
    assert!(detail.starts_with("expired certificate renewed from 127.0.0.1"), "{detail}");
    assert_eq!(plane.number("select count(*) from audit_log where what = 'agent.renew_refused'").await, 4);

    // A request that is repeated gives nobody anything, and there is an end to it.
    let again = request(&agent.chain, &agent.tls_key, &next);
    for _ in 1..renewal::MOST {
        assert_eq!(ask(&plane, &again).await.0, 200);
    }
    assert_eq!(ask(&plane, &again).await.0, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_before_its_end_without_a_gap() {
    let plane = Plane::start().await;
    let mut agent = plane.agent(3).await;
    let (before, old) = (agent.connect(&plane, 1).await.unwrap(), Arc::clone(&agent.tls));
    renew(&plane, &mut agent).await;
    // The old one is good until the next connection, and after it should the answer have been lost.
    let mut after = agent.connect(&plane, 2).await.unwrap();
    before.ended().await;
    after.send(Stream::Presence, agent.hello(2, &[], 0, plane.app.clock.now())).await;
    assert_eq!(after.welcome().await.session, 2);
    agent.tls = old;
    assert!(agent.connect(&plane, 3).await.is_some());
}

async fn keep_document(plane: &Plane, agent: &Agent) {
    let now = plane.app.clock.now();
    let body = DesiredDocumentV1 { agent: agent.id, version: 1, issued: now, parts: Vec::new() };
    let sealed = plane.app.agents.seal(agent.id, Down::Desired, 1, &body.encode().unwrap()).unwrap();
    let insert = "insert into desired_documents (agent_id, version, content_hash, envelope, issued_at)
         values ($1, 1, '', $2, $3)";
    plane.app.stores.business.execute(insert, args![agent.id, sealed, now]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signing_key_and_authority_are_replaced_under_running_agents() {
    let plane = Plane::start().await;
    let usb = tempfile::tempdir().unwrap();
    let (data, usb) = (plane.folder.path(), usb.path());
    ceremony::take_root(data, usb).unwrap();
    let (mut agent, mut away) = (plane.agent(3).await, plane.agent(4).await);
    keep_document(&plane, &agent).await;
    let mut line = agent.connect(&plane, 1).await.unwrap();
    line.send(Stream::Presence, agent.hello(1, &[], 1, plane.app.clock.now())).await;
    line.welcome().await;
    let first = plane.app.agents.held();

    install(data, usb, Wanted { signing_key: true, authority: true, retire: false });
    // The agent that is there hears of it at once; nothing else has changed yet.
    let list = loop {
        let signed = SignedTrustV1::decode(&line.next(Down::Keys).await).unwrap();
        let list = signed.open(&first.keys.root()).unwrap();
        if list.version == 2 {
            break list;
        }
    };
    assert_eq!((list.signing_keys.len(), list.authorities.len()), (2, 2));
    line.trust(&list.signing_keys);
    assert_eq!(plane.app.agents.held().keys.signing().verifying_key(), list.signing_keys[0]);

    ceremony::activate(data).unwrap();
    until("the next keys are in use", || {
        plane.app.agents.held().keys.signing().verifying_key() == list.signing_keys[1]
    })
    .await;
    // Its document comes again, by the new key.
    line.send(Stream::Presence, agent.hello(1, &[], 0, plane.app.clock.now())).await;
    loop {
        let sealed = line.next_sealed(Down::Desired).await;
        let envelope = Envelope::open(Topic::Down(agent.id, Down::Desired), &sealed).unwrap();
        if envelope.verify_down(&list.signing_keys[1..]).is_ok() {
            break;
        }
    }
    // Whoever has the list connects to the new certificate; the old client certificate is good.
    renew(&plane, &mut agent).await;
    assert!(agent.connect(&plane, 2).await.is_some());

    install(data, usb, Wanted { retire: true, ..Wanted::default() });
    until("the old keys are gone", || plane.app.agents.held().keys.list().version == 3).await;
    // One that was away all the while has nothing left but its root and its certificate.
    assert!(away.connect(&plane, 1).await.is_none(), "neither side knows the other");
    renew(&plane, &mut away).await;
    assert!(away.connect(&plane, 2).await.is_some());
    assert!(agent.connect(&plane, 3).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_gateway_takes_the_place_of_the_old_one() {
    let plane = Plane::start().await;
    let old = plane.agent(3).await;
    let line = old.connect(&plane, 1).await.unwrap();
    line.send(Stream::Presence, old.hello(1, &[], 0, plane.app.clock.now())).await;
    keep_document(&plane, &old).await;
    let db = &plane.app.stores.business;
    let (held, hour, now) = (plane.app.agents.held(), DurationMs::from_minutes(60), plane.app.clock.now());
    let unknown = hashinsight_protocol::ids::AgentId::from_random([9; 16]);
    assert!(tokens::create_for(db, &held.authority, unknown, "test", hour, now).await.is_err());
    let token = tokens::create_for(db, &held.authority, old.id, "test", hour, now).await.unwrap();

    let new = plane.enrol(&token, 7).await;
    assert_eq!(new.id, old.id, "its miners and plans are found under the same id");
    tokio::time::timeout(SOON, line.ended()).await.expect("the old gateway is cut off");
    assert!(old.connect(&plane, 2).await.is_none(), "and stays out");
    let mut line = new.connect(&plane, 1).await.unwrap();
    line.send(Stream::Presence, new.hello(1, &[(Stream::Events, 1, 1)], 0, plane.app.clock.now())).await;
    assert_eq!(line.welcome().await.document, 1);
    // A new gateway holds nothing, so it gets the whole document.
    assert_eq!(DesiredDocumentV1::decode(&line.next(Down::Desired).await).unwrap().version, 1);
    assert_eq!(plane.number("select count(*) from agents").await, 1);
    assert_eq!(plane.number("select count(*) from audit_log where what = 'agent.replace'").await, 1);
    let again =
        enrol_body(token.secret(), &KeyPair::generate().unwrap(), &SigningKey::from_seed(&[8; 32]).unwrap());
    assert_eq!(plane.request("POST /enrol", &again).await.0, 403, "once");
    let text = plane.app.metrics.text();
    let revoked = format!("door_refused_total{{reason=\"{}\"}} ", Refusal::Revoked.name());
    assert!(!text.contains(&format!("{revoked}0\n")), "{text}");
}
