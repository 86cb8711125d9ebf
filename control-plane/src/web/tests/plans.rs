//! Plans as operators meet them: previewed, ordered, watched, stopped.

use super::{Answer, Console, NOW, console};
use crate::args;
use crate::curtailment::approval::{self, ApprovalRule};
use crate::curtailment::service;
use crate::curtailment::state::PlanState;
use crate::curtailment::store::{self, StoredPlan};
use crate::identity::Role;
use axum::http::StatusCode;
use hashinsight_protocol::ids::{AgentId, MinerId, PlanId};
use hashinsight_protocol::units::{Millis, Watts};

/// A signed-in operator and the address of the order form.
struct Desk {
    console: Console,
    cookie: String,
    csrf: String,
    path: String,
}

async fn desk(role: Role) -> Desk {
    let console = console().await;
    console.seed(20).await;
    console
        .app
        .stores
        .business
        .execute("update miners set can_sleep = 1, standby_w = 50", args![])
        .await
        .unwrap();
    let cookie = console.signed_in(role.name(), role).await;
    let path = format!("/sites/{}/curtailment", console.site.id);
    let csrf = console.get(&path, &[("cookie", &cookie)]).await.csrf();
    Desk { console, cookie, csrf, path }
}

impl Desk {
    async fn get(&self, path: &str) -> Answer {
        self.console.get(path, &[("cookie", &self.cookie), ("accept-language", "en")]).await
    }

    async fn post(&self, path: &str, form: &str) -> Answer {
        let form = format!("csrf={}&{form}", self.csrf);
        self.console.post(path, &[("cookie", &self.cookie), ("accept-language", "en")], &form).await
    }

    async fn plans(&self) -> Vec<StoredPlan> {
        store::plans_of_site(&self.console.app.stores.business, self.console.site.id, 10).await.unwrap()
    }

    /// The form of a preview for so many kilowatts, with its key.
    async fn previewed(&self, kw: &str) -> String {
        let form = order(kw);
        let answer = self.post(&self.path, &format!("{form}&act=preview")).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        let after = answer.text.split("name=\"key\" value=\"").nth(1).expect("a key");
        format!("{form}&key={}", after.split('"').next().unwrap())
    }

    /// A plan that was ordered and approved.
    async fn running(&self) -> StoredPlan {
        let form = self.previewed("10").await;
        let answer = self.post(&self.path, &format!("{form}&act=send")).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
        self.plans().await.remove(0)
    }
}

fn order(kw: &str) -> String {
    format!(
        "goal=reduce&kw={kw}&minutes=30&when=now&start=&order=least_efficient_first&down_batch=50&down_every=4\
         &up_batch=50&up_every=30&min_off=15&min_on=30&starts=4&reason=Event+%3C7%3E"
    )
}

#[tokio::test]
async fn a_form_that_is_wrong_comes_back_as_typed() {
    let desk = desk(Role::Operator).await;
    let form = order("1O0").replace("minutes=30", "minutes=0");
    let answer = desk.post(&desk.path, &format!("{form}&act=preview")).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    for text in [
        "value=\"1O0\"",
        "Write the reduction as a number",
        "Write whole minutes",
        "value=\"Event &#60;7&#62;\"",
        "aria-describedby=\"fault-kw\"",
    ] {
        assert!(answer.text.contains(text), "{text}: {}", answer.text);
    }
    assert!(desk.plans().await.is_empty());
    // The same words in the other language.
    let form = format!("csrf={}&{form}&act=preview", desk.csrf);
    let answer =
        desk.console.post(&desk.path, &[("cookie", &desk.cookie), ("accept-language", "zh")], &form).await;
    assert!(answer.text.contains("请填写降低的功率"), "{}", answer.text);
}

#[tokio::test]
async fn a_preview_shows_who_and_why_and_writes_nothing() {
    let desk = desk(Role::Operator).await;
    let answer = desk.post(&desk.path, &format!("{}&act=preview", order("10"))).await;
    for text in [
        "12.8",
        "10.0",
        "0.2",
        "400.0",
        "gw",
        "efficiency 32.5",
        "Not needed for the target",
        "Approve and send",
    ] {
        assert!(answer.text.contains(text), "{text}: {}", answer.text);
    }
    assert!(!answer.text.contains("can&#39;t be reached"), "{}", answer.text);
    let answer = desk.post(&desk.path, &format!("{}&act=preview", order("1000"))).await;
    assert!(answer.text.contains("936.0\u{a0}kW are missing"), "{}", answer.text);
    let answer = desk.post(&desk.path, &format!("{}&act=edit", order("77"))).await;
    assert!(
        answer.text.contains("value=\"77\"") && !answer.text.contains("act\" value=\"send"),
        "{}",
        answer.text
    );
    assert!(desk.plans().await.is_empty());
}

