//! FutureBit Apollo: GraphQL, a token for all but the statistics; it has no CGMiner port.

use super::antminer_web::{WebAnswer, WebRequest};
use super::web::{self, body, json, page, phase_said, text};
use super::{Scene, Shares};
use crate::device::Change;
use crate::physics::Phase;
use crate::reply::rounded;
use serde_json::{Value, json as value};

pub const PASSWORD: &str = "futurebit123";

pub fn answer(scene: &mut Scene<'_>, request: &WebRequest<'_>) -> WebAnswer {
    if (request.method, request.path) != ("POST", "/api/graphql") {
        return page(404, "");
    }
    let asked = body(request);
    let query = text(&asked, "query");
    let failed = |message: &str| json(value!({"errors": [{"message": message}], "data": null}));
    if query.trim_start().starts_with("mutation") {
        return failed("Schema is not configured for mutations.");
    }
    if query.contains("login(") {
        let password = asked.pointer("/variables/input/password").and_then(Value::as_str).unwrap_or_default();
        let login = if web::takes_password(scene, password, PASSWORD) {
            value!({"result": {"accessToken": web::issue(scene)}, "error": null})
        } else {
            value!({"result": null, "error": {"message": "Invalid password"}})
        };
        return json(value!({"data": {"Auth": {"login": login}}}));
    }
    if query.contains("online") {
        return json(value!({"data": {"Miner": miner(scene, query.contains("stats"))}}));
    }
    if !web::knows(scene, request.authorization) {
        return failed("Authentication required");
    }
    for (branch, word, change) in [
        ("Miner", "stop", Change::Sleep),
        ("Miner", "start", Change::Wake),
        ("Mcu", "reboot", Change::Reboot),
    ] {
        if query.split_whitespace().any(|w| w == word) {
            scene.write(change);
            return json(value!({"data": {branch: {word: {"error": null}}}}));
        }
    }
    failed("Cannot query field")
}

fn miner(scene: &mut Scene<'_>, with_stats: bool) -> Value {
    let state = match phase_said(scene) {
        Phase::Asleep => "offline",
        Phase::Booting | Phase::Down => "pending",
        _ => "online",
    };
    let online = value!({"result": {"online": {"status": state}}});
    if !with_stats {
        return value!({"online": online});
    }
    let s = scene.sensed;
    let now = rounded(s.rate / 1e9, 3);
    scene.sampled(now * 1e9);
    let watts = web::watts(scene);
    let (dev, shares) = (&*scene.dev, Shares::of(scene));
    let pool = dev.pool(0);
    let bare = pool.url.split_once("://").map_or(pool.url.as_str(), |(_, rest)| rest);
    let (host, port) = bare.rsplit_once(':').unwrap_or((bare, "0"));
    let stats = value!([{
        "version": dev.model.build,
        "versions": {"miner": dev.model.name},
        "slaves": [{"uid": dev.serial(0, 16)}],
        "slots": {"int_0": {"ghs": now, "temperature": rounded(s.chip, 1), "temperature1": rounded(s.board, 1)}},
        "master": {"boardsW": watts, "upTime": s.elapsed},
        "fans": {"int_0": {"rpm": [s.fan_rpm]}},
        "pool": {"host": host, "port": port.parse::<u16>().unwrap_or(0), "userName": pool.user,
            "intervals": {"int_0": {"sharesAccepted": shares.accepted, "sharesRejected": shares.rejected}}},
    }]);
    value!({"online": online, "stats": {"result": {"stats": stats}}})
}
