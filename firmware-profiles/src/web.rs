//! A family's web interface: on which port, how to sign in, and how a refused sign-in looks.
//!
//! Where a family hands out tokens, one is kept for each device as long as it lasts and no longer
//! than the same credentials are meant. A request is first sent with the token that is known, or
//! without one: many pages need none. What is refused is sent once more after a fresh sign-in; a
//! second refusal is the credentials' fault, and they are not tried again in that call.

use crate::control::http::{Condition, values};
use crate::device::{Credentials, Device, DeviceError, Secret};
use crate::http::{self, Answer, WebRequest};
use crate::tcp::{self, Call};
use crate::template::{self, Blanks};
use base64::Engine as _;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// The usual port of a web server.
const WEB_PORT: u16 = 80;
/// Most tokens that a family keeps; beyond it all are given up, which costs a sign-in each.
const MAX_SESSIONS: usize = 50_000;
/// A refusal is short; longer replies are not looked through for one.
const MAX_REFUSAL: usize = 4096;
/// Longest token that is taken, in bytes.
const MAX_TOKEN: usize = 4096;

/// The `[web]` table of a profile.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WebFile {
    port: Option<PortFile>,
    sign_in: SignIn,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum PortFile {
    Number(u16),
    Name(String),
}

/// How to sign in.
#[derive(Debug, Default, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum SignIn {
    /// As the server's challenge asks: digest or basic.
    #[default]
    Challenge,
    /// Basic, sent without being asked.
    Basic,
    None,
    /// The password is a part of each request that writes.
    Body(BodySignIn),
    /// A request that gives a token or a cookie, which goes with all others.
    Token(Box<TokenSignIn>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BodySignIn {
    /// What in a reply says that the password is wrong.
    refused: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenSignIn {
    #[serde(default = "post")]
    method: String,
    path: String,
    body: Option<Value>,
    /// Where in the reply the token stands …
    token: Option<String>,
    /// … or the name of the cookie that it sets, `*` for any.
    cookie: Option<String>,
    #[serde(default = "authorization")]
    header: String,
    #[serde(default = "bearer")]
    value: String,
    /// How long a token is used, in seconds.
    #[serde(default = "half_an_hour")]
    lasts_s: u64,
    /// What in a reply says that the token or the password is not taken, beside status 401 and 403.
    #[serde(default)]
    refused: Vec<Condition>,
    /// The sign-in of versions that do not have this one.
    or: Option<Box<TokenSignIn>>,
}

fn post() -> String {
    "POST".to_owned()
}

fn authorization() -> String {
    "Authorization".to_owned()
}

fn bearer() -> String {
    "Bearer {token}".to_owned()
}

fn half_an_hour() -> u64 {
    1800
}

/// A family's web interface.
#[derive(Debug)]
pub(crate) struct Web {
    port: Option<u16>,
    on_api_port: bool,
    sign_in: SignIn,
    sessions: Mutex<HashMap<SocketAddr, Session>>,
}

/// A token in use.
#[derive(Clone, Debug)]
struct Session {
    header: String,
    value: Secret,
    until: Instant,
    user: String,
    password: Secret,
}

/// A user name and password, and whose they are.
pub(crate) struct Login {
    pub credentials: Credentials,
    pub from_factory: bool,
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = if self.from_factory { "the factory's password" } else { "the password that is set" };
        if self.credentials.user.is_empty() {
            f.write_str(whose)
        } else {
            write!(f, "the user \"{}\" with {whose}", self.credentials.user)
        }
    }
}

impl Web {
    pub fn new(file: WebFile) -> Result<Self, String> {
        let (port, on_api_port) = match file.port {
            None => (None, false),
            Some(PortFile::Number(0)) => return Err("\"port\" is \"api\" or a number".to_owned()),
            Some(PortFile::Number(port)) => (Some(port), false),
            Some(PortFile::Name(name)) if name == "api" => (None, true),
            Some(PortFile::Name(_)) => return Err("\"port\" is \"api\" or a number".to_owned()),
        };
        let mut next = if let SignIn::Token(token) = &file.sign_in { Some(token) } else { None };
        while let Some(token) = next {
            next = token.or.as_ref();
            if !token.path.starts_with('/') {
                return Err("the sign-in's path begins with \"/\"".to_owned());
            }
            if token.token.is_some() == token.cookie.is_some() {
                return Err("a sign-in gives either a \"token\" or a \"cookie\"".to_owned());
            }
            let mut names = template::text_names(&token.path);
            names.extend(token.body.as_ref().map(template::names).unwrap_or_default());
            if let Some(name) = names.iter().find(|name| !matches!(name.as_str(), "user" | "password")) {
                return Err(format!("a sign-in knows {{user}} and {{password}}, not {{{name}}}"));
            }
            if hyper::header::HeaderName::from_bytes(token.header.as_bytes()).is_err() {
                return Err(format!("\"{}\" is no name of a header", token.header));
            }
        }
        Ok(Self { port, on_api_port, sign_in: file.sign_in, sessions: Mutex::default() })
    }

    /// The port to ask. A family's own port stands for the usual one: a site that moved the web
    /// server has said so.
    pub fn port(&self, device: &Device) -> u16 {
        match self.port {
            _ if self.on_api_port => device.api_port,
            Some(port) if device.web_port == WEB_PORT => port,
            _ => device.web_port,
        }
    }

    /// Sends a request, signing in as the family wants it. A status other than 2xx is an error.
    pub async fn fetch(
        &self,
        call: &Call,
        login: Option<&Login>,
        request: &WebRequest<'_>,
    ) -> Result<Vec<u8>, DeviceError> {
        let answer = self.ask(call, login, request).await?;
        match answer.status {
            200..=299 => {
                http::tell(call, request, &answer);
                Ok(answer.body)
            }
            status => Err(DeviceError::HttpStatus {
                address: call.name(),
                status,
                request: request.path.to_owned(),
            }),
        }
    }

    /// Sends a request, signing in as the family wants it.
    ///
    /// # Errors
    /// [`DeviceError::AuthRefused`] with the login that was refused; other statuses are answers.
    pub async fn ask(
        &self,
        call: &Call,
        login: Option<&Login>,
        request: &WebRequest<'_>,
    ) -> Result<Answer, DeviceError> {
        let credentials = login.map(|login| &login.credentials);
        let answer = match &self.sign_in {
            SignIn::Challenge => http::answer(call, &WebRequest { credentials, ..*request }).await?,
            SignIn::None | SignIn::Body(_) => http::exchange(call, request, None).await?.0,
            SignIn::Basic => {
                let pair = credentials.map(|c| format!("{}:{}", c.user, c.password.reveal()));
                let header = pair
                    .map(|pair| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)));
                http::exchange(call, request, header.as_deref()).await?.0
            }
            SignIn::Token(token) => return self.ask_with_token(call, login, request, token).await,
        };
        let conditions = if let SignIn::Body(body) = &self.sign_in { body.refused.as_slice() } else { &[] };
        if is_refused(&answer, conditions) { Err(refused(call, login)) } else { Ok(answer) }
    }

    async fn ask_with_token(
        &self,
        call: &Call,
        login: Option<&Login>,
        request: &WebRequest<'_>,
        token: &TokenSignIn,
    ) -> Result<Answer, DeviceError> {
        let mut kept = login.and_then(|login| self.kept(call.address, login));
        for fresh in [false, true] {
            let header = kept.as_ref().map(|(header, value)| (header.as_str(), value.reveal()));
            let answer = http::exchange(call, &WebRequest { header, ..*request }, None).await?.0;
            let moved = matches!(answer.status, 301..=303 | 307);
            if !moved && !is_refused(&answer, &token.refused) {
                return Ok(answer);
            }
            self.keep(call.address, None);
            let Some(login) = login.filter(|_| !fresh) else { break };
            let mut way = token;
            let value = loop {
                match (sign_in(call, login, way).await, &way.or) {
                    (Err(DeviceError::HttpStatus { status: 404 | 405, .. }), Some(or)) => way = or,
                    (signed, _) => break signed?,
                }
            };
            self.keep(
                call.address,
                Some(Session {
                    header: way.header.clone(),
                    value: value.clone(),
                    until: tcp::now() + Duration::from_secs(way.lasts_s),
                    user: login.credentials.user.clone(),
                    password: login.credentials.password.clone(),
                }),
            );
            kept = Some((way.header.clone(), value));
        }
        Err(refused(call, login))
    }

    /// The token that is known of a device, if it is for this login.
    fn kept(&self, address: SocketAddr, login: &Login) -> Option<(String, Secret)> {
        let sessions = self.sessions.lock().ok()?;
        let Credentials { user, password } = &login.credentials;
        let session = sessions.get(&address)?;
        let same = session.user == *user && session.password.reveal() == password.reveal();
        (same && tcp::now() < session.until).then(|| (session.header.clone(), session.value.clone()))
    }

    fn keep(&self, address: SocketAddr, session: Option<Session>) {
        if let Ok(mut sessions) = self.sessions.lock() {
            if sessions.len() >= MAX_SESSIONS {
                sessions.clear();
            }
            match session {
                Some(session) => sessions.insert(address, session),
                None => sessions.remove(&address),
            };
        }
    }
}

