//! kill -9 at any time: nothing committed is lost, nothing counts twice, and what is missing is counted.

use hashinsight_demo::script::{settle_books, wait_for_readings};
use hashinsight_tests::{SITE, one_site};
use serde_json::Value;
use std::time::Duration;

fn counted_gaps(world: &hashinsight_demo::world::World) -> usize {
    let mut polls = 0;
    let path = format!("/api/v1/sites/{}/gaps", world.site_id(SITE).unwrap());
    let answer = world.api.get(&path).unwrap();
    let list = answer.as_array().or_else(|| answer["gaps"].as_array()).unwrap();
    for gap in list {
        polls += gap["polls"].as_u64().unwrap() as usize;
    }
    polls
}

#[test]
fn a_killed_agent_loses_at_most_the_burst_in_flight_and_says_so() {
    let mut sandbox = one_site(&[("gateway", 40)], 5, 10.0).unwrap();
    let world = &mut sandbox.world;
    wait_for_readings(world).unwrap();
    let plan = world.plan.clone();
    // Pauses of no common measure with the cycle: the kills fall into bursts and between them.
    for pause in [1_300, 3_700, 5_100, 2_900] {
        std::thread::sleep(Duration::from_millis(pause));
        world.agents[0].process.kill();
        world.agents[0].restart(&plan).unwrap();
    }
    std::thread::sleep(Duration::from_secs(6));
    let books = settle_books(world).unwrap();
    assert!(books.answered > 200, "{books:?}");
    assert_eq!((books.surplus, books.wrong), (0, 0), "{books:?}");
    let gaps = counted_gaps(world);
    assert!(books.lost <= gaps, "{} polls are missing, {gaps} are counted: {books:?}", books.lost);
}

#[test]
fn a_killed_control_plane_loses_nothing() {
    let mut sandbox = one_site(&[("gateway", 40)], 5, 10.0).unwrap();
    let world = &mut sandbox.world;
    wait_for_readings(world).unwrap();
    for pause in [2_300, 4_100] {
        std::thread::sleep(Duration::from_millis(pause));
        world.control_plane.kill();
        std::thread::sleep(Duration::from_millis(1_500));
        world.restart_control_plane().unwrap();
    }
    wait_for_readings(world).unwrap();
    let books = settle_books(world).unwrap();
    assert!(books.balance(), "{books:?}");
    assert_eq!(counted_gaps(world), 0);
    let sites: Value = world.api.get("/api/v1/sites").unwrap();
    assert!(sites.to_string().contains(SITE), "{sites}");
}
