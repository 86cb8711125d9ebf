//! `hashinsight-agent probe` against simulated devices and against things that are none.

use hashinsight_tests::programs;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

fn probe(address: &str) -> Output {
    let mut command = Command::new(programs().join("hashinsight-agent"));
    command.args(["probe", address, "--json", "--deadline-ms", "2000"]).output().unwrap()
}

/// A peer that greets every connection in its own way.
fn peer(greet: fn(&mut TcpStream)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || greet(&mut stream));
        }
    });
    address
}

/// Reads what was asked, as a cgminer does, before the answer.
fn after_request(stream: &mut TcpStream, answer: &[u8]) {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request);
    let _ = stream.write_all(answer);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures how long a program takes")]
fn what_is_no_miner_gives_one_clear_line_in_time() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let cases = [
        ("a closed port", closed),
        ("a silent peer", peer(|_| std::thread::sleep(Duration::from_secs(30)))),
        (
            "a web server",
            peer(|s| after_request(s, b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")),
        ),
        ("garbage", peer(|s| after_request(s, &[0xff, 0x00, 0x13, 0x37].repeat(50)))),
        ("an early end", peer(|s| after_request(s, b""))),
    ];
    for (what, address) in cases {
        let began = SystemTime::now();
        let output = probe(&address);
        let took = began.elapsed().unwrap();
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{what} is taken for a miner");
        assert_eq!(words.trim().lines().count(), 1, "{what}: {words}");
        assert!(output.stdout.is_empty(), "{what}");
        assert!(took < Duration::from_secs(6), "{what} took {took:?}");
    }
}

#[test]
fn a_plain_cgminer_is_read_and_said_to_be_uncontrollable() {
    // The forms of cgminer 4.13: JSON, one NUL, end of connection.
    let address = peer(|stream| {
        let mut request = [0; 4096];
        let n = stream.read(&mut request).unwrap_or(0);
        let request = String::from_utf8_lossy(&request[..n]).into_owned();
        let status = |code: u32, msg: &str| {
            format!(
                r#""STATUS":[{{"STATUS":"S","When":1790000000,"Code":{code},"Msg":"{msg}","Description":"cgminer 4.13.6"}}]"#
            )
        };
        let section = |name: &str| match name {
            "version" => format!(
                r#"{{{},"VERSION":[{{"CGMiner":"4.13.6","API":"3.7"}}],"id":1}}"#,
                status(22, "CGMiner versions")
            ),
            "summary" => format!(
                r#"{{{},"SUMMARY":[{{"Elapsed":3600,"MHS av":13500000.00,"MHS 5s":13630550.00,"Accepted":120,"Rejected":3,"Stale":1}}],"id":1}}"#,
                status(11, "Summary")
            ),
            "pools" => format!(
                r#"{{{},"POOLS":[{{"POOL":0,"URL":"stratum+tcp://pool.example:3333","Status":"Alive","Accepted":120,"Rejected":3,"Stale":1,"User":"site.1"}}],"id":1}}"#,
                status(7, "1 Pool(s)")
            ),
            _ => r#"{"STATUS":[{"STATUS":"E","When":1790000000,"Code":14,"Msg":"Invalid command"}],"id":1}"#
                .to_owned(),
        };
        let command = serde_json::from_str::<Value>(request.trim_end_matches(['\0', '\n']))
            .ok()
            .and_then(|v| v["command"].as_str().map(str::to_owned))
            .unwrap_or_default();
        let mut answer = if command.contains('+') {
            let parts: Vec<_> = command.split('+').map(|c| format!(r#""{c}":[{}]"#, section(c))).collect();
            format!("{{{},\"id\":1}}", parts.join(","))
        } else {
            section(&command)
        };
        answer.push('\0');
        let _ = stream.write_all(answer.as_bytes());
    });
    let output = probe(&address);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    let reading: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(reading["hashrate_hs"].as_f64(), Some(13_630_550e6), "{reading}");
    assert_eq!(reading["uptime_s"].as_f64(), Some(3600.0), "{reading}");
    assert_eq!(reading["power_w"], Value::Null, "what is unknown stays unknown: {reading}");
    assert_eq!(reading["pools"][0]["accepted"], 120, "{reading}");
}