#[tokio::test]
async fn sending_twice_is_one_plan() {
    let desk = desk(Role::Operator).await;
    let form = format!("{}&act=send", desk.previewed("10").await);
    let (first, second) = tokio::join!(desk.post(&desk.path, &form), desk.post(&desk.path, &form));
    let third = desk.post(&desk.path, &form).await;
    let plans = desk.plans().await;
    assert_eq!(plans.len(), 1);
    assert_eq!((plans[0].state, plans[0].approved_by.as_deref()), (PlanState::Approved, Some("operator")));
    for answer in [first, second, third] {
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
        assert_eq!(answer.header("location"), format!("/plans/{}", plans[0].id));
    }
    // What can't be done leaves no plan that waits for somebody.
    desk.console.app.stores.business.execute("update miners set can_sleep = 0", args![]).await.unwrap();
    let form = format!("{}&act=send", desk.previewed("10").await);
    let answer = desk.post(&desk.path, &form).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text.contains("No miner of this site can be stopped now"), "{}", answer.text);
    assert!(desk.plans().await.iter().all(|plan| plan.state != PlanState::Pending));
}

#[tokio::test]
async fn a_plan_is_stopped_by_those_who_may_and_once() {
    let desk = desk(Role::Operator).await;
    let plan = desk.running().await;
    let path = format!("/plans/{}/stop", plan.id);
    let viewer = desk.console.signed_in("viewer", Role::Viewer).await;
    let csrf = desk.console.get("/sites", &[("cookie", &viewer)]).await.csrf();
    for (cookie, csrf) in
        [(&viewer, csrf.as_str()), (&desk.cookie, ""), (&desk.cookie, "0000"), (&viewer, &desk.csrf)]
    {
        let answer = desk.console.post(&path, &[("cookie", cookie)], &format!("csrf={csrf}")).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
    }
    let page = desk.get(&path).await;
    assert!(page.text.contains("name=\"force\""), "{}", page.text);
    for form in ["", "", "force=yes", ""] {
        assert_eq!(desk.post(&path, form).await.status, StatusCode::SEE_OTHER);
    }
    let db = &desk.console.app.stores.business;
    let stored = store::plan(db, plan.id).await.unwrap();
    assert_eq!((stored.stopped_by.as_deref(), stored.stopped_force), (Some("operator"), true));
    let (orders,): (i64,) =
        db.fetch_one("select count(*) from orders where plan_id = $1", args![plan.id]).await.unwrap();
    assert_eq!(orders, 2, "one stop, and one by force");
    let page = desk.get(&format!("/plans/{}", plan.id)).await;
    assert!(page.text.contains("Stopped by operator at"), "{}", page.text);
    assert!(!page.text.contains(&format!("{path}\"")), "nothing more to stop: {}", page.text);
}

#[tokio::test]
async fn a_viewer_sees_plans_and_no_buttons() {
    let desk = desk(Role::Operator).await;
    let plan = desk.running().await;
    let cookie = desk.console.signed_in("viewer", Role::Viewer).await;
    let get = async |path: &str| {
        let answer = desk.console.get(path, &[("cookie", &cookie), ("accept-language", "en")]).await;
        assert_eq!(answer.status, StatusCode::OK);
        answer.text
    };
    let list = get(&desk.path).await;
    assert!(list.contains("Reduce by 10.0") && list.contains("can&#39;t order"), "{list}");
    let page = get(&format!("/plans/{}", plan.id)).await;
    assert!(page.contains("Reduce by 10.0"), "{page}");
    for text in [&list, &page] {
        for button in ["name=\"act\"", "/approve\"", "/stop\""] {
            assert!(!text.contains(button), "{button}: {text}");
        }
    }
    let answer = desk.console.get(&format!("/plans/{}/stop", plan.id), &[("cookie", &cookie)]).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
}

