//! What the devices of the measurement answer: an Antminer S9's summary (1 kB), statistics (5 kB) and
//! pools (1 kB), as its firmware writes them. Three in ten have the fault of the oldest firmwares: no
//! comma between the two rows of the statistics.

use std::fmt::Write as _;

/// Devices and moments that differ; a connection gets the next one.
pub const VARIANTS: usize = 200;
/// Of ten variants, so many are broken.
const BROKEN_OF_TEN: usize = 3;
/// Places for chains in this firmware; three are taken.
const CHAINS: usize = 16;
const TAKEN: [usize; 3] = [6, 7, 8];

/// The same for all: a device whose uptime falls was restarted, and is asked who it is.
const ELAPSED_S: u32 = 431_470;

/// Whether a variant's statistics are broken.
pub fn is_broken(variant: usize) -> bool {
    variant % 10 < BROKEN_OF_TEN
}

/// The reply to a request of the CGMiner API with its closing NUL; several commands may be joined.
pub fn reply(request: &[u8], variant: usize) -> Vec<u8> {
    let request = String::from_utf8_lossy(request);
    let command = request.split("\"command\":\"").nth(1).and_then(|rest| rest.split('"').next());
    let command = command.unwrap_or_default();
    let mut out = String::new();
    if command.contains('+') {
        out.push('{');
        for name in command.split('+') {
            // Writing into a text can't fail.
            let _ = write!(out, "\"{name}\":[{}],", one(name, variant));
        }
        out.push_str("\"id\":1}");
    } else {
        out = one(command, variant);
    }
    out.push('\0');
    out.into_bytes()
}

fn one(command: &str, variant: usize) -> String {
    match command {
        "version" => whole(22, "BMMiner versions", &version()),
        "summary" => long(1_000, whole(11, "Summary", &summary(variant))),
        "stats" => long(5_000, whole(70, "BMMiner stats", &stats(variant))),
        "pools" => long(1_000, whole(7, "3 Pool(s)", &pools(variant))),
        _ => "{\"STATUS\":[{\"STATUS\":\"E\",\"When\":1700000000,\"Code\":14,\"Msg\":\"Invalid command\",\
              \"Description\":\"bmminer 1.0.0\"}],\"id\":1}"
            .to_owned(),
    }
}

fn whole(code: u16, message: &str, rows: &str) -> String {
    format!(
        "{{\"STATUS\":[{{\"STATUS\":\"S\",\"When\":1700000000,\"Code\":{code},\"Msg\":\"{message}\",\
         \"Description\":\"bmminer 1.0.0\"}}],{rows},\"id\":1}}"
    )
}

/// A reply with blanks before its last bracket until it is as long as the longer ones of its kind: newer
/// devices say more than this one.
fn long(bytes: usize, mut reply: String) -> String {
    if let Some(last) = reply.pop() {
        reply.extend(std::iter::repeat_n(' ', bytes.saturating_sub(reply.len() + 1)));
        reply.push(last);
    }
    reply
}

fn version() -> String {
    "\"VERSION\":[{\"BMMiner\":\"2.0.0\",\"API\":\"3.1\",\"Miner\":\"16.8.1.3\",\"CompileTime\":\
     \"Fri Nov 17 17:37:49 CST 2017\",\"Type\":\"Antminer S9\"}]"
        .to_owned()
}

/// A rate in GH/s that moves with the variant.
fn rate(variant: usize) -> f64 {
    13_500.0 + (variant * 37 % 400) as f64 + 0.31
}

