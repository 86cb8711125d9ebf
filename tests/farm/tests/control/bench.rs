//! A farm whose time runs fast, and one device of it as a driver sees it.

use hashinsight_farm::{Clock, Config, DeviceState, Farm, FaultKind, FaultOrder, Running};
use hashinsight_firmware::{
    Change, Credentials, Device, DeviceError, Identified, Limits, Profiles, Reading, Secret, WriteOutcome,
    change, identify, judge_running, judge_stopped, pre_state, read, stop, wake,
};
use hashinsight_protocol::device::{FactV1, PreStateV1};
use hashinsight_protocol::units::{Millis, Watts};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub const LIMITS: Limits = Limits { deadline: Duration::from_secs(5), max_reply: 1 << 18 };
/// The farm's time runs this many times as fast.
const SPEED: u32 = 50;

/// Profiles that wait no longer than a test should.
pub fn profiles() -> Profiles {
    let folder = tempfile::tempdir().unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../firmware-profiles/profiles");
    for file in std::fs::read_dir(source).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|ext| ext == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let lines =
                text.lines().map(|line| if line.starts_with("settle_s") { "settle_s = 3" } else { line });
            let text = lines.collect::<Vec<_>>().join("\n");
            std::fs::write(folder.path().join(path.file_name().unwrap()), text).unwrap();
        }
    }
    Profiles::with_folder(folder.path()).unwrap()
}

/// One device of a farm.
pub struct Bench {
    pub farm: Running,
    clock: Clock,
    ticker: JoinHandle<()>,
    pub profiles: Profiles,
    pub device: Device,
    pub ip: Ipv4Addr,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.ticker.abort();
    }
}

async fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap().local_addr().unwrap().port()
}

/// The first device of `model` in a farm of one family.
pub async fn bench(family: &str, model: &str) -> Bench {
    let clock = Clock::manual(Millis(1_800_000_000_000));
    for _ in 0..20 {
        let (api_port, web_port) = (free_port().await, free_port().await);
        let config = Config {
            miners: 12,
            mix: family.parse().unwrap(),
            api_port,
            web_port,
            clock: clock.clone(),
            ..Config::default()
        };
        let Ok(farm) = Farm::start(config).await else { continue };
        let ip = farm.state().iter().find(|d| d.model == model).unwrap().device;
        let mut device = Device { api_port, web_port, ..Device::at(ip.into()) };
        if family == "proto" {
            // These come without a password of the factory's: one is chosen when they are set up.
            let password = Secret::new(hashinsight_farm::family::proto::PASSWORD);
            device.credentials = Some(Credentials { user: String::new(), password });
        }
        let fast = clock.clone();
        let ticker = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                fast.advance(Duration::from_millis(10) * SPEED);
            }
        });
        return Bench { farm, clock, ticker, profiles: profiles(), device, ip };
    }
    panic!("no free ports");
}

impl Bench {
    pub fn state(&self) -> DeviceState {
        self.farm.state().into_iter().find(|d| d.device == self.ip).unwrap()
    }

    pub fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub fn fault(&self, kind: FaultKind, value: Option<f64>) {
        self.farm.fault(&FaultOrder { value, ..FaultOrder::on(kind, self.ip) }).unwrap();
    }

    pub async fn identify(&self) -> Identified {
        identify(&self.profiles, &self.device, &LIMITS).await.unwrap()
    }

    pub async fn read(&self, who: &Identified) -> Reading {
        read(&self.profiles, &self.device, who, &LIMITS).await.unwrap()
    }

    pub async fn pre(&self, who: &Identified) -> PreStateV1 {
        pre_state(&self.profiles, &self.device, who, &LIMITS).await.unwrap()
    }

    pub async fn stop(&self, who: &Identified, pre: &PreStateV1) -> Result<WriteOutcome, DeviceError> {
        stop(&self.profiles, &self.device, who, pre, &LIMITS, Millis(0)).await
    }

    pub async fn wake(&self, who: &Identified, pre: &PreStateV1) -> Result<WriteOutcome, DeviceError> {
        wake(&self.profiles, &self.device, who, pre, &LIMITS, Millis(0)).await
    }

    pub async fn change(&self, who: &Identified, order: &Change) -> Result<WriteOutcome, DeviceError> {
        change(&self.profiles, &self.device, who, order, &LIMITS, Millis(0)).await
    }

    /// What a reading proves of a stop.
    pub async fn stopped(&self, who: &Identified, baseline: Option<Watts>) -> (FactV1, FactV1) {
        let reading = self.read(who).await;
        let back = pre_state(&self.profiles, &self.device, who, &LIMITS).await.ok();
        judge_stopped(&self.profiles, who, &reading, back.as_ref(), baseline)
    }

    /// What a reading proves of a wake-up.
    pub async fn running(&self, who: &Identified, pre: &PreStateV1) -> (FactV1, FactV1) {
        let reading = self.read(who).await;
        let back = pre_state(&self.profiles, &self.device, who, &LIMITS).await.ok();
        judge_running(&self.profiles, who, &reading, back.as_ref(), pre)
    }

    pub fn set_password(&mut self, user: &str, password: &str) {
        self.device.credentials =
            Some(Credentials { user: user.to_owned(), password: Secret::new(password) });
    }
}
