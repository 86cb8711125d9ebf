//! Replies in the forms of many families, with invented values: each must be recognised and read, and
//! any damage to them must do no harm.
#![allow(clippy::unwrap_used)]
// Times are bounded, not told.
#![allow(clippy::disallowed_methods)]

use hashinsight_firmware::{Profiles, Reading, Request, decode};
use proptest::prelude::*;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

static PROFILES: LazyLock<Profiles> = LazyLock::new(Profiles::builtin);

/// One device's replies and what they say.
struct Case {
    firmware: &'static str,
    /// Request and reply; `GET /…` and `POST /…` are pages.
    replies: &'static [(&'static str, &'static str)],
    hashrate_hs: Option<f64>,
    power_w: Option<f64>,
    temps: &'static [f64],
    fans: &'static [u32],
    /// Address, worker, accepted, rejected.
    pools: &'static [(&'static str, &'static str, u64, u64)],
    is_mining: Option<bool>,
}

fn request(name: &str) -> Request {
    match name.strip_prefix("GET ").or_else(|| name.strip_prefix("POST ")) {
        Some(path) => Request::http(path),
        None => Request::from_capture("tcp", 4028, name),
    }
}

fn read(replies: &[(&str, &str)]) -> Option<(String, Reading)> {
    let replies: Vec<(Request, &[u8])> =
        replies.iter().map(|(name, reply)| (request(name), reply.as_bytes())).collect();
    decode(&PROFILES, &replies).map(|decoded| (decoded.identified.firmware, decoded.reading))
}