fn refused(call: &Call, login: Option<&Login>) -> DeviceError {
    let login = login.map_or_else(|| "a request without a sign-in".to_owned(), Login::to_string);
    DeviceError::AuthRefused { address: call.name(), login }
}

fn is_refused(answer: &Answer, conditions: &[Condition]) -> bool {
    if matches!(answer.status, 401 | 403) {
        return true;
    }
    if conditions.is_empty() || answer.body.len() > MAX_REFUSAL {
        return false;
    }
    crate::json::parse(&answer.body).is_some_and(|(reply, _)| conditions.iter().any(|c| c.holds(&reply)))
}

/// Signs in; gives the header's value.
async fn sign_in(call: &Call, login: &Login, token: &TokenSignIn) -> Result<Secret, DeviceError> {
    let Credentials { user, password } = &login.credentials;
    let blanks: Blanks = [
        ("user".to_owned(), Value::from(user.as_str())),
        ("password".to_owned(), Value::from(password.reveal())),
    ]
    .into_iter()
    .collect();
    let path = template::fill_path(&token.path, &blanks);
    let body = token.body.as_ref().map(|body| template::fill(body, &blanks).to_string());
    let request = WebRequest {
        method: Some(&token.method),
        body: body.as_ref().map(|body| ("application/json", body.as_bytes())),
        ..WebRequest::get(&path, None)
    };
    let answer = http::exchange(call, &request, None).await?.0;
    match answer.status {
        200..=399 => {}
        // The request's path is the template: the filled one may hold the password.
        status @ (404 | 405 | 429 | 500..) => {
            return Err(DeviceError::HttpStatus {
                address: call.name(),
                status,
                request: without_query(&token.path),
            });
        }
        _ => return Err(refused(call, Some(login))),
    }
    let value = match (&token.token, &token.cookie) {
        (Some(path), _) => token_in(&answer.body, path).map(|found| {
            let blanks: Blanks = [("token".to_owned(), Value::from(found))].into_iter().collect();
            template::fill_text(&token.value, &blanks)
        }),
        (None, Some(name)) => answer.cookies.iter().find(|pair| is_cookie(pair, name)).cloned(),
        (None, None) => None,
    };
    // A header takes no control characters.
    let value = value.filter(|value| !value.is_empty() && value.bytes().all(|b| (0x20..0x7f).contains(&b)));
    value.map(Secret::new).ok_or_else(|| refused(call, Some(login)))
}