async fn target(console: &Console, plan: PlanId, n: u8, state: &str) {
    console
        .app
        .stores
        .business
        .execute(
            "insert into targets (plan_id, interval_number, miner_id, agent_id, state, accepted, mode, effect, \
             power_before_w, power_now_w, why, at, epoch, place) \
             values ($1, 1, $2, $3, $4, 'yes', 'yes', 'unknown', 3250, 40, 'in its step', $5, '', 0)",
            args![plan, MinerId::from_random([n; 16]), AgentId::from_random([9; 16]), state, NOW],
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn a_plan_shows_its_miners_with_their_proofs() {
    let desk = desk(Role::Operator).await;
    let plan = desk.running().await;
    let page = format!("/plans/{}", plan.id);
    let text = desk.get(&page).await.text;
    for says in ["Approved", "On its way", "No agent has reported miners", "ends in", "Waking miners"] {
        assert!(text.contains(says), "{says}: {text}");
    }
    for n in 0..120 {
        target(&desk.console, plan.id, n, if n < 3 { "drifted" } else { "curtailed" }).await;
    }
    let db = &desk.console.app.stores.business;
    db.execute(
        "insert into dispatches (plan_id, agent_id, interval_number, state, target_w, reached_w, targets, why, at, epoch, \
         place) values ($1, $2, 1, 'holding', 10000, 9000, 120, 'nothing more to take', $3, '', 1)",
        args![plan.id, AgentId::from_random([9; 16]), Millis(NOW.0)],
    )
    .await
    .unwrap();
    for (query, says) in [
        (
            "",
            &[
                "1–50 of 120",
                "Drifted",
                "Accepted by the device: yes",
                "3,250 → 40",
                "9.0",
                "90%",
                "nothing more to take",
            ][..],
        ),
        ("?state=drifted", &["1–3 of 3", "aria-current=\"true\""]),
        ("?state=curtailed&page=3", &["101–117 of 117"]),
        ("?state=nonsense&page=99", &["101–120 of 120"]),
    ] {
        let text = desk.get(&format!("{page}{query}")).await.text;
        for says in says {
            assert!(text.contains(says), "{query} {says}: {text}");
        }
        assert!(!text.contains(" style=\"") && !text.contains("<script>"));
    }
    assert_eq!(desk.get("/plans/00000000-0000-4000-8000-000000000000").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_large_plan_takes_two_people() {
    let console = console().await;
    console.seed(3).await;
    let (app, site) = (&console.app, console.site.id);
    let db = &app.stores.business;
    db.execute("update miners set can_sleep = 1, weak_identity = 0, firmware = 'luxos'", args![])
        .await
        .unwrap();
    let rule = ApprovalRule { operator_up_to: Watts::new(9_000.0), two_above: Watts::new(5_000.0) };
    approval::set_rule(db, site, rule, "test", NOW).await.unwrap();
    let order = async |kw: f64| {
        let order = serde_json::json!({"site": site, "goal": {"reduce_kw": kw}, "minutes": 30});
        let plan = service::create(app, serde_json::from_value(order).unwrap(), None, "anna").await.unwrap();
        format!("/plans/{}", plan.id)
    };
    let approve = async |path: &str, cookie: &str| {
        let headers = [("cookie", cookie), ("accept-language", "en")];
        let csrf = console.get(path, &headers).await.csrf();
        console.post(&format!("{path}/approve"), &headers, &format!("csrf={csrf}")).await
    };
    let anna = console.signed_in("anna", Role::Operator).await;
    let bo = console.signed_in("bo", Role::Approver).await;
    let plan = order(6.0).await;

    // One is not enough, however often.
    assert_eq!(approve(&plan, &anna).await.status, StatusCode::SEE_OTHER);
    let page = console.get(&plan, &[("cookie", &anna), ("accept-language", "en")]).await;
    assert!(page.text.contains("somebody else has to approve it too"), "{}", page.text);
    assert!(!page.text.contains("/approve\""), "the button is for somebody else");
    let again = approve(&plan, &anna).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    assert!(again.text.contains("It takes somebody else too"), "{}", again.text);

    // A program is nobody here.
    let key = console.key(Role::Admin).await;
    let refused = console.post(&format!("/api/v1{plan}/approve"), &[("authorization", &key)], "").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text);
    let body = console.get(&format!("/api/v1{plan}"), &[("authorization", &key)]).await.text;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&body["state"], &body["approvals"][0]["who"]), (&"pending".into(), &"anna".into()));

    // The second one sends it.
    assert_eq!(approve(&plan, &bo).await.status, StatusCode::SEE_OTHER);
    let body = console.get(&format!("/api/v1{plan}"), &[("authorization", &key)]).await.text;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&body["state"], &body["approved_by"]), (&"approved".into(), &"bo".into()));

    // What is above an operator's limit is not for an operator at all.
    let plan = order(9.5).await;
    let refused = approve(&plan, &anna).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.text.contains("for an approver, administrator or owner"), "{}", refused.text);
}
