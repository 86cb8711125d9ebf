//! The console as its callers meet it: through the whole router, on real databases.

use super::routes::{self, Needs};
use crate::App;
use crate::args;
use crate::clock::Clock;
use crate::config::{Addresses, Settings};
use crate::fleet::sites::{self, Site};
use crate::identity::{Permission, Role, api_keys, guard, users};
use crate::store::testing;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use hashinsight_protocol::ids::{AgentId, MinerId};
use hashinsight_protocol::units::{DurationMs, Millis};
use std::sync::Arc;
use tower::ServiceExt as _;

mod plans;

const NOW: Millis = Millis(1_790_000_000_000);
const PASSWORD: &str = "four words in a row";

struct Console {
    app: Arc<App>,
    router: Router,
    site: Site,
    _folder: tempfile::TempDir,
}

/// An answer, read to its end.
struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    text: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// The value of the cookie that it sets.
    fn cookie(&self) -> String {
        self.header("set-cookie").split(';').next().unwrap().to_owned()
    }

    /// The token of its forms.
    fn csrf(&self) -> String {
        let after = self.text.split("name=\"csrf\" value=\"").nth(1).expect("a form with a token");
        after.split('"').next().unwrap().to_owned()
    }
}

async fn console() -> Console {
    let folder = tempfile::tempdir().unwrap();
    let data = Some(folder.path().to_owned());
    let config = Settings { data, ..Settings::default() }.finish(None).unwrap();
    let addresses = Addresses { http: config.http, mqtt: config.mqtt, enrol: config.enrol };
    let stores = testing::stores(folder.path()).await;
    let app = App::open(config, addresses, Clock::standing_at(NOW), stores).await.unwrap();
    let site =
        sites::add(&app.stores.business, "North", "America/Chicago", Some(2000), "test", NOW).await.unwrap();
    let router = routes::router(Arc::clone(&app));
    Console { app, router, site, _folder: folder }
}

impl Console {
    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 4 << 20).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.into()).unwrap(),
        }
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(request(Method::GET, path, headers, String::new())).await
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], form: &str) -> Answer {
        self.send(request(Method::POST, path, headers, form.to_owned())).await
    }

    /// A user who has chosen a password; the session's cookie.
    async fn signed_in(&self, name: &str, role: Role) -> String {
        let once =
            users::add(&self.app.stores.business, name, role, "test", self.app.clock.now()).await.unwrap();
        let cookie = self.post("/login", &[], &format!("name={name}&password={once}")).await.cookie();
        let csrf = self.get("/password", &[("cookie", &cookie)]).await.csrf();
        let new = PASSWORD.replace(' ', "+");
        let form = format!("csrf={csrf}&old={once}&new={new}&again={new}");
        let answer = self.post("/password", &[("cookie", &cookie)], &form).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
        answer.cookie()
    }

    async fn key(&self, role: Role) -> String {
        let name = role.name();
        users::add(&self.app.stores.business, name, role, "test", NOW).await.unwrap();
        let key = api_keys::add(&self.app.stores.business, name, "test", "test", NOW).await.unwrap();
        format!("Bearer {key}")
    }

    /// Agents with miners and readings of this moment.
    async fn seed(&self, miners: u8) {
        let agent = AgentId::from_random([9; 16]);
        let db = &self.app.stores.business;
        db.execute(
            "insert into agents (id, site_id, hostname, version, batch_key, enrolled_at) values ($1, $2, 'gw', '1', '', 0)",
            args![agent, self.site.id],
        )
        .await
        .unwrap();
        for n in 0..miners {
            let id = MinerId::from_random([n; 16]);
            db.execute(
                "insert into miners (id, agent_id, site_id, model, rack, position, seen_at) \
                 values ($1, $2, $3, 'Antminer S19 <Pro>', 'R1', $4, 0)",
                args![id, agent, self.site.id, format!("P{n}")],
            )
            .await
            .unwrap();
            self.app
                .stores
                .telemetry
                .execute(
                    "insert into latest (miner_id, agent_id, at, received_at, poll, answered_at, hashrate_hs, power_w, \
                     hottest_c, is_mining, mode) values ($1, $2, $3, $3, 'answered', $3, 100e12, 3250.0, $4, 1, 'normal')",
                    args![id, agent, Millis(NOW.0 - 1000), 60.0 + f64::from(n)],
                )
                .await
                .unwrap();
        }
    }
}