fn summary(variant: usize) -> String {
    let mut out = format!(
        "\"SUMMARY\":[{{\"Elapsed\":{},\"GHS 5s\":\"{:.2}\",\"GHS av\":{:.2},\"Found Blocks\":0,\"Getworks\":{},\
         \"Accepted\":{},\"Rejected\":{},\"Hardware Errors\":{},\"Utility\":{:.2},\"Discarded\":{},\"Stale\":{}",
        ELAPSED_S,
        rate(variant),
        rate(variant) - 11.2,
        1_200 + variant,
        8_000 + variant * 3,
        variant % 17,
        200 + variant,
        4.97,
        33_120 + variant,
        variant % 5,
    );
    for (key, value) in [
        ("Get Failures", "3"),
        ("Local Work", "5541234"),
        ("Remote Failures", "1"),
        ("Network Blocks", "188"),
        ("Total MH", "1365478912345.0000"),
        ("Work Utility", "189233.14"),
        ("Difficulty Accepted", "318832640.00000000"),
        ("Difficulty Rejected", "262144.00000000"),
        ("Difficulty Stale", "0.00000000"),
        ("Best Share", "1928374655"),
        ("Device Hardware%", "0.0004"),
        ("Device Rejected%", "0.0822"),
        ("Pool Rejected%", "0.0822"),
        ("Pool Stale%", "0.0000"),
        ("Last getwork", "1700000000"),
    ] {
        let _ = write!(out, ",\"{key}\":{value}");
    }
    out.push_str("}]");
    out
}

fn stats(variant: usize) -> String {
    let between = if is_broken(variant) { "}{" } else { "},{" };
    let mut out = format!(
        "\"STATS\":[{{\"BMMiner\":\"2.0.0\",\"Miner\":\"16.8.1.3\",\"CompileTime\":\"Fri Nov 17 17:37:49 CST 2017\",\
         \"Type\":\"Antminer S9\"{between}\"STATS\":0,\"ID\":\"BC50\",\"Elapsed\":{},\"Calls\":0,\"Wait\":0.000000,\
         \"Max\":0.000000,\"Min\":99999999.000000,\"GHS 5s\":\"{:.2}\",\"GHS av\":{:.2},\"miner_count\":3,\
         \"frequency\":\"637\",\"fan_num\":2",
        ELAPSED_S,
        rate(variant),
        rate(variant) - 11.2,
    );
    let taken = |chain: usize| TAKEN.contains(&chain);
    let warm = |chain: usize, from: usize| if taken(chain) { from + (variant + chain) % 9 } else { 0 };
    for fan in 1..=8 {
        let turns = if matches!(fan, 3 | 6) { 4000 + variant * 7 % 900 } else { 0 };
        let _ = write!(out, ",\"fan{fan}\":{turns}");
    }
    out.push_str(",\"temp_num\":3");
    for (key, from) in [("temp", 55), ("temp2_", 70), ("temp3_", 0)] {
        for chain in 1..=CHAINS {
            let _ = write!(out, ",\"{key}{chain}\":{}", if from == 0 { 0 } else { warm(chain, from) });
        }
    }
    let per_chain = |out: &mut String, key: &str, value: &dyn Fn(usize) -> String| {
        for chain in 1..=CHAINS {
            let _ = write!(out, ",\"{key}{chain}\":{}", value(chain));
        }
    };
    per_chain(&mut out, "freq_avg", &|chain| if taken(chain) { "627.57".into() } else { "0.00".into() });
    out.push_str(
        ",\"total_rateideal\":13501.38,\"total_freqavg\":627.47,\"total_acn\":189,\"total_rate\":13630.54",
    );
    per_chain(&mut out, "chain_rateideal", &|chain| {
        if taken(chain) { "4500.33".into() } else { "0.00".into() }
    });
    out.push_str(",\"temp_max\":57,\"Device Hardware%\":0.0004,\"no_matching_work\":1222");
    per_chain(&mut out, "chain_acn", &|chain| if taken(chain) { "63".into() } else { "0".into() });
    per_chain(&mut out, "chain_acs", &|chain| {
        format!("\"{}\"", if taken(chain) { " oooooooo".repeat(7) + " ooooooo" } else { String::new() })
    });
    per_chain(&mut out, "chain_hw", &|chain| if taken(chain) { "118".into() } else { "0".into() });
    per_chain(&mut out, "chain_rate", &|chain| {
        if taken(chain) { format!("\"{:.2}\"", rate(variant) / 3.0) } else { "\"\"".into() }
    });
    for chain in TAKEN {
        let _ = write!(out, ",\"chain_xtime{chain}\":\"{{X49=5}}\"");
    }
    for key in ["chain_offside_", "chain_opencore_"] {
        for chain in TAKEN {
            let _ = write!(out, ",\"{key}{chain}\":\"0\"");
        }
    }
    // The longest of these replies name the voltage of every place too.
    per_chain(&mut out, "chain_vol", &|chain| if taken(chain) { "\"870\"".into() } else { "\"0\"".into() });
    per_chain(&mut out, "chain_power_now", &|chain| if taken(chain) { "0.00".into() } else { "\"\"".into() });
    per_chain(&mut out, "chain_consumed", &|_| "0".into());
    out.push_str(",\"miner_version\":\"16.8.1.3\",\"miner_id\":\"80749dc610358854\"}]");
    out
}

