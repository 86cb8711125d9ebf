//! The profiles compiled in, folders of overrides, and readings from replies in the documented forms.
#![allow(clippy::unwrap_used)]

use hashinsight_firmware::{Profiles, Reading, Request, decode};
use hashinsight_protocol::device::{ModeV1, PowerSourceV1};
use proptest::prelude::*;

fn read(replies: &[(&str, &str)]) -> (String, Reading) {
    let profiles = Profiles::builtin();
    let replies: Vec<(Request, &[u8])> = replies
        .iter()
        .map(|(request, reply)| {
            let request = match request.strip_prefix("GET ") {
                Some(path) => Request::http(path),
                None => Request::from_capture("tcp", 4028, request),
            };
            (request, reply.as_bytes())
        })
        .collect();
    let decoded = decode(&profiles, &replies).unwrap();
    (decoded.identified.firmware, decoded.reading)
}

fn terahash(reading: &Reading) -> f64 {
    reading.hashrate.unwrap().terahash()
}

#[test]
fn every_profile_loads_and_has_one_name() {
    let profiles = Profiles::builtin();
    let mut names: Vec<&str> = profiles.all().map(|profile| profile.firmware.as_str()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn a_folder_overrides_and_adds() {
    let folder = tempfile::tempdir().unwrap();
    let text = "firmware = \"mine\"\ntitle = \"Mine\"\nrecognise = [{ reply = \"*\", path = \"mine\" }]\n\
                [[from]]\nreplies = [\"*\"]\nfields = \"mine/rate -> hashrate TH/s\"\n";
    std::fs::write(folder.path().join("mine.toml"), text).unwrap();
    std::fs::write(folder.path().join("notes.txt"), "not a profile").unwrap();
    let profiles = Profiles::with_folder(folder.path()).unwrap();
    let decoded = decode(&profiles, &[(Request::http("/x"), br#"{"mine":{"rate":3}}"#)]).unwrap();
    assert_eq!((decoded.identified.firmware.as_str(), terahash(&decoded.reading)), ("mine", 3.0));
    std::fs::write(folder.path().join("mine.toml"), text.replace("TH/s", "tons")).unwrap();
    let error = Profiles::with_folder(folder.path()).unwrap_err().to_string();
    assert!(error.starts_with("mine.toml, line 6: "), "{error}");
}

#[test]
fn what_is_absent_is_unknown() {
    // Hydro: 0 W and 0 rpm at full hashrate are no measurement.
    let (firmware, reading) = read(&[(
        "stats",
        r#"{"STATUS":[{"STATUS":"S"}],"STATS":[{"Type":"Antminer S21 XP Hyd."},{"GHS 5s":483979.25,"rate_unit":"GH","fan_num":4,"fan1":0,"fan2":0,"watt":0,"temp_chip1":"63-59-255-0","temp_chip4":"0-0-0-0","chain_rate1":"161794.68","chain_rate4":""}]}"#,
    )]);
    assert_eq!(firmware, "antminer-stock");
    assert!((terahash(&reading) - 483.979_25).abs() < 1e-9);
    assert_eq!(reading.power_source, Some(PowerSourceV1::Model));
    assert!(reading.fans_rpm.is_empty());
    assert_eq!(reading.temps.iter().map(|t| t.get()).collect::<Vec<_>>(), [63.0, 59.0]);
    assert_eq!(reading.boards.len(), 1);
    assert!(reading.warnings.iter().any(|w| w.contains("0 W")));
}

#[test]
fn a_model_that_counts_in_solutions_is_not_a_thousand_million_times_faster() {
    let stats = |model: &str, rate: &str| {
        read(&[("stats", &format!(r#"{{"STATS":[{{"Type":"{model}"}}{{"GHS 5s":"{rate}"}}]}}"#))]).1
    };
    assert_eq!(stats("Antminer Z15", "394504.32").hashrate.unwrap().get(), 394_504.32);
    assert_eq!(stats("Antminer Z15 Pro", "629.01").hashrate.unwrap().get(), 629_010.0);
    assert_eq!(stats("Antminer L3+", "580.455").hashrate.unwrap().get(), 580.455e6);
    assert_eq!(stats("Antminer S9", "13630.55").hashrate.unwrap().get(), 13_630.55e9);
}

#[test]
fn averages_do_not_mine() {
    let (firmware, reading) = read(&[
        (
            "stats",
            r#"{"STATS":[{"MM ID0":"Ver[1346-110-24041001_08b0955_0196aba] Elapsed[1168] SoftOFF[5] SYSTEMSTATU[Work: In Idle, Hash Board: 3 ] GHSspd[0.00] GHSmm[0.00] GHSavg[22622.40] PS[0 1198 0 0 0 1393 11] OTemp[-273] Freq[nan]"}]}"#,
        ),
        ("summary", r#"{"SUMMARY":[{"Elapsed":1167,"MHS 1m":1102.8,"MHS av":22622399.47}]}"#),
    ]);
    assert_eq!(firmware, "avalon");
    assert_eq!(
        (reading.hashrate.unwrap().get(), reading.is_mining, reading.mode),
        (0.0, Some(false), Some(ModeV1::Sleep))
    );
    assert_eq!((reading.power.unwrap().get(), reading.power_source), (11.0, Some(PowerSourceV1::Device)));
    assert!(reading.temps.is_empty());
}

#[test]
fn modules_of_an_old_avalon_add_up() {
    let (firmware, reading) = read(&[(
        "estats",
        "STATUS=S,When=1,Code=70,Msg=CGMiner stats,Description=cgminer 4.10.0|STATS=0,ID=AV70,Elapsed=183,\
         MM ID1=Ver[7411706-3162860] Temp[38] TMax[93] Fan[4110] FanR[48%] GHSmm[7078.84],\
         MM ID2=Ver[7411706-3162860] Temp[36] TMax[91] Fan[4200] FanR[48%] GHSmm[7000.00]|",
    )]);
    assert_eq!(firmware, "avalon");
    assert!((terahash(&reading) - 14.078_84).abs() < 1e-9);
    assert_eq!(reading.fans_rpm, [4110, 4200]);
}

#[test]
fn a_joined_reply_is_read_like_its_parts() {
    let (firmware, reading) = read(&[(
        "summary+pools",
        r#"{"summary":[{"STATUS":[{"STATUS":"S","Description":"cgminer 4.13.6"}],"SUMMARY":[{"MHS 5s":2.5,"Accepted":7}],"id":1}],"pools":[{"STATUS":[{"STATUS":"S"}],"POOLS":[{"URL":"stratum+tcp://a:1","User":"w","Accepted":7,"Rejected":0,"Status":"Dead"}],"id":1}],"id":1}"#,
    )]);
    assert_eq!(firmware, "cgminer");
    assert_eq!(reading.hashrate.unwrap().get(), 2.5e6);
    assert_eq!(reading.pools[0].alive, Some(false));
}

#[test]
fn a_refusal_is_a_warning_and_no_zero() {
    let (_, reading) = read(&[
        ("summary", r#"{"STATUS":[{"STATUS":"S","Code":11}],"SUMMARY":[{"MHS 5s":1}]}"#),
        ("devs", r#"{"STATUS":[{"STATUS":"E","When":1,"Code":10,"Msg":"No ASCs/PGAs"}],"id":1}"#),
    ]);
    assert_eq!(reading.warnings, ["\"devs\" was refused: code 10, No ASCs/PGAs"]);
    assert_eq!(reading.power, None);
}

#[test]
fn shares_of_a_bitaxe_belong_to_the_pool_in_use() {
    let page = |fallback: u8| {
        format!(
            r#"{{"ASICModel":"BM1368","hashRate":612.5,"power":14.2,"fanrpm":3517,"temp":59.5,"sharesAccepted":12,"sharesRejected":1,"isUsingFallbackStratum":{fallback},"stratumURL":"a","stratumPort":1,"stratumUser":"u","fallbackStratumURL":"b","fallbackStratumPort":2,"fallbackStratumUser":"v","miningPaused":true}}"#
        )
    };
    let (firmware, reading) = read(&[("GET /api/system/info", &page(0))]);
    assert_eq!(firmware, "axeos");
    assert_eq!(
        reading.pools.iter().map(|p| (p.url.as_str(), p.accepted)).collect::<Vec<_>>(),
        [("a:1", Some(12)), ("b:2", None)]
    );
    // The word beats the rate.
    assert_eq!(reading.is_mining, Some(false));
    let (_, reading) = read(&[("GET /api/system/info", &page(1))]);
    assert_eq!(reading.pools[1].accepted, Some(12));
}

#[test]
fn error_codes_in_their_several_forms() {
    let (_, v2) = read(&[(
        "get_error_code",
        r#"{"STATUS":"S","Code":131,"Description":"btminer","Msg":{"error_code":[{"218":"2024-06-15"},{"110":"2024-06-15"}]}}"#,
    )]);
    assert_eq!(v2.errors.iter().map(|e| e.code.as_str()).collect::<Vec<_>>(), ["218", "110"]);
    let (firmware, v3) = read(&[(
        "get.device.info",
        r#"{"code":0,"desc":"get.device.info","msg":{"miner":{"type":"M60S_VK40","working":"true"},"error-code":[{"541":"Slot 1","reason":"hashboard"}]}}"#,
    )]);
    assert_eq!(firmware, "whatsminer-v3");
    // The device's own word first, then ours.
    let words = v3.errors[0].text.as_deref().unwrap();
    assert!(v3.errors[0].code == "541" && words.starts_with("hashboard (slot 1: "), "{words}");
    assert!(v2.errors[1].text.as_deref().unwrap().starts_with("intake fan"));
    assert_eq!(v3.is_mining, Some(true));
}

static PROFILES: std::sync::LazyLock<Profiles> = std::sync::LazyLock::new(Profiles::builtin);
const NAMES: [&str; 8] =
    ["stats", "summary", "pools", "devs", "status", "summary+pools", "system_info", "graphql"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any bytes, under any profile's rules.
    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000), name in 0..NAMES.len()) {
        let _ = decode(&PROFILES, &[(Request::http(NAMES[name]), &bytes), (Request::cgminer(NAMES[name]), &bytes)]);
    }

    /// A reply with bytes changed, cut out or cut off is read, or not, but never panics, and no
    /// figure is out of its range.
    #[test]
    fn mutated_replies_are_read_without_panic(
        which in 0..REPLIES.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
        truncate: bool,
    ) {
        let (name, reply) = REPLIES[which];
        let mut bytes = reply.as_bytes().to_vec();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if truncate {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Some(decoded) = decode(&PROFILES, &[(Request::from_capture("tcp", 4028, name), &bytes)]) {
            prop_assert!(decoded.reading.temps.iter().all(|t| (-40.0..=200.0).contains(&t.get())));
            prop_assert!(decoded.reading.to_json().is_object());
        }
    }
}

const REPLIES: [(&str, &str); 5] = [
    (
        "stats",
        r#"{"STATUS":[{"STATUS":"S","When":1}],"STATS":[{"Type":"Antminer S19"}{"GHS 5s":"13754.03","fan1":5040,"temp_pcb1":"45-45-50-50","chain_rate1":"4524.28"}],"id":1}"#,
    ),
    (
        "estats",
        "STATUS=S,When=1|STATS=0,MM ID0=Ver[1346] SYSTEMSTATU[Work: In Work, Hash Board: 3 ] PS[0 1 2 3 4 5 6] MTmax[77 77 76] GHSspd[1.5] Freq[nan]|",
    ),
    (
        "summary",
        r#"{"STATUS":[{"STATUS":"S"}],"SUMMARY":[{"HS RT":67394800.97,"Power":3417,"Fan Speed In":6450,"Error Code 0":110}],"id":1}"#,
    ),
    (
        "get.miner.status",
        r#"{"code":0,"desc":"get.miner.status","msg":{"summary":{"hash-realtime":171.2,"power-realtime":3156.0,"board-temperature":[41.1,40.1]}}}"#,
    ),
    (
        "pools",
        r#"{"POOLS":[{"POOL":0,"URL":"stratum+tcp://a:1","User":"b","Accepted":"5","Status":"Alive"},{"URL":""}]}"#,
    ),
];