fn request(method: Method, path: &str, headers: &[(&str, &str)], form: String) -> Request<Body> {
    let mut request = Request::builder().method(method.clone()).uri(path);
    if method == Method::POST {
        request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(form)).unwrap()
}

/// A path of the table with values in its places; none of them exists.
fn filled(path: &str) -> String {
    let id = "00000000-0000-4000-8000-000000000000";
    path.replace("{site}", id).replace("{id}", id).replace("{hash}", "x").replace("{name}", "x")
}

#[tokio::test]
async fn strangers_are_refused_everywhere() {
    let console = console().await;
    let mut refused = 0;
    for route in routes::table() {
        if route.needs == Needs::Nothing {
            continue;
        }
        let path = filled(route.path);
        for header in
            [("accept", "*/*"), ("cookie", "hashinsight_session=guessed"), ("authorization", "Bearer hik_x")]
        {
            let answer = console.send(request(route.method.clone(), &path, &[header], String::new())).await;
            let sent_away =
                answer.status == StatusCode::SEE_OTHER && answer.header("location").starts_with("/login");
            let is_refused = answer.status == StatusCode::UNAUTHORIZED || sent_away;
            assert!(is_refused, "{} {path} {header:?}: {} {}", route.method, answer.status, answer.text);
            assert!(!path.starts_with("/api/") || answer.text.starts_with("{\"error\":"), "{}", answer.text);
            refused += 1;
        }
    }
    assert!(refused > 30, "the table was walked");
}

#[tokio::test]
async fn every_role_gets_what_it_may_and_no_more() {
    let console = console().await;
    for role in Role::ALL {
        let key = console.key(role).await;
        for route in routes::table() {
            let Needs::May(permission) = route.needs else { continue };
            let path = filled(route.path);
            let answer = console
                .send(request(route.method.clone(), &path, &[("authorization", &key)], String::new()))
                .await;
            let is_refused = answer.status == StatusCode::FORBIDDEN;
            assert_eq!(
                is_refused,
                !role.may(permission),
                "{role:?} {} {path}: {}",
                route.method,
                answer.status
            );
        }
    }
    assert!(!Role::Viewer.may(Permission::OrderPlans) && !Role::Technician.may(Permission::RunPlans));
}

