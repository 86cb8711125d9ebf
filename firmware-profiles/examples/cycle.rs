//! Puts one device to sleep and wakes it again, saying what each step proves. For a test bench.
//!
//! `cargo run -p hashinsight-firmware --example cycle -- IP [API_PORT [WEB_PORT]]`

use hashinsight_firmware::{
    Device, Limits, Profiles, identify, judge_running, judge_stopped, pre_state, read, stop, wake,
};
use hashinsight_protocol::units::{Millis, Watts};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let ip = args.next().ok_or("usage: cycle IP [API_PORT [WEB_PORT]]")?.parse()?;
    let mut device = Device::at(ip);
    if let Some(port) = args.next() {
        device.api_port = port.parse()?;
    }
    if let Some(port) = args.next() {
        device.web_port = port.parse()?;
    }
    let (profiles, limits) = (Profiles::builtin(), Limits::default());
    // A bench tool is its own clock.
    #[allow(clippy::disallowed_methods)]
    let now = || Millis(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64));
    let who = identify(&profiles, &device, &limits).await?;
    println!("{who:?}");
    let before = read(&profiles, &device, &who, &limits).await?;
    println!("{}", before.to_json());
    let pre = pre_state(&profiles, &device, &who, &limits).await?;
    println!("{pre:?}");
    println!("stop: {:?}", stop(&profiles, &device, &who, &pre, &limits, now()).await?);
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let reading = read(&profiles, &device, &who, &limits).await?;
        let back = pre_state(&profiles, &device, &who, &limits).await;
        let facts = judge_stopped(&profiles, &who, &reading, back.as_ref().ok(), before.power);
        println!("stopped: {facts:?} at {} W", reading.power.map_or(-1.0, Watts::get));
    }
    println!("wake: {:?}", wake(&profiles, &device, &who, &pre, &limits, now()).await?);
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let reading = read(&profiles, &device, &who, &limits).await?;
        let back = pre_state(&profiles, &device, &who, &limits).await;
        let facts = judge_running(&profiles, &who, &reading, back.as_ref().ok(), &pre);
        println!("running: {facts:?} at {} W", reading.power.map_or(-1.0, Watts::get));
    }
    Ok(())
}
