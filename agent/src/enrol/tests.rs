use super::*;
use hashinsight_protocol::ids::{AgentId, SiteId};
use hashinsight_protocol::trust::{SignedTrustV1, TrustListV1};
use hashinsight_protocol::units::Millis;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use ring::digest::{SHA256, digest};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn fingerprint(&self) -> [u8; 32] {
        digest(&SHA256, self.certificate.der()).as_ref().try_into().expect("32 bytes")
    }

    fn server(&self) -> rustls::ServerConfig {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["hashinsight".to_owned()]).expect("a name");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &self.issuer).expect("a certificate");
        let chain = vec![leaf.der().clone(), self.certificate.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|b| b.with_no_client_auth().with_single_cert(chain, key))
            .expect("a configuration")
    }

    fn sign(&self, csr_pem: &str) -> String {
        let csr = rcgen::CertificateSigningRequestParams::from_pem(csr_pem).expect("a request");
        csr.signed_by(&self.issuer).expect("a certificate").pem()
    }
}

/// Answers one request with what `answer` makes of it.
async fn serve(
    authority: &Authority,
    answer: impl FnOnce(EnrolRequest) -> (u16, String) + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let acceptor = TlsAcceptor::from(Arc::new(authority.server()));
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.expect("a client");
        let Ok(mut tls) = acceptor.accept(tcp).await else { return };
        let mut bytes = Vec::new();
        let request = loop {
            let mut part = [0; 4096];
            let n = tls.read(&mut part).await.expect("readable");
            bytes.extend_from_slice(&part[..n]);
            let text = String::from_utf8_lossy(&bytes);
            let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
            if let Some(request) = body.and_then(|body| serde_json::from_str(&body).ok()) {
                break request;
            }
        };
        let (status, body) = answer(request);
        let head =
            format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        tls.write_all(format!("{head}{body}").as_bytes()).await.expect("writable");
        let _ = tls.shutdown().await;
    });
    address
}

/// A list by the root with this seed.
fn trust(root: u8, authority: &Authority) -> String {
    let root = SigningKey::from_seed(&[root; 32]).expect("a seed");
    let signing_keys = vec![SigningKey::from_seed(&[2; 32]).expect("a seed").verifying_key()];
    let authorities = vec![authority.certificate.der().to_vec()];
    let list = TrustListV1 { version: 1, issued: Millis(0), signing_keys, authorities };
    SignedTrustV1::sign(&root, &list).and_then(|signed| signed.to_text()).expect("small")
}

fn response(certificate_pem: String, authority: &Authority) -> EnrolResponse {
    let root = SigningKey::from_seed(&[1; 32]).expect("a seed");
    EnrolResponse {
        agent: AgentId::from_random([1; 16]),
        site: SiteId::from_random([2; 16]),
        site_name: "North".to_owned(),
        certificate_pem,
        broker: "127.0.0.1:8883".to_owned(),
        broker_name: "hashinsight".to_owned(),
        root_key: hex(&root.verifying_key().0),
        trust: trust(1, authority),
    }
}

/// Enrols with a data folder of its own; says what went wrong, or who it is.
async fn check(address: SocketAddr, token: &EnrolmentToken) -> Result<AgentId, String> {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let config = dir.path().join("agent.toml");
    std::fs::write(&config, format!("data_dir = {data:?}\n")).expect("writable");
    #[derive(clap::Parser)]
    struct Parser {
        #[command(flatten)]
        args: EnrolArgs,
    }
    let (config, url, token) = (config.display().to_string(), format!("https://{address}"), token.reveal());
    let parsed =
        <Parser as clap::Parser>::parse_from(["x", "--config", &config, "--url", &url, "--token", &token]);
    match enrol(parsed.args).await {
        Ok(()) => Ok(Identity::load(&data).expect("written").agent()),
        Err(failure) => {
            assert!(!data.exists(), "nothing is left behind");
            Err(format!("{failure:?}"))
        }
    }
}

#[tokio::test]
async fn a_gateway_is_enrolled() {
    let authority = Arc::new(Authority::new());
    let token = EnrolmentToken::new([5; 32], authority.fingerprint());
    let secret = token.secret().to_owned();
    let signer = authority.clone();
    let address = serve(&authority, move |request| {
        assert_eq!(request.secret, secret);
        assert_eq!(request.batch_key.len(), 64);
        let answer = response(signer.sign(&request.csr_pem), &signer);
        (200, serde_json::to_string(&answer).expect("json"))
    })
    .await;
    assert_eq!(check(address, &token).await, Ok(AgentId::from_random([1; 16])));
}

#[tokio::test]
async fn another_control_plane_gets_no_secret() {
    let authority = Authority::new();
    let token = EnrolmentToken::new([5; 32], Authority::new().fingerprint());
    let address = serve(&authority, |_| panic!("it was asked")).await;
    let error = check(address, &token).await.expect_err("another one");
    assert!(error.contains("not the control plane that made this token"), "{error}");
}

#[tokio::test]
async fn a_refusal_is_told_in_its_own_words() {
    let authority = Authority::new();
    let token = EnrolmentToken::new([5; 32], authority.fingerprint());
    let address = serve(&authority, |_| (403, "{\"error\":\"the token is used up\"}".to_owned())).await;
    let error = check(address, &token).await.expect_err("refused");
    assert!(error.contains("refuses: the token is used up"), "{error}");
    let address = serve(&authority, |_| (500, "<html>".to_owned())).await;
    let error = check(address, &token).await.expect_err("refused");
    assert!(error.contains("HTTP 500"), "{error}");
}

#[tokio::test]
async fn an_answer_is_checked_before_it_is_kept() {
    let authority = Arc::new(Authority::new());
    let token = EnrolmentToken::new([5; 32], authority.fingerprint());
    type Spoil = fn(&mut EnrolResponse, &Authority);
    let cases: [(Spoil, &str); 5] = [
        (|r, a| r.certificate_pem = a.certificate.pem(), "does not fit"),
        (|r, _| r.trust = trust(1, &Authority::new()), "not among its authorities"),
        (|r, a| r.trust = trust(9, a), "trust list"),
        (|r, _| r.broker = "broker".to_owned(), "no port"),
        (|r, _| r.broker_name = "not a name!".to_owned(), "name is not one"),
    ];
    for (spoil, part) in cases {
        let signer = authority.clone();
        let address = serve(&authority, move |request| {
            let mut answer = response(signer.sign(&request.csr_pem), &signer);
            spoil(&mut answer, &signer);
            (200, serde_json::to_string(&answer).expect("json"))
        })
        .await;
        let error = check(address, &token).await.expect_err(part);
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn addresses() {
    for (url, expect) in [
        ("https://a.example", Some(("a.example", 8884))),
        ("https://a.example:9/", Some(("a.example", 9))),
        ("https://[::1]:9/enrol", Some(("::1", 9))),
        ("http://a.example", None),
        ("a.example:9", None),
        ("https://a.example/other", None),
        ("", None),
    ] {
        let found = address(url).ok();
        assert_eq!(found.as_ref().map(|(h, p)| (h.as_str(), *p)), expect, "{url}");
    }
}