#[tokio::test]
async fn an_agents_site_needs_a_password_of_ones_own_first() {
    let console = console().await;
    let once = users::add(&console.app.stores.business, "owner", Role::Owner, "test", NOW).await.unwrap();
    let cookie = console.post("/login", &[], &format!("name=Owner&password={once}")).await.cookie();
    let sent = console.get("/sites", &[("cookie", &cookie)]).await;
    assert_eq!((sent.status, sent.header("location")), (StatusCode::SEE_OTHER, "/password"));
    let api = console.get("/api/v1/sites", &[("cookie", &cookie)]).await;
    assert_eq!(api.status, StatusCode::FORBIDDEN);
    let page = console.get("/password", &[("cookie", &cookie)]).await;
    let csrf = page.csrf();
    for (new, again, says) in [
        ("short", "short", "at least 12"),
        (PASSWORD, "another one entirely", "differ"),
        (&once, &once, "the old one"),
    ] {
        let form =
            format!("csrf={csrf}&old={once}&new={}&again={}", new.replace(' ', "+"), again.replace(' ', "+"));
        let answer = console.post("/password", &[("cookie", &cookie)], &form).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.text.contains(says), "{says}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_new_password_ends_all_sessions() {
    let console = console().await;
    let cookie = console.signed_in("owner", Role::Owner).await;
    let other = console
        .post("/login", &[], &format!("name=owner&password={}", PASSWORD.replace(' ', "+")))
        .await
        .cookie();
    let csrf = console.get("/password", &[("cookie", &cookie)]).await.csrf();
    let form = format!(
        "csrf={csrf}&old={}&new=five+words+in+a+row&again=five+words+in+a+row",
        PASSWORD.replace(' ', "+")
    );
    let answer = console.post("/password", &[("cookie", &cookie)], &form).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    for (cookie, status) in [(cookie, 303), (other, 303), (answer.cookie(), 200)] {
        assert_eq!(console.get("/sites", &[("cookie", &cookie)]).await.status.as_u16(), status);
    }
}

#[tokio::test]
async fn a_changed_request_without_its_token_is_refused() {
    let console = console().await;
    let cookie = console.signed_in("owner", Role::Owner).await;
    let csrf = console.get("/sites", &[("cookie", &cookie)]).await.csrf();
    for (headers, form, status) in [
        (vec![], String::new(), 403),
        (vec![], "csrf=0000".to_owned(), 403),
        (vec![("x-csrf-token", "0000")], format!("csrf={csrf}"), 403),
        (vec![("origin", "http://evil.example"), ("host", "console")], format!("csrf={csrf}"), 403),
        (vec![("sec-fetch-site", "cross-site")], format!("csrf={csrf}"), 403),
        (vec![("origin", "http://console"), ("host", "console")], format!("csrf={csrf}"), 303),
    ] {
        let mut headers = headers;
        headers.push(("cookie", &cookie));
        let answer = console.post("/logout", &headers, &form).await;
        assert_eq!(answer.status.as_u16(), status, "{headers:?} {form}");
    }
    // The last one did sign out.
    assert_eq!(console.get("/sites", &[("cookie", &cookie)]).await.status, StatusCode::SEE_OTHER);
    for path in ["/api/v1/plans/preview", "/api/v1/plans", "/api/v1/plans/x/approve", "/api/v1/plans/x/stop"]
    {
        let cookie = console
            .post("/login", &[], &format!("name=owner&password={}", PASSWORD.replace(' ', "+")))
            .await
            .cookie();
        let answer = console.post(path, &[("cookie", &cookie)], "").await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
    }
}

#[tokio::test]
async fn guessing_is_slowed() {
    let console = console().await;
    let cookie = console.signed_in("owner", Role::Owner).await;
    for n in 0..guard::OF_NAME {
        let answer = console.post("/login", &[], "name=owner&password=guessed").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "try {n}");
    }
    let right = format!("name=owner&password={}", PASSWORD.replace(' ', "+"));
    let answer = console.post("/login", &[], &right).await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "600"));
    assert!(answer.text.contains("Too many failed tries"), "{}", answer.text);
    // Who is signed in already stays so.
    assert_eq!(console.get("/sites", &[("cookie", &cookie)]).await.status, StatusCode::OK);
    console.app.clock.advance(guard::WINDOW);
    assert_eq!(console.post("/login", &[], &right).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_session_ends_when_it_is_idle_or_its_user_is_gone() {
    let console = console().await;
    let cookie = console.signed_in("owner", Role::Owner).await;
    let seen = |minutes: u64| console.app.clock.advance(DurationMs::from_minutes(minutes));
    for _ in 0..13 {
        seen(11 * 60);
        assert_eq!(console.get("/sites", &[("cookie", &cookie)]).await.status, StatusCode::OK);
    }
    seen(12 * 60);
    assert_eq!(console.get("/sites", &[("cookie", &cookie)]).await.status, StatusCode::SEE_OTHER);
    let other = console.signed_in("other", Role::Viewer).await;
    users::disable(&console.app.stores.business, "other", "test", console.app.clock.now()).await.unwrap();
    assert_eq!(console.get("/sites", &[("cookie", &other)]).await.status, StatusCode::SEE_OTHER);
    assert!(
        users::disable(&console.app.stores.business, "owner", "test", NOW).await.is_err(),
        "the last owner stays"
    );
}

#[tokio::test]
async fn a_revoked_key_opens_nothing() {
    let console = console().await;
    let key = console.key(Role::Admin).await;
    assert_eq!(console.get("/api/v1/sites", &[("authorization", &key)]).await.status, StatusCode::OK);
    let id = api_keys::all(&console.app.stores.business).await.unwrap()[0].0.clone();
    api_keys::revoke(&console.app.stores.business, &id, "test", NOW).await.unwrap();
    assert_eq!(
        console.get("/api/v1/sites", &[("authorization", &key)]).await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn pages_say_what_they_should() {
    let console = console().await;
    let cookie = console.signed_in("owner", Role::Owner).await;
    let site = format!("/sites/{}", console.site.id);
    let page = async |path: &str, language: &str| {
        console.get(path, &[("cookie", &cookie), ("accept-language", language)]).await
    };
    let empty = page(&site, "en").await;
    assert!(empty.text.contains("No agent at this site yet"), "{}", empty.text);
    console.seed(60).await;
    console.app.clock.advance(DurationMs::from_secs(6));
    for (path, language, status, says) in [
        ("/sites", "en", 200, &["North", "195.0", "kW", "6.00", "PH/s", "60"][..]),
        ("/sites", "zh-CN,zh;q=0.9,en;q=0.5", 200, &["矿场", "lang=\"zh-CN\""]),
        (
            &site,
            "en",
            200,
            &["195.0", "32.5", "J/TH", "119", "°C", "1–50 of 60", "S19 &#60;Pro&#62;", "Hashing", "7 s"],
        ),
        (&site, "zh", 200, &["运行中", "第 1–50 台，共 60 台"]),
        (&format!("{site}?page=2&sort=-hottest"), "en", 200, &["51–60 of 60", "aria-sort=\"descending\""]),
        (&format!("{site}?page=999"), "en", 200, &["51–60 of 60"]),
        (&format!("{site}?q=nothing+like+it"), "en", 200, &["No miner matches"]),
        (&format!("{site}?q=p59"), "en", 200, &["1–1 of 1"]),
        (&format!("{site}?status=fault"), "en", 200, &["No miner matches"]),
        (&format!("{site}?sort=nonsense&status=nonsense&page=x"), "en", 200, &["1–50 of 60"]),
        (&format!("{site}/chart?hours=1"), "en", 200, &["\"power_mw\":[null"]),
        (&format!("{site}/curtailment"), "en", 200, &["No curtailment plans yet"]),
        ("/sites/00000000-0000-4000-8000-000000000000", "en", 404, &["There is nothing here", "owner"]),
        ("/sites/%00", "en", 404, &["There is nothing here"]),
        ("/nowhere", "zh", 404, &["此处没有内容"]),
        ("/login?next=/sites", "en", 303, &[""]),
    ] {
        let answer = page(path, language).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        for text in says {
            assert!(answer.text.contains(text), "{path} does not say {text:?}: {}", answer.text);
        }
        assert!(answer.header("content-security-policy").contains("default-src 'self'"), "{path}");
        let has_code = ["<script>", "onclick=", " style=\"", "javascript:"]
            .iter()
            .any(|code| answer.text.contains(code));
        assert!(!has_code, "{path} has code or style of its own, which the policy refuses");
    }
}

#[tokio::test]
async fn a_stale_site_says_so() {
    let console = console().await;
    console.seed(3).await;
    console.app.clock.advance(DurationMs::from_minutes(14));
    let cookie = console.signed_in("owner", Role::Owner).await;
    let page = console
        .get(&format!("/sites/{}", console.site.id), &[("cookie", &cookie), ("accept-language", "en")])
        .await;
    for text in ["Stale", "14 min", "0 <span class=\"unit\">/ 3"] {
        assert!(page.text.contains(text), "{text}: {}", page.text);
    }
}

#[tokio::test]
async fn the_api_answers_in_numbers() {
    let console = console().await;
    console.seed(3).await;
    let key = console.key(Role::Viewer).await;
    let get = async |path: &str| {
        let answer = console
            .get(&format!("/api/v1/sites/{}{path}", console.site.id), &[("authorization", &key)])
            .await;
        let json: serde_json::Value = serde_json::from_str(&answer.text).unwrap_or_default();
        (answer.status.as_u16(), json)
    };
    let (status, summary) = get("/summary").await;
    assert_eq!(status, 200);
    assert_eq!(
        (&summary["miners"], &summary["answered"], &summary["power_w"]),
        (&3.into(), &3.into(), &9750.0.into())
    );
    assert_eq!((&summary["by_status"]["hashing"], &summary["by_status"]["fault"]), (&3.into(), &0.into()));
    assert_eq!(summary["agents"][0]["online"], false);
    let (_, miners) = get("/miners?limit=1&offset=1&sort=-hottest&status=hashing").await;
    assert_eq!((&miners["total"], &miners["miners"][0]["hottest_c"]), (&3.into(), &61.0.into()));
    for (path, status) in [("/miners?sort=x", 400), ("/miners?status=x", 400), ("/readings", 403)] {
        let (got, body) = get(path).await;
        assert_eq!(got, status, "{path}");
        assert!(body["error"].is_string(), "{path}: {body}");
    }
}

#[tokio::test]
async fn who_has_to_sign_in_comes_back() {
    let console = console().await;
    let sent = console.get("/sites/x?sort=power&page=2", &[]).await;
    assert_eq!(sent.header("location"), "/login?next=%2Fsites%2Fx%3Fsort%3Dpower%26page%3D2");
    let by_htmx = console.get("/sites", &[("hx-request", "true")]).await;
    assert_eq!((by_htmx.status, by_htmx.header("hx-redirect")), (StatusCode::OK, "/login?next=%2Fsites"));
    let events = console.get(&format!("/sites/{}/events", console.site.id), &[]).await;
    assert_eq!(events.status, StatusCode::UNAUTHORIZED);
    console.signed_in("owner", Role::Owner).await;
    let form = format!("name=owner&password={}&next=//evil.example", PASSWORD.replace(' ', "+"));
    assert_eq!(console.post("/login", &[], &form).await.header("location"), "/");
    let form = format!("name=owner&password={}&next=%2Fsites%2Fx", PASSWORD.replace(' ', "+"));
    let back = console.post("/login", &[], &form).await;
    assert_eq!(back.header("location"), "/sites/x");
    let set = back.header("set-cookie");
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Lax") && set.contains("Path=/"), "{set}");
}

#[tokio::test]
async fn a_language_is_remembered() {
    let console = console().await;
    let answer = console.post("/language", &[], "language=zh-CN&next=%2Flogin").await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/login"));
    let page = console.get("/login", &[("cookie", &answer.cookie()), ("accept-language", "en")]).await;
    assert!(page.text.contains("用户名"), "{}", page.text);
    assert_eq!(console.post("/language", &[], "language=tlh").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn assets_are_kept_for_good_and_nothing_else_is_served() {
    let console = console().await;
    let url = super::assets::url("app.css");
    let answer = console.get(&url, &[]).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.header("cache-control").contains("immutable"));
    assert_eq!(console.get("/assets/0000/app.css", &[]).await.header("cache-control"), "no-store");
    for path in ["/assets/0/..%2Fsrc%2Fmain.rs", "/assets/0/none.js", "/assets/0/%2Fetc%2Fpasswd"] {
        assert_eq!(console.get(path, &[]).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn a_viewer_gets_word_of_changes_once_a_second_at_most() {
    let console = console().await;
    let cookie = console.signed_in("owner", Role::Owner).await;
    let path = format!("/sites/{}/events", console.site.id);
    let request = request(Method::GET, &path, &[("cookie", &cookie)], String::new());
    let response = console.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert!(console.app.live.is_watched(console.site.id));
    let mut body = response.into_body();
    let began = tokio::time::Instant::now();
    let mut events = 0;
    while began.elapsed() < std::time::Duration::from_millis(2500) {
        console.app.live.changed(console.site.id);
        let next = tokio::time::timeout(
            std::time::Duration::from_millis(50),
            http_body_util::BodyExt::frame(&mut body),
        );
        if let Ok(frame) = next.await {
            let data = frame.unwrap().unwrap().into_data().unwrap();
            assert!(data.starts_with(b"event: changed\n"), "{data:?}");
            events += 1;
        }
    }
    assert!((2..=3).contains(&events), "{events} events in 2.5 s");
    drop(body);
    assert!(!console.app.live.is_watched(console.site.id));
}
