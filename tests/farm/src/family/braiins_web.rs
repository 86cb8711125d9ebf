//! The web server of Braiins OS: REST under a token from 25.07 on, GraphQL under a cookie before.
//!
//! Which of the two a device has is its model's: the S19 of the farm runs the older version.

use super::Scene;
use super::antminer_web::{WebAnswer, WebRequest};
use super::web::{self, body, json, json_status, page, text};
use crate::device::{Change, Pool};
use serde_json::{Value, json as value};

pub const USER: &str = "root";
pub const PASSWORD: &str = "root";

pub fn answer(scene: &mut Scene<'_>, request: &WebRequest<'_>) -> WebAnswer {
    let path = request.path.split('?').next().unwrap_or_default();
    if scene.dev.model.old_style {
        return match (request.method, path) {
            ("POST", "/graphql") => graphql(scene, request),
            _ => page(404, ""),
        };
    }
    let Some(path) = path.strip_prefix("/api/v1/") else { return page(404, "") };
    if (request.method, path) == ("POST", "auth/login") {
        let asked = body(request);
        let known = text(&asked, "username") == USER
            && web::takes_password(scene, text(&asked, "password"), PASSWORD);
        return if known {
            json(value!({"token": web::issue(scene), "timeout_s": 3600}))
        } else {
            json_status(401, value!({"message": "invalid credentials"}))
        };
    }
    if !web::knows(scene, request.authorization) {
        return json_status(401, value!({"message": "missing or invalid token"}));
    }
    rest(scene, request, path)
}

fn rest(scene: &mut Scene<'_>, request: &WebRequest<'_>, path: &str) -> WebAnswer {
    let asleep = scene.dev.plant.settings.asleep;
    match (request.method, path) {
        ("PUT", "actions/pause") => {
            scene.write(Change::Sleep);
            json(asleep.into())
        }
        ("PUT", "actions/resume") => {
            scene.write(Change::Wake);
            json((!asleep).into())
        }
        ("PUT", "actions/reboot") => {
            scene.write(Change::Reboot);
            page(204, "")
        }
        ("GET", "actions/locate") => json(web::light(scene.dev).into()),
        ("PUT", "actions/locate") => match body(request) {
            Value::Bool(on) => {
                web::set_light(scene, on);
                json(web::light(scene.dev).into())
            }
            _ => json_status(400, value!({"message": "a boolean is wanted"})),
        },
        ("PUT", "performance/power-target") => match body(request).get("watt").and_then(Value::as_u64) {
            Some(watts) => {
                scene.write(Change::Limit(u32::try_from(watts).ok()));
                json(value!({"watt": watts}))
            }
            None => json_status(400, value!({"message": "a power is wanted"})),
        },
        ("GET", "pools/" | "pools") => {
            json(value!([{"name": "site", "pools": pools(scene), "strategy": {"quota": {"value": 1}}}]))
        }
        ("PUT", "pools/batch") => {
            let groups = body(request);
            let list = groups.get(0).and_then(|group| group.get("pools")).and_then(Value::as_array);
            match list {
                Some(list) => {
                    web::set_pools(scene, &taken(list));
                    json(groups.clone())
                }
                None => json_status(400, value!({"message": "a group is wanted"})),
            }
        }
        _ => page(404, ""),
    }
}

fn pools(scene: &Scene<'_>) -> Vec<Value> {
    (0..3)
        .map(|n| (n, scene.dev.pool(n)))
        .filter(|(_, pool)| !pool.url.is_empty())
        .map(|(n, pool)| value!({"uid": format!("p{n}"), "url": pool.url, "user": pool.user, "enabled": true, "alive": true, "active": n == 0}))
        .collect()
}

fn taken(list: &[Value]) -> Vec<Pool> {
    let pool = |p: &Value| Pool {
        url: text(p, "url").to_owned(),
        user: text(p, "user").to_owned(),
        pass: text(p, "password").to_owned(),
    };
    list.iter().map(pool).collect()
}

fn graphql(scene: &mut Scene<'_>, request: &WebRequest<'_>) -> WebAnswer {
    let asked = body(request);
    let query = text(&asked, "query");
    let variables = asked.get("variables").cloned().unwrap_or_default();
    if query.contains("login(") {
        let known = text(&variables, "username") == USER
            && web::takes_password(scene, text(&variables, "password"), PASSWORD);
        return if known {
            let cookie = format!("session_id={}; Path=/; HttpOnly", web::issue(scene));
            WebAnswer {
                cookie: Some(cookie),
                ..json(value!({"data": {"auth": {"login": {"void": "void"}}}}))
            }
        } else {
            json(value!({"data": null, "errors": [{"message": "Invalid login or password"}]}))
        };
    }
    if query.contains("faultLight") && !query.contains("mutation") {
        return json(value!({"data": {"bos": {"faultLight": web::light(scene.dev)}}}));
    }
    let cookie = request.cookie.and_then(|pair| pair.strip_prefix("session_id="));
    if !web::knows(scene, cookie) {
        return json(value!({"data": null, "errors": [{"message": "Unauthorized"}]}));
    }
    if query.contains("setFaultLight") {
        let on = variables.get("enable").and_then(Value::as_bool).unwrap_or(false);
        web::set_light(scene, on);
        return json(value!({"data": {"bos": {"setFaultLight": {"enabled": on}}}}));
    }
    if query.contains("updateAutotuning") {
        let watts = variables.get("limit").and_then(Value::as_u64).unwrap_or(0);
        scene.write(Change::Limit(u32::try_from(watts).ok()));
        return json(
            value!({"data": {"bosminer": {"config": {"updateAutotuning": {"autotuning": {"powerTarget": watts}}}}}}),
        );
    }
    if query.contains("updateGroups") {
        let list =
            variables.get("groups").and_then(|groups| groups.get(0)).and_then(|group| group.get("pools"));
        let list = taken(list.and_then(Value::as_array).map_or(&[], Vec::as_slice));
        web::set_pools(scene, &list);
        return json(value!({"data": {"bosminer": {"config": {"updateGroups": {"groups": [{"id": "0"}]}}}}}));
    }
    for (word, change) in [
        ("restart", Change::Restart),
        ("reboot", Change::Reboot),
        ("stop", Change::Sleep),
        ("start", Change::Wake),
    ] {
        if query.split_whitespace().any(|w| w == word) {
            scene.write(change);
            return json(value!({"data": {"bosminer": {word: {"void": "void"}}}}));
        }
    }
    json(value!({"data": null, "errors": [{"message": "Unknown field"}]}))
}