const CASES: &[Case] = &[
    // The boards' five seconds, not their averages, which one board has wrong.
    Case {
        firmware: "baikal",
        replies: &[(
            "devs",
            r#"{"STATUS":[{"STATUS":"S","Code":9,"Description":"sgminer 5.6.6-l"}],"DEVS":[{"ASC":0,"Name":"BKLU","Temperature":41.00,"MHS av":910004000.5,"MHS 5s":900.5},{"ASC":1,"Name":"BKLU","Temperature":42.00,"MHS av":890.1,"MHS 5s":899.5}]}"#,
        )],
        hashrate_hs: Some(1.8e9),
        power_w: None,
        temps: &[41.0, 42.0],
        fans: &[],
        pools: &[],
        is_mining: Some(true),
    },
    Case {
        firmware: "strongu",
        replies: &[(
            "summary",
            r#"{"STATUS":[{"STATUS":"S","Code":11}],"SUMMARY":[{"Elapsed":60,"MHS av":300000.0,"MHS 5s":310000.0,"Miner type":"dash","Fan Num":2,"Fan1":5100,"Fan2":5200}],"id":1}"}"#,
        )],
        hashrate_hs: Some(310e9),
        power_w: None,
        temps: &[],
        fans: &[5100, 5200],
        pools: &[],
        is_mining: Some(true),
    },
    // JSON in a text, with lists in it.
    Case {
        firmware: "spondoolies",
        replies: &[
            (
                "summary",
                r#"{"STATUS":[{"STATUS":"S","Description":"cgminer 4.10.0-spx"}],"SUMMARY":[{"MHS 5s":500000.0}]}"#,
            ),
            (
                "stats",
                r#"{"STATS":[{"STATS":0,"ID":"SP360","json-stats":"{\"top-board\":{\"power\":2100,\"rear-temp\":61,\"front-temp\":41,\"loops-enabled\":[true,true]},\"bottom-board\":{\"power\":2000,\"rear-temp\":62,\"front-temp\":42},\"fan-speeds\":[9000,9100]}"}]}"#,
            ),
        ],
        hashrate_hs: Some(500e9),
        power_w: Some(4100.0),
        temps: &[41.0, 61.0, 42.0, 62.0],
        fans: &[9000, 9100],
        pools: &[],
        is_mining: Some(true),
    },
    // Each chain repeats the fans.
    Case {
        firmware: "minerva",
        replies: &[
            ("summary", r#"{"SUMMARY":[{"MHS av":80000000.0,"MHS 5s":81000000.0,"Netid":"1CC0E1000001"}]}"#),
            (
                "stats",
                r#"{"STATS":[{"ID":"C120","MHS 5s":40000000.0,"Temp Avg":70.5,"Fan Duty":30,"Fan0 Speed":3000,"Fan1 Speed":3100},{"ID":"C121","MHS 5s":41000000.0,"Temp Avg":71.5,"Fan Duty":30,"Fan0 Speed":3000,"Fan1 Speed":3100}]}"#,
            ),
        ],
        hashrate_hs: Some(81e12),
        power_w: None,
        temps: &[70.5, 71.5],
        fans: &[3000, 3100],
        pools: &[],
        is_mining: Some(true),
    },
    Case {
        firmware: "ibelink",
        replies: &[
            (
                "summary",
                r#"{"SUMMARY":[{"MHS 5s":10000000.0,"Temp1":50.25,"Temp2":51.5,"Temp3":0.0,"PWM":2400,"PWM1":2400,"PWM2":2430,"Power Type":"X"}]}"#,
            ),
            ("devs", r#"{"DEVS":[{"PGA":0,"Name":"BM-N1Max","Temperature":0.0,"MHS 5s":5000000.0}]}"#),
        ],
        hashrate_hs: Some(10e12),
        power_w: None,
        temps: &[50.25, 51.5],
        fans: &[2400, 2430],
        pools: &[],
        is_mining: Some(true),
    },
    Case {
        firmware: "dragonmint",
        replies: &[(
            "GET /api/summary",
            r#"{"success":true,"DEVS":[{"ASC":0,"Name":"DT1","Temperature":60,"MHS av":5000000.0,"MHS 5s":5200000.0,"Hash Rate":5000000.0},{"ASC":1,"Name":"DT1","Temperature":61,"MHS av":5000000.0,"MHS 5s":4800000.0,"Hash Rate":5000000.0}],"POOLS":[{"URL":"stratum+tcp://a:1","User":"u","Status":"Alive","Accepted":5,"Rejected":1}],"HARDWARE":{"Fan duty":50}}"#,
        )],
        hashrate_hs: Some(10e12),
        power_w: None,
        temps: &[60.0, 61.0],
        fans: &[],
        pools: &[("stratum+tcp://a:1", "u", 5, 1)],
        is_mining: Some(true),
    },
    Case {
        firmware: "ebang",
        replies: &[
            (
                "GET /Cgminer/CgminerStatus",
                r#"{"status": 1, "feedback": {"rejected":3,"accepted":200,"averfigure":"12.00T","fivesecfigure":"12.40T","cgminerstatus":"stratum+tcp://a:1"}}"#,
            ),
            (
                "GET /Cgminer/CgminerGetVal",
                r#"{"status": 1, "feedback": {"Mip1":"stratum+tcp://a:1","Mwork1":"u"}}"#,
            ),
            (
                "GET /Status/getsystemstatus",
                r#"{"status": 1, "feedback": {"devicefan":5500,"devicefan2":5600,"device1temp":"60,55|54,51","device3temp":0}}"#,
            ),
        ],
        hashrate_hs: Some(12.4e12),
        power_w: None,
        temps: &[60.0, 55.0, 54.0, 51.0],
        fans: &[5500, 5600],
        pools: &[("stratum+tcp://a:1", "u", 200, 3)],
        is_mining: Some(true),
    },
    Case {
        firmware: "openminer",
        replies: &[(
            "GET /api/om/miner/stat/agg",
            r#"{"pwr":{"setVoltage":"50.0","powerOn":1},"fansRpm":[5000,5100],"slots":{"0":{"temperature":50,"temperature1":51,"ghs":"8000.5"},"1":{"temperature":52,"temperature1":53,"ghs":"8100.5"}},"pool":{"host":"a","port":"3","userName":"u","intervals":{"0":{"sharesAccepted":9,"sharesRejected":0}}},"master":{"psuW":"1900.5","intervals":{"0":{"bySol":"1.0"},"30":{"bySol":"16200.0"}}}}"#,
        )],
        hashrate_hs: Some(16.2e12),
        power_w: Some(1900.5),
        temps: &[50.0, 51.0, 52.0, 53.0],
        fans: &[5000, 5100],
        pools: &[("a:3", "u", 9, 0)],
        is_mining: Some(true),
    },
    Case {
        firmware: "obelisk",
        replies: &[
            ("GET /api/info", r#"{"macAddress":"00:11:22:33:44:55","model":"SC1","vendor":"Obelisk"}"#),
            (
                "GET /api/status/dashboard",
                r#"{"systemInfo":[{"name":"Free Memory","value":"1 kB"},{"name":"Fan 1 Speed","value":3000},{"name":"Fan 2 Speed","value":3100}],"hashboardStatus":[{"boardTemp":61,"chipTemp":71,"mhsAvg":180000.5},{"boardTemp":62,"chipTemp":72,"mhsAvg":180000.5}],"poolStatus":[{"url":"a:1","worker":"u","status":"Alive","accepted":4,"rejected":2}]}"#,
            ),
        ],
        hashrate_hs: Some(360_001e6),
        power_w: None,
        temps: &[61.0, 71.0, 62.0, 72.0],
        fans: &[3000, 3100],
        pools: &[("a:1", "u", 4, 2)],
        is_mining: Some(true),
    },
    // A list of sensors in a text.
    Case {
        firmware: "blackminer",
        replies: &[(
            "stats",
            r#"{"STATS":[{"Type":"Blackminer F1-ULTRA"}{"GHS 5s":"4.5","fan_num":2,"fan1":2800,"fan2":2850,"temp1":50,"chipTemp1":"[61.25, 62.50]","temp2":51,"chipTemp2":"[63.00, 0.00]"}]}"#,
        )],
        hashrate_hs: Some(4.5e9),
        power_w: None,
        temps: &[50.0, 61.25, 62.5, 51.0, 63.0],
        fans: &[2800, 2850],
        pools: &[],
        is_mining: Some(true),
    },
    // A page as a browser's viewer saves it.
    Case {
        firmware: "blackminer",
        replies: &[(
            "GET /cgi-bin/get_miner_status.cgi",
            "// 20210101\n// http://miner/x\n\n{\"summary\":{\"elapsed\":\"1,011\",\"ghs5s\":\"7.5\"},\"devs\":[{\"index\":\"1\",\"fan\":\"4700\",\"temp\":\"72,chipTemp1=[90.5, 89.5]\"}]}",
        )],
        hashrate_hs: Some(7.5e9),
        power_w: None,
        temps: &[72.0, 90.5, 89.5],
        fans: &[4700],
        pools: &[],
        is_mining: Some(true),
    },
    Case {
        firmware: "zig",
        replies: &[(
            "stats",
            r#"{"STATS":[{"STATS":0,"ID":"lyra2rev20","MHS 30S":3300.5,"MHS 5m":4600.0,"Fan Nunber":2,"Fan In":3500,"Fan Out":3600,"Temperature Core":24,"CH1":{"Temperature":26,"MHS 30S":2200}}]}"#,
        )],
        hashrate_hs: Some(3300.5e6),
        power_w: None,
        temps: &[26.0, 24.0],
        fans: &[3500, 3600],
        pools: &[],
        is_mining: Some(true),
    },
    // Goldshell counts shares for all pools together, and repeats its fans for each board.
    Case {
        firmware: "goldshell",
        replies: &[
            (
                "GET /mcb/cgminer?cgminercmd=devs",
                "{\"status\":2,\"data\":[{\"av_hashrate\":400.0,\"hashrate\":500.5,\"time\":100,\"accepted\":10,\"rejected\":1,\"fanspeed\":\"2900 rpm / 2960 rpm\",\"temp\":\"83.0 °C / 73.8 °C\"},{\"av_hashrate\":400.0,\"hashrate\":499.5,\"time\":100,\"accepted\":20,\"rejected\":2,\"fanspeed\":\"2900 rpm / 2960 rpm\",\"temp\":\"84.0 °C / 74.8 °C\"}]}",
            ),
            (
                "GET /mcb/pools",
                r#"[{"url":"stratum+tcp://a:1","active":false,"user":"u"},{"url":"stratum+tcp://b:2","active":true,"user":"v"}]"#,
            ),
        ],
        hashrate_hs: Some(1000e6),
        power_w: None,
        temps: &[83.0, 73.8, 84.0, 74.8],
        fans: &[2900, 2960],
        pools: &[("stratum+tcp://a:1", "u", 0, 0), ("stratum+tcp://b:2", "v", 30, 3)],
        is_mining: Some(true),
    },
    // An A9 counts solutions whatever the key says; its oldest form numbers the lists.
    Case {
        firmware: "innosilicon",
        replies: &[
            (
                "summary",
                r#"{"STATUS":[{"STATUS":"S","Description":"innominer a9-1.1.0"}],"SUMMARY":[{"MHS av":50000.0,"MHS 5s":51000.0}]}"#,
            ),
            (
                "stats",
                r#"{"STATUS":[{"STATUS":"S"}],"STATS0":[{"STATS":0,"Num chips":12,"Temp":47.00}],"STATS1":[{"STATS":1,"Num chips":12,"Temp":48.00}]}"#,
            ),
            (
                "pools",
                r#"{"STATUS":[{"STATUS":"S"}],"POOL0":[{"POOL":0,"URL":"stratum+tcp://a:1","User":"u","Status":"Alive","Accepted":7,"Rejected":1}],"POOL1":[{"POOL":1,"URL":"stratum+tcp://b:2","User":"v","Status":"Alive","Accepted":0,"Rejected":0}]}"#,
            ),
        ],
        hashrate_hs: Some(51_000.0),
        power_w: None,
        temps: &[47.0, 48.0],
        fans: &[],
        pools: &[("stratum+tcp://a:1", "u", 7, 1), ("stratum+tcp://b:2", "v", 0, 0)],
        is_mining: Some(true),
    },
    Case {
        firmware: "epic",
        replies: &[(
            "GET /summary",
            r#"{"Software":"epic-miner v2.0.6","Session":{"Average MHs":1800000.5,"LastAverageMHs":{"Hashrate":1700000.0},"Accepted":9,"Rejected":1},"HBs":[{"Index":0,"Input Power":270.0,"Temperature":59}],"Stratum":{"Current Pool":"stratum+tcp://a:1","Current User":"u"}}"#,
        )],
        hashrate_hs: Some(1_800_000.5e6),
        power_w: None,
        temps: &[59.0],
        fans: &[],
        pools: &[("stratum+tcp://a:1", "u", 9, 1)],
        is_mining: Some(true),
    },
    // One Z11 firmware counts in thousands of solutions, another in single ones.
    Case {
        firmware: "antminer-stock",
        replies: &[(
            "stats",
            r#"{"STATS":[{"Type":"Antminer Z11"}{"GHS 5s":"140.50","fan_num":2,"fan1":5600,"fan2":5700,"temp1":63,"temp2_1":90,"chain_rate1":"53.25"}]}"#,
        )],
        hashrate_hs: Some(140_500.0),
        // From the model's nameplate.
        power_w: Some(1418.0 * 140_500.0 / 135_000.0),
        temps: &[63.0, 90.0],
        fans: &[5600, 5700],
        pools: &[],
        is_mining: Some(true),
    },
    // What one fork of an S9's firmware calls power is none.
    Case {
        firmware: "hiveon",
        replies: &[(
            "stats",
            r#"{"STATS":[{"BMMiner":"2.0.0 rwglr","Type":"Antminer S9 Hiveon"}{"GHS 5s":"11780.50","fan_num":2,"fan5":5400,"fan6":5500,"temp6":60,"temp2_6":75,"chain_power6":11.50,"chain_power":"34.50 (AB)"}]}"#,
        )],
        hashrate_hs: Some(11_780.5e9),
        power_w: None,
        temps: &[60.0, 75.0],
        fans: &[5400, 5500],
        pools: &[],
        is_mining: Some(true),
    },
    // Thirty seconds are this Avalon's shortest window; its boards' averages are temperatures too.
    Case {
        firmware: "avalon",
        replies: &[(
            "pools+summary+stats",
            r#"{"summary":[{"STATUS":[{"STATUS":"S"}],"SUMMARY":[{"MHS av":25000000.0,"MHS 30s":32000000.0,"MHS 1m":28000000.0}]}],"stats":[{"STATS":[{"ID":"AVA100","MM ID0":"Ver[1047-20051101_85dc6f0] SYSTEMSTATU[Work: In Work, Hash Board: 2 ] Temp[18] TMax[64] TAvg[57] Fan1[2896] Fan2[2927] PS[0 0 0 0 0 0] GHSmm[37000.00] MTmax[61 64] MTavg[55 58]"}]}],"pools":[{"POOLS":[{"URL":"stratum+tcp://a:1","User":"u","Status":"Alive","Accepted":5,"Rejected":0}]}]}"#,
        )],
        hashrate_hs: Some(32e12),
        power_w: None,
        temps: &[18.0, 55.0, 58.0, 57.0, 61.0, 64.0, 64.0],
        fans: &[2896, 2927],
        pools: &[("stratum+tcp://a:1", "u", 5, 0)],
        is_mining: Some(true),
    },
    Case {
        firmware: "jasminer",
        replies: &[(
            "POST /cgi-bin/minerStatus.cgi",
            r#"{"summary":{"miner":"X16-Q","uptime":"00:10","rt":"1950.50 MH/s","avg":"1900.00 MH/s"},"boards":{"fan1":"3100","fan2":"3200","board":[{"asic0_temp":"55","asic1_temp":"56"}]},"pools":{"pool":[{"url":"stratum+tcp://a:1","user":"u","status":"in use"}]}}"#,
        )],
        hashrate_hs: Some(1950.5e6),
        power_w: None,
        temps: &[55.0, 56.0],
        fans: &[3100, 3200],
        pools: &[("stratum+tcp://a:1", "u", u64::MAX, u64::MAX)],
        is_mining: Some(true),
    },
    // Graphs a second, which is no thousand million of anything.
    Case {
        firmware: "ipollo",
        replies: &[(
            "stats",
            r#"{"STATUS":[{"STATUS":"S"}],"STATS":[{"ID":"G220","Algo":"mwc","Hashrate":"37.61","Unit":"G/s","Temp":"55 60 71","Fan":"4200 4300","Elapsed":99}]}"#,
        )],
        hashrate_hs: Some(37.61),
        power_w: None,
        temps: &[55.0, 60.0, 71.0],
        fans: &[4200, 4300],
        pools: &[],
        is_mining: Some(true),
    },
    // A Nano 3 has its watts elsewhere in the list than its kin.
    Case {
        firmware: "avalon-nano3",
        replies: &[(
            "estats",
            "STATUS=S,When=1,Code=70,Msg=CGMiner stats,Description=cgminer 4.11.1|STATS=0,ID=AVANANO0,Elapsed=9,MM ID0=HashStatus[1] Ver[nano3-24071801_42c628d] Elapsed[9] Temp[38] OTemp[41] TMax[87] TAvg[85] Fan1[3030] FanR[41%] PS[0 0 0 3 2792 88 324] GHSspd[2600.50] MTmax[87] MTavg[85],MM Count=1|",
        )],
        hashrate_hs: Some(2600.5e9),
        power_w: Some(88.0),
        temps: &[38.0, 41.0, 87.0, 85.0, 87.0, 85.0],
        fans: &[3030],
        pools: &[],
        is_mining: Some(true),
    },
    Case {
        firmware: "avalon-nano3s",
        replies: &[(
            "estats",
            r#"{"STATS":[{"ID":"AVALON0","MM ID0":"Ver[Nano3s-25021401_56abae7] SYSTEMSTATU[Work: In Work, Hash Board: 1 ] ITemp[-273] OTemp[56] TMax[97] TAvg[89] Fan1[2040] FanR[41%] PS[0 0 27535 4 0 3667 133] GHSspd[6600.25]"}]}"#,
        )],
        hashrate_hs: Some(6600.25e9),
        power_w: Some(133.0),
        temps: &[56.0, 97.0, 89.0],
        fans: &[2040],
        pools: &[],
        is_mining: Some(true),
    },
    // GPU and CPU miners: the text of ccminer and cpuminer, and the rows of sgminer's kin.
    Case {
        firmware: "cgminer",
        replies: &[
            ("summary|", "NAME=ccminer;VER=2.3;API=1.9;ALGO=x16r;GPUS=1;KHS=1.25;ACC=0;REJ=0;UPTIME=6|"),
            ("pool|", "POOL=a:1;ALGO=x16r;URL=stratum+tcp://a:1;USER=u;ACC=25;REJ=1;STALE=0|"),
            ("hwinfo|", "GPU=0;CARD=X;TEMP=82.0;FAN=84;RPM=3100;POWER=185125|OS=linux;CPUS=4|"),
        ],
        hashrate_hs: Some(1250.0),
        power_w: Some(185.125),
        temps: &[82.0],
        fans: &[3100],
        pools: &[("stratum+tcp://a:1", "u", 25, 1)],
        is_mining: Some(true),
    },
    Case {
        firmware: "cgminer",
        replies: &[(
            "summary",
            "NAME=cpuminer-opt;VER=3.9;API=1.0;ALGO=lyra2z;CPUS=4;URL=a:1;HS=117826.50;KHS=117.83;ACC=3;REJ=0;TEMP=0.0|",
        )],
        hashrate_hs: Some(117_830.0),
        power_w: None,
        temps: &[],
        fans: &[],
        pools: &[],
        is_mining: Some(true),
    },
    Case {
        firmware: "cgminer",
        replies: &[(
            "devs",
            r#"{"STATUS":[{"STATUS":"S","Description":"TeamRedMiner 0.3.8"}],"DEVS":[{"GPU":0,"Temperature":68.00,"Fan Speed":1400,"MHS av":0.0003418,"MHS 30s":0.00035,"KHS av":0.3418,"KHS 30s":0.35}]}"#,
        )],
        hashrate_hs: Some(350.0),
        power_w: None,
        temps: &[68.0],
        fans: &[1400],
        pools: &[],
        is_mining: Some(true),
    },
];

#[test]
fn each_form_is_recognised_and_read() {
    for (n, case) in CASES.iter().enumerate() {
        let (firmware, reading) = read(case.replies).unwrap_or_else(|| panic!("case {n}: not recognised"));
        let at = format!("case {n}, {}", case.firmware);
        assert_eq!(firmware, case.firmware, "{at}");
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b.abs();
        match (reading.hashrate.map(|h| h.get()), case.hashrate_hs) {
            (Some(is), Some(wanted)) => assert!(near(is, wanted), "{at}: {is} H/s, not {wanted}"),
            (is, wanted) => assert_eq!(is, wanted, "{at}"),
        }
        match (reading.power.map(|p| p.get()), case.power_w) {
            (Some(is), Some(wanted)) => assert!(near(is, wanted), "{at}: {is} W, not {wanted}"),
            (is, wanted) => assert_eq!(is, wanted, "{at}"),
        }
        let mut temps: Vec<f64> = reading.temps.iter().map(|t| t.get()).collect();
        let mut wanted = case.temps.to_vec();
        temps.sort_by(f64::total_cmp);
        wanted.sort_by(f64::total_cmp);
        assert_eq!(temps, wanted, "{at}");
        assert_eq!(reading.fans_rpm, case.fans, "{at}");
        assert_eq!(reading.is_mining, case.is_mining, "{at}");
        let known = |shares: Option<u64>| shares.unwrap_or(u64::MAX);
        let pools: Vec<(&str, &str, u64, u64)> = reading
            .pools
            .iter()
            .map(|p| {
                (p.url.as_str(), p.worker.as_deref().unwrap_or(""), known(p.accepted), known(p.rejected))
            })
            .collect();
        if !case.pools.is_empty() {
            assert_eq!(pools, case.pools, "{at}");
        }
    }
}

#[test]
fn a_rate_in_an_unknown_unit_is_unknown() {
    let stats = |unit: &str| {
        format!(r#"{{"STATS":[{{"Type":"Antminer X5"}},{{"GHS 5s":"212.50"{unit},"chain_rate1":"70.5"}}]}}"#)
    };
    let (_, reading) = read(&[("stats", &stats(""))]).unwrap();
    assert_eq!((reading.hashrate, reading.power), (None, None));
    assert!(reading.boards.iter().all(|board| board.hashrate.is_none()));
    assert!(reading.warnings.iter().any(|w| w.contains("unit")), "{:?}", reading.warnings);
    // A version that names its unit is read.
    let (_, reading) = read(&[("stats", &stats(r#","rate_unit":"KH/s""#))]).unwrap();
    assert_eq!(reading.hashrate.map(|h| h.get()), Some(212_500.0));
}

#[test]
fn an_unknown_make_is_read_and_said_to_be_generic() {
    let (firmware, reading) = read(&[
        (
            "version",
            r#"{"STATUS":[{"STATUS":"S","Description":"cgminer 4.9.9"}],"VERSION":[{"CGMiner":"4.9.9","API":"3.5","Type":"Novel One"}]}"#,
        ),
        (
            "summary",
            r#"{"STATUS":[{"STATUS":"S"}],"SUMMARY":[{"Elapsed":5,"MHS av":10.5,"MHS 5s":12.5,"Accepted":3,"Rejected":1}]}"#,
        ),
    ])
    .unwrap();
    assert_eq!((firmware.as_str(), reading.model.as_deref()), ("cgminer", Some("Novel One")));
    assert_eq!((reading.hashrate.unwrap().get(), reading.accepted), (12.5e6, Some(3)));
    assert_eq!((reading.power, reading.power_source), (None, None));
    let replies = [(Request::cgminer("summary"), &br#"{"SUMMARY":[{"MHS 5s":1}]}"#[..])];
    let identified = decode(&PROFILES, &replies).unwrap().identified;
    assert!(!identified.capabilities.sleep && !identified.capabilities.power_limit);
    assert_eq!(identified.standby, None);
}

/// Longest that any reply of this size may take in a build without optimisation.
const BOUND: Duration = Duration::from_secs(10);

#[test]
fn deep_and_long_replies_take_bounded_time() {
    let deep = "[".repeat(200_000);
    let deeper = format!("{{\"STATS\":{}", "{\"a\":[".repeat(100_000));
    let long = format!("{{\"STATS\":[{}]}}", "{\"fan1\":1,\"temp1\":\"1-2-3-4\"}".repeat(20_000));
    let text = format!("STATUS=S|{}", "STATS=0,MM ID0=Ver[1] Fan1[2] ".repeat(20_000));
    for reply in [deep, deeper, long, text] {
        let started = Instant::now();
        let decoded = decode(&PROFILES, &[(Request::cgminer("stats"), reply.as_bytes())]);
        assert!(started.elapsed() < BOUND, "{} bytes took {:?}", reply.len(), started.elapsed());
        if let Some(decoded) = decoded {
            assert!(decoded.reading.temps.len() + decoded.reading.fans_rpm.len() <= 2048);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Replies with bytes changed, cut out, doubled or cut off are read, or not; never a panic, never
    /// a figure out of its range, never long.
    #[test]
    fn damaged_replies_do_no_harm(
        which in 0..CASES.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 0..10),
        swap: bool,
    ) {
        let mut replies: Vec<(Request, Vec<u8>)> =
            CASES[which].replies.iter().map(|(name, reply)| (request(name), reply.as_bytes().to_vec())).collect();
        let count = replies.len();
        for (n, (at, to, byte, kind)) in edits.into_iter().enumerate() {
            let bytes = &mut replies[n % count].1;
            if bytes.is_empty() {
                continue;
            }
            let (at, to) = (at.index(bytes.len()), to.index(bytes.len()));
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at),
                2 => drop(bytes.drain(at.min(to)..at.max(to))),
                _ => {
                    let part = bytes[at.min(to)..at.max(to)].to_vec();
                    bytes.splice(at..at, part);
                }
            }
        }
        if swap && count > 1 {
            // A reply of another request, as a device with a confused API sends it.
            let first = replies[0].1.clone();
            replies[1].1 = first;
        }
        let borrowed: Vec<(Request, &[u8])> =
            replies.iter().map(|(request, bytes)| (request.clone(), &bytes[..])).collect();
        let started = Instant::now();
        if let Some(decoded) = decode(&PROFILES, &borrowed) {
            let reading = &decoded.reading;
            prop_assert!(reading.temps.iter().all(|t| (-40.0..=200.0).contains(&t.get())));
            prop_assert!(reading.hashrate.is_none_or(|h| h.get() >= 0.0 && h.get().is_finite()));
            prop_assert!(reading.power.is_none_or(|p| p.get() >= 0.0 && p.get().is_finite()));
            prop_assert!(reading.to_json().is_object());
        }
        prop_assert!(started.elapsed() < BOUND);
    }
}