fn pools(variant: usize) -> String {
    let mut out = String::from("\"POOLS\":[");
    for pool in 0..3 {
        if pool > 0 {
            out.push(',');
        }
        let (status, active) = if pool == 0 { ("Alive", true) } else { ("Alive", false) };
        let accepted = if pool == 0 { 8_000 + variant * 3 } else { 0 };
        let _ = write!(
            out,
            "{{\"POOL\":{pool},\"URL\":\"stratum+tcp://pool{pool}.example.com:3333\",\"Status\":\"{status}\",\
             \"Priority\":{pool},\"Quota\":1,\"Long Poll\":\"N\",\"Getworks\":{},\"Accepted\":{accepted},\
             \"Rejected\":{},\"Discarded\":{},\"Stale\":0,\"Get Failures\":1,\"User\":\"site.rack{:03}\",\
             \"Diff\":\"65.5K\",\"Diff1 Shares\":0,\"Has Stratum\":true,\"Stratum Active\":{active}}}",
            1_000 + variant,
            variant % 17,
            30_000 + variant,
            variant % 100,
        );
    }
    out.push(']');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashinsight_firmware::decode::read_known;
    use hashinsight_firmware::{Profiles, Request};

    #[test]
    fn replies_are_as_long_as_they_should_be() {
        let long = |command: &str| {
            reply(format!("{{\"command\":\"{command}\"}}").as_bytes(), 9).len() as f64 / 1000.0
        };
        assert!((0.8..1.2).contains(&long("summary")), "{}", long("summary"));
        assert!((4.6..5.4).contains(&long("stats")), "{}", long("stats"));
        assert!((0.8..1.2).contains(&long("pools")), "{}", long("pools"));
    }

    /// What is measured is a whole reading, and the broken replies are read as the others are.
    #[test]
    fn every_variant_is_read_whole() {
        let profiles = Profiles::builtin();
        let broken = (0..VARIANTS).filter(|variant| is_broken(*variant)).count();
        assert_eq!(broken * 10, VARIANTS * BROKEN_OF_TEN);
        for variant in 0..VARIANTS {
            let bytes = reply(b"{\"command\":\"stats+pools+summary\"}", variant);
            let bytes = bytes.strip_suffix(b"\0").expect("a closing NUL");
            let strict = serde_json::from_slice::<serde_json::Value>(bytes);
            assert_eq!(strict.is_err(), is_broken(variant));
            let request = Request::cgminer("stats+pools+summary");
            let reading = read_known(&profiles, "antminer-stock", &[(request, bytes)]).expect("a profile");
            let rate = reading.hashrate.map(|rate| rate.terahash().round());
            assert_eq!(rate, Some((super::rate(variant) / 1000.0).round()), "{variant}");
            assert_eq!((reading.pools.len(), reading.boards.len(), reading.fans_rpm.len()), (3, 3, 2));
            assert_eq!(reading.temps.len(), 6);
            assert_eq!(reading.repairs.is_empty(), !is_broken(variant), "{:?}", reading.repairs);
            assert!(reading.accepted.is_some() && reading.uptime.is_some());
        }
    }
}