fn without_query(path: &str) -> String {
    path.split('?').next().unwrap_or_default().to_owned()
}

fn token_in(body: &[u8], path: &str) -> Option<String> {
    let (reply, _) = crate::json::parse(body)?;
    let token = values(&reply, path).into_iter().find_map(Value::as_str)?;
    (!token.is_empty() && token.len() <= MAX_TOKEN).then(|| token.to_owned())
}

fn is_cookie(pair: &str, name: &str) -> bool {
    pair.split_once('=').is_some_and(|(key, value)| {
        (name == "*" || key == name) && !value.is_empty() && pair.len() <= MAX_TOKEN
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn web(text: &str) -> Result<Web, String> {
        Web::new(toml::from_str(text).map_err(|error| error.message().to_owned())?)
    }

    #[test]
    fn a_wrong_table_says_why() {
        let check = |text: &str, reason: &str| {
            let error = web(text).unwrap_err();
            assert!(error.contains(reason), "{error}");
        };
        check("port = \"x\"", "\"api\" or a number");
        check("port = 0", "\"api\" or a number");
        check("sign_in = { kind = \"guess\" }", "guess");
        check("sign_in = { kind = \"token\", path = \"x\", token = \"t\" }", "begins with");
        check("sign_in = { kind = \"token\", path = \"/x\" }", "either");
        check(
            "sign_in = { kind = \"token\", path = \"/x\", token = \"t\", body = { a = \"{pin}\" } }",
            "{pin}",
        );
        check("sign_in = { kind = \"token\", path = \"/x\", token = \"t\", header = \"a b\" }", "header");
        assert!(web("").is_ok());
    }

    #[test]
    fn the_port_of_a_family_gives_way_to_the_site() {
        let device = Device::at(std::net::Ipv4Addr::LOCALHOST.into());
        let moved = Device { web_port: 8888, api_port: 4000, ..device.clone() };
        let check = |text: &str, usual: u16, own: u16| {
            let web = web(text).unwrap();
            assert_eq!((web.port(&device), web.port(&moved)), (usual, own), "{text}");
        };
        check("", 80, 8888);
        check("port = 8080", 8080, 8888);
        check("port = \"api\"", 4028, 4000);
    }

    #[test]
    fn a_login_is_named_without_its_password() {
        let login = |user: &str, from_factory| Login {
            credentials: Credentials { user: user.to_owned(), password: Secret::new("hush") },
            from_factory,
        };
        assert_eq!(login("root", true).to_string(), "the user \"root\" with the factory's password");
        assert_eq!(login("", false).to_string(), "the password that is set");
    }

    proptest! {
        #[test]
        fn any_reply_to_a_sign_in_is_survived(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = token_in(&body, "token");
            let _ = token_in(&body, "Token/0/Token");
            let condition: Condition = serde_json::from_str(r#"{"path":"a/b"}"#).unwrap();
            let _ = is_refused(&Answer { status: 200, body, cookies: Vec::new() }, &[condition]);
        }

        #[test]
        fn a_token_is_found_whatever_stands_beside_it(token in "[a-zA-Z0-9._-]{1,80}", other in "\\PC{0,30}") {
            let body = serde_json::json!({"other": other, "Token": [{"Token": token}]}).to_string();
            prop_assert_eq!(token_in(body.as_bytes(), "Token/0/Token"), Some(token.clone()));
            prop_assert_eq!(token_in(body.as_bytes(), "Token/Token"), Some(token));
        }

        #[test]
        fn a_cookie_is_a_pair(pair in "\\PC{0,40}") {
            if is_cookie(&pair, "session_id") {
                prop_assert!(pair.starts_with("session_id=") && pair.len() > 11);
            }
        }
    }
}
